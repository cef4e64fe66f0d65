"""Selectors: what they mean, what is none, and that their text form reads back."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgpd.core import selector
from bgpd.core.selector import And, Compared, Everything, Global, Has, In, Not, Op, Or, Selector

pytestmark = pytest.mark.core

LABELS = {"rack": "a1", "site": "north", "zone.example.com/x-y_z": "", "in": "x", "has": "y"}


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("", True),
        ("   ", True),
        ("all()", True),
        ("all( )", True),
        ("global()", True),
        ("!all()", False),
        ("rack == 'a1'", True),
        ('rack=="a1"', True),
        ("rack == 'a2'", False),
        ("absent == 'a1'", False),
        ("absent == ''", False),
        ("rack != 'a1'", False),
        ("rack != 'a2'", True),
        ("absent != 'a1'", True),
        ("rack in {'a1', 'b1'}", True),
        ("rack in {'b1'}", False),
        ("rack in {}", False),
        ("absent in {'b1'}", False),
        ("rack not in {'a1'}", False),
        ("rack not in {'b1'}", True),
        ("absent not in {'b1'}", True),
        ("absent not in {}", True),
        ("has(rack)", True),
        ("has(absent)", False),
        ("!has(absent)", True),
        ("!!has(rack)", True),
        ("has(zone.example.com/x-y_z)", True),
        ("zone.example.com/x-y_z == ''", True),
        ("site contains 'ort'", True),
        ("site contains 'south'", False),
        ("absent contains ''", False),
        ("site starts with 'no'", True),
        ("site starts with 'th'", False),
        ("absent starts with ''", False),
        ("site ends with 'th'", True),
        ("site ends with 'no'", False),
        ("in == 'x'", True),
        ("in in {'x'}", True),
        ("has == 'y' && has(has)", True),
        ("rack == 'a1' && site == 'south'", False),
        ("rack == 'a1' || site == 'south'", True),
        ("site == 'south' && rack == 'b' || rack == 'a1'", True),
        ("rack == 'a1' || rack == 'b' && site == 'south'", True),
        ("(rack == 'a1' || rack == 'b') && site == 'south'", False),
        ("!(rack == 'a1' && site == 'south')", True),
        ("!rack == 'a1'", False),
        ("rack == \"it's\" || rack == 'a1'", True),
    ],
)
def test_selector_means(text: str, meant: bool) -> None:
    """A selector means just what Calico's language says of it."""
    found = selector.parse(text)

    assert selector.matches(found, LABELS) is meant


@pytest.mark.parametrize(
    ("text", "position", "rule"),
    [
        ("rack", 4, "expected ==, !=, in, not in, contains, starts with or ends with, not the end"),
        ("rack = 'a'", 5, "'=' has no meaning here"),
        ("rack == a", 8, "expected a text in quotes, not 'a'"),
        ("rack == 'a", 8, "the text has no closing '"),
        ("rack == 'a' &&", 14, "expected a label, a call or (, not the end"),
        ("rack == 'a' site == 'b'", 12, "expected && or || or the end, not 'site'"),
        ("(rack == 'a'", 12, "expected ), not the end"),
        ("rack == 'a')", 11, "expected && or || or the end, not ')'"),
        ("rack in 'a'", 8, "expected {, not 'a'"),
        ("rack in {'a',}", 13, "expected a text in quotes, not '}'"),
        ("rack not {'a'}", 9, "expected in after not, not '{'"),
        ("rack starts 'a'", 12, "expected with after starts, not 'a'"),
        ("any()", 0, "expected all(), global() or has(LABEL), not 'any'"),
        ("has()", 4, "expected a label, not ')'"),
        ("has('rack')", 4, "expected a label, not 'rack'"),
        ("rack == 'a' & site == 'b'", 12, "'&' has no meaning here"),
        (f"has({'x' * 513})", 4, "a label has at most 512 characters"),
    ],
)
def test_text_that_is_no_selector(text: str, position: int, rule: str) -> None:
    """A text that is no selector is refused, with the place and what was expected there."""
    with pytest.raises(selector.SelectorError) as raised:
        selector.parse(text)

    assert (raised.value.position, raised.value.rule) == (position, rule)
    assert str(raised.value) == f"at character {position + 1}: {rule}"


def test_nesting_is_bounded() -> None:
    """Parentheses and negations beyond the bound are refused instead of exhausting the stack."""
    deep = selector.parse("(" * 99 + "all()" + ")" * 99)

    assert deep == Everything()
    for text in ("(" * 100_000, "!" * 100_000 + "all()"):
        with pytest.raises(selector.SelectorError):
            selector.parse(text)


# ------------------------------------------------------------------ any selector

NAMES = st.text(string.ascii_letters + string.digits + "-._/", min_size=1, max_size=8)
FEW_NAMES = st.sampled_from(["a", "b", "in", "not", "has", "all", "contains"]) | NAMES
TEXTS = st.text(max_size=6).filter(lambda text: not ("'" in text and '"' in text))
FEW_TEXTS = st.sampled_from(["", "x", "xy"]) | TEXTS
LEAVES: st.SearchStrategy[Selector] = st.one_of(
    st.just(Everything()),
    st.just(Global()),
    st.builds(Has, FEW_NAMES),
    st.builds(Compared, FEW_NAMES, st.sampled_from(Op), FEW_TEXTS),
    st.builds(In, FEW_NAMES, st.frozensets(FEW_TEXTS, max_size=3), st.booleans()),
)


def _grown(inner: st.SearchStrategy[Selector]) -> st.SearchStrategy[Selector]:
    several = st.lists(inner, min_size=2, max_size=3).map(tuple)
    return st.one_of(st.builds(Not, inner), st.builds(And, several), st.builds(Or, several))


SELECTORS = st.recursive(LEAVES, _grown, max_leaves=8)
LABEL_SETS = st.dictionaries(FEW_NAMES, FEW_TEXTS, max_size=4)


@given(SELECTORS)
def test_text_form_reads_back(chosen: Selector) -> None:
    """What a selector is written as reads back as the same selector."""
    assert selector.parse(selector.show(chosen)) == chosen


@given(SELECTORS, LABEL_SETS)
def test_negation_is_the_opposite(chosen: Selector, labels: dict[str, str]) -> None:
    """A negated selector means exactly what the selector does not."""
    assert selector.matches(Not(chosen), labels) is not selector.matches(chosen, labels)


@given(FEW_NAMES, FEW_TEXTS, LABEL_SETS)
def test_unequal_is_the_opposite_of_equal(label: str, text: str, labels: dict[str, str]) -> None:
    """!= and not in are the opposites of == and in, for absent labels too."""
    equal = selector.matches(Compared(label, Op.EQUAL, text), labels)

    assert selector.matches(Compared(label, Op.NOT_EQUAL, text), labels) is not equal
    assert selector.matches(In(label, frozenset({text})), labels) is equal
    assert selector.matches(In(label, frozenset({text}), negated=True), labels) is not equal


@given(st.text(alphabet="ab '\"=!&|(){},in not has starts with\t", max_size=30) | st.text(max_size=20))
def test_any_text_is_a_selector_or_refused(text: str) -> None:
    """Any text either parses or is refused with a position inside it; nothing else happens."""
    try:
        found = selector.parse(text)
    except selector.SelectorError as refused:
        position = refused.position
    else:
        position = 0
        assert selector.parse(selector.show(found)) == found

    assert 0 <= position <= len(text)
