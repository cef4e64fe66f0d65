"""Calico's selectors: a text that says of a set of labels whether it is meant (calico-formats.md, "Selectors").

Grammar, loosest first::

    or       = and { "||" and }
    and      = unary { "&&" unary }
    unary    = { "!" } primary
    primary  = "(" or ")" | "all()" | "global()" | "has(" LABEL ")" | LABEL test
    test     = "==" TEXT | "!=" TEXT | "in" SET | "not in" SET | "contains" TEXT | "starts with" TEXT | "ends with" TEXT
    SET      = "{" [ TEXT { "," TEXT } ] "}"
    TEXT     = '…' | "…"          no escapes: a text holds every character but its own quote
    LABEL    = 1 to 512 letters, digits, "-", ".", "_", "/"

Laws: an empty selector selects everything; ``!=`` and ``not in`` hold where the label is absent, all other tests of a
label do not; a selector's text form reads back as the same selector. Words of the grammar are labels too where a label
is due (``has == 'x'``), since what follows tells.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Final, assert_never

import msgspec

LABEL_LENGTH_MAX: Final = 512
"""Characters of a label's name (Calico: libcalico-go/lib/selector)."""
DEPTH_MAX: Final = 100
"""Parentheses and negations within each other: far more than people write, and less than the interpreter's stack."""

Labels = Mapping[str, str]


class SelectorError(ValueError):
    """A text is no selector. *position* counts characters from 0."""

    def __init__(self, text: str, position: int, rule: str) -> None:
        super().__init__(f"at character {position + 1}: {rule}")
        self.text = text
        self.position = position
        self.rule = rule


class Op(StrEnum):
    """What a label's value is compared by."""

    EQUAL = "=="
    NOT_EQUAL = "!="
    CONTAINS = "contains"
    STARTS_WITH = "starts with"
    ENDS_WITH = "ends with"


class Everything(msgspec.Struct, frozen=True):
    """``all()``, and the empty selector."""


class Global(msgspec.Struct, frozen=True):
    """``global()``: what belongs to no namespace. Nothing that bgpd selects does, so it holds everywhere."""


class Has(msgspec.Struct, frozen=True):
    label: str


class Compared(msgspec.Struct, frozen=True):
    label: str
    op: Op
    text: str


class In(msgspec.Struct, frozen=True):
    label: str
    texts: frozenset[str]
    negated: bool = False


class Not(msgspec.Struct, frozen=True):
    term: Selector


class And(msgspec.Struct, frozen=True):
    terms: tuple[Selector, ...]


class Or(msgspec.Struct, frozen=True):
    terms: tuple[Selector, ...]


Selector = Everything | Global | Has | Compared | In | Not | And | Or


def parse(text: str) -> Selector:
    """Read a selector; raises SelectorError with the position of the defect."""
    if not text.strip():
        return Everything()
    return _Parser(text).whole()


def matches(selector: Selector, labels: Labels) -> bool:
    """Whether *selector* means a thing with *labels*."""
    match selector:
        case Everything() | Global():
            return True
        case Has(label):
            return label in labels
        case Compared(label, op, text):
            return _test(op, labels.get(label), text)
        case In(label, texts, negated):
            return (labels.get(label) in texts) is not negated
        case Not(term):
            return not matches(term, labels)
        case And(terms):
            return all(matches(term, labels) for term in terms)
        case Or(terms):
            return any(matches(term, labels) for term in terms)
        case _:
            assert_never(selector)


def show(selector: Selector) -> str:
    """Write a selector so that it reads back as the same; raises ValueError for a text that holds both quotes."""
    match selector:
        case Everything():
            return "all()"
        case Global():
            return "global()"
        case Has(label):
            return f"has({label})"
        case Compared(label, op, text):
            return f"{label} {op} {_quoted(text)}"
        case In(label, texts, negated):
            return f"{label} {'not in' if negated else 'in'} {{{', '.join(_quoted(text) for text in sorted(texts))}}}"
        case Not(term):
            return f"!{_wrapped(term)}"
        case And(terms):
            return " && ".join(_wrapped(term) for term in terms)
        case Or(terms):
            return " || ".join(_wrapped(term) for term in terms)
        case _:
            assert_never(selector)


def _test(op: Op, value: str | None, text: str) -> bool:
    if value is None:
        return op is Op.NOT_EQUAL
    match op:
        case Op.EQUAL:
            return value == text
        case Op.NOT_EQUAL:
            return value != text
        case Op.CONTAINS:
            return text in value
        case Op.STARTS_WITH:
            return value.startswith(text)
        case Op.ENDS_WITH:
            return value.endswith(text)
        case _:
            assert_never(op)


def _quoted(text: str) -> str:
    quote = '"' if "'" in text else "'"
    if quote in text:
        raise ValueError(f"{text!r} holds both quotes: no selector can name it")
    return f"{quote}{text}{quote}"


def _wrapped(term: Selector) -> str:
    """Write a part of an expression; what binds looser than its surroundings gets parentheses."""
    return f"({show(term)})" if isinstance(term, And | Or) else show(term)


# ------------------------------------------------------------------ reading

_TOKEN: Final = re.compile(
    r"""\s*(?:
    (?P<text>'[^']*'|"[^"]*")
  | (?P<sign>==|!=|&&|\|\||[!(){},])
  | (?P<word>[A-Za-z0-9_./-]+)
  )""",
    re.VERBOSE,
)


class _Token(msgspec.Struct, frozen=True):
    kind: str
    """text, sign, word or end."""
    value: str
    position: int

    def __str__(self) -> str:
        return "the end" if self.kind == "end" else repr(self.value)


class _Parser:
    """Owns the tokens of one text and the place reached in them."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._split()
        self._at = 0
        self._depth = 0

    def whole(self) -> Selector:
        found = self._or()
        if self._next.kind != "end":
            raise self._error("expected && or || or the end")
        return found

    def _split(self) -> list[_Token]:
        tokens: list[_Token] = []
        at, end = 0, len(self._text.rstrip())
        while at < end:
            found = _TOKEN.match(self._text, at)
            if found is None:
                place = at + len(self._text[at:]) - len(self._text[at:].lstrip())
                quote = self._text[place]
                rule = f"the text has no closing {quote}" if quote in "'\"" else f"{quote!r} has no meaning here"
                raise SelectorError(self._text, place, rule)
            kind = found.lastgroup or ""
            value = found.group(kind)
            tokens.append(_Token(kind, value[1:-1] if kind == "text" else value, found.start(kind)))
            at = found.end()
        return [*tokens, _Token("end", "", end)]

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _error(self, rule: str) -> SelectorError:
        return SelectorError(self._text, self._next.position, f"{rule}, not {self._next}")

    def _take(self, kind: str, *values: str) -> bool:
        """Step over the next token if it is one of *values*."""
        if self._next.kind == kind and self._next.value in values:
            self._at += 1
            return True
        return False

    def _expect(self, sign: str) -> None:
        if not self._take("sign", sign):
            raise self._error(f"expected {sign}")

    def _or(self) -> Selector:
        terms = [self._and()]
        while self._take("sign", "||"):
            terms.append(self._and())
        return terms[0] if len(terms) == 1 else Or(tuple(terms))

    def _and(self) -> Selector:
        terms = [self._unary()]
        while self._take("sign", "&&"):
            terms.append(self._unary())
        return terms[0] if len(terms) == 1 else And(tuple(terms))

    def _unary(self) -> Selector:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise self._error(f"expected at most {DEPTH_MAX} parentheses and negations within each other")
        found = Not(self._unary()) if self._take("sign", "!") else self._primary()
        self._depth -= 1
        return found

    def _primary(self) -> Selector:
        if self._take("sign", "("):
            found = self._or()
            self._expect(")")
            return found
        word = self._next
        if word.kind != "word":
            raise self._error("expected a label, a call or (")
        self._at += 1
        if self._next.kind == "sign" and self._next.value == "(":
            self._at -= 1
            return self._call()
        return self._label_test(self._label(word))

    def _call(self) -> Selector:
        """Read ``all()``, ``global()`` or ``has(label)``."""
        name = self._next.value
        if name not in {"all", "global", "has"}:
            raise self._error("expected all(), global() or has(LABEL)")
        self._at += 2
        if name == "has":
            word = self._next
            if word.kind != "word":
                raise self._error("expected a label")
            self._at += 1
            found: Selector = Has(self._label(word))
        else:
            found = Everything() if name == "all" else Global()
        self._expect(")")
        return found

    def _label(self, word: _Token) -> str:
        if len(word.value) > LABEL_LENGTH_MAX:
            raise SelectorError(self._text, word.position, f"a label has at most {LABEL_LENGTH_MAX} characters")
        return word.value

    def _label_test(self, label: str) -> Selector:
        if self._take("sign", "=="):
            return Compared(label, Op.EQUAL, self._literal())
        if self._take("sign", "!="):
            return Compared(label, Op.NOT_EQUAL, self._literal())
        if self._take("word", "in"):
            return In(label, self._set())
        if self._take("word", "contains"):
            return Compared(label, Op.CONTAINS, self._literal())
        for first, second in (("not", "in"), ("starts", "with"), ("ends", "with")):
            if self._take("word", first):
                if not self._take("word", second):
                    raise self._error(f"expected {second} after {first}")
                return (
                    In(label, self._set(), negated=True)
                    if first == "not"
                    else Compared(label, Op(f"{first} with"), self._literal())
                )
        raise self._error("expected ==, !=, in, not in, contains, starts with or ends with")

    def _literal(self) -> str:
        found = self._next
        if found.kind != "text":
            raise self._error("expected a text in quotes")
        self._at += 1
        return found.value

    def _set(self) -> frozenset[str]:
        self._expect("{")
        texts: set[str] = set()
        if self._take("sign", "}"):
            return frozenset()
        texts.add(self._literal())
        while self._take("sign", ","):
            texts.add(self._literal())
        self._expect("}")
        return frozenset(texts)
