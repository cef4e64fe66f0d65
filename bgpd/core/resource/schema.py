"""Shapes of JSON values, and the walk that names everything that is wrong with one.

Laws: the walk never stops at the first defect; a field that no shape names is no defect; null is an absent field. A rule
between fields runs only over an object whose own fields are sound, so that it may rely on their types.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec


class Finding(msgspec.Struct, frozen=True):
    """One thing that is wrong: where, what stands there, and the rule that it breaks."""

    path: str
    value: Any
    rule: str


Test = Callable[[Any], str]
"""Return the rule that a value breaks; empty if it breaks none."""
Rule = Callable[[dict[str, Any]], Iterator[tuple[str, str]]]
"""Yield the field (relative; empty for the object itself) and the rule, for each defect between the fields of an object."""


class Shape(Protocol):
    def check(self, path: str, value: Any) -> Iterator[Finding]:
        """Yield all that is wrong with *value*, which stands at *path*."""
        ...


def _sort(value: Any) -> str:
    """Name a JSON value's type for people."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "a list"
        case _:
            return "an object"


@dataclass(frozen=True)
class Text:
    test: Test | None = None
    most: int = 4096
    """Characters; Calico's longest texts, selectors, have 1024."""

    def check(self, path: str, value: Any) -> Iterator[Finding]:
        if not isinstance(value, str):
            yield Finding(path, value, f"must be text, not {_sort(value)}")
        elif len(value) > self.most:
            yield Finding(path, value, f"must have at most {self.most} characters, not {len(value)}")
        elif value and self.test is not None and (rule := self.test(value)):
            # An empty text is an absent one, as Go writes it.
            yield Finding(path, value, rule)


@dataclass(frozen=True)
class Flag:
    def check(self, path: str, value: Any) -> Iterator[Finding]:
        if not isinstance(value, bool):
            yield Finding(path, value, f"must be true or false, not {_sort(value)}")


@dataclass(frozen=True)
class Number:
    low: int
    high: int

    def check(self, path: str, value: Any) -> Iterator[Finding]:
        if isinstance(value, bool) or not isinstance(value, int):
            yield Finding(path, value, f"must be a whole number, not {_fraction(value)}")
        elif not self.low <= value <= self.high:
            yield Finding(path, value, f"must be {self.low} to {self.high}")


def _fraction(value: Any) -> str:
    return "a fraction" if isinstance(value, float) else _sort(value)


@dataclass(frozen=True)
class Choice:
    words: tuple[str, ...]

    def check(self, path: str, value: Any) -> Iterator[Finding]:
        if value != "" and value not in self.words:
            yield Finding(path, value, f"must be one of {', '.join(self.words)}")


@dataclass(frozen=True)
class Tested:
    """A value of more than one JSON type, such as an AS number."""

    test: Test

    def check(self, path: str, value: Any) -> Iterator[Finding]:
        if rule := self.test(value):
            yield Finding(path, value, rule)


@dataclass(frozen=True)
class Whatever:
    """Kept, not judged."""

    def check(self, path: str, value: Any) -> Iterator[Finding]:  # noqa: ARG002 - the shape's signature
        yield from ()


@dataclass(frozen=True)
class ListOf:
    item: Shape
    least: int = 0
    most: int = 10_000
    """Entries; a bound against mistakes, no rule of Calico's unless given."""
    unique: bool = False

    def check(self, path: str, value: Any) -> Iterator[Finding]:
        if not isinstance(value, list):
            yield Finding(path, value, f"must be a list, not {_sort(value)}")
            return
        if not self.least <= len(value) <= self.most:
            wanted = f"exactly {self.least}" if self.least == self.most else f"{self.least} to {self.most}"
            yield Finding(path, value, f"must have {wanted} entries, not {len(value)}")
        for index, item in enumerate(value):
            yield from self.item.check(f"{path}[{index}]", item)
            if self.unique and item in value[:index]:
                yield Finding(f"{path}[{index}]", item, "must be named once only")


@dataclass(frozen=True)
class TextMap:
    """Labels and annotations: keys and values are text."""

    key_test: Test
    value_tests: Mapping[str, Test] = field(default_factory=dict)

    def check(self, path: str, value: Any) -> Iterator[Finding]:
        if not isinstance(value, dict):
            yield Finding(path, value, f"must be an object, not {_sort(value)}")
            return
        for key, text in value.items():
            where = f"{path}[{key}]"
            if rule := self.key_test(key):
                yield Finding(where, text, rule)
            if not isinstance(text, str):
                yield Finding(where, text, f"must be text, not {_sort(text)}")
            elif key in self.value_tests and (rule := self.value_tests[key](text)):
                yield Finding(where, text, rule)


@dataclass(frozen=True)
class Fields:
    """An object with known fields, maybe among others."""

    shapes: Mapping[str, Shape]
    required: Sequence[str] = ()
    rules: Sequence[Rule] = ()

    def check(self, path: str, value: Any) -> Iterator[Finding]:
        if not isinstance(value, dict):
            yield Finding(path, value, f"must be an object, not {_sort(value)}")
            return
        sound = True
        for name, shape in self.shapes.items():
            if value.get(name) is not None:
                for finding in shape.check(f"{path}.{name}" if path else name, value[name]):
                    sound = False
                    yield finding
        for name in self.required:
            if value.get(name) in (None, ""):
                sound = False
                yield Finding(f"{path}.{name}" if path else name, None, "is required")
        if sound:
            for rule in self.rules:
                for place, text in rule(value):
                    where = ".".join(filter(None, (path, place)))
                    yield Finding(where, _at(value, place), text)


def _at(value: Any, place: str) -> Any:
    """Return what stands at a path such as ``a.b[2]`` below *value*."""
    for part in place.replace("[", ".").replace("]", "").split("."):
        if isinstance(value, list) and part.isdecimal():
            value = value[int(part)]
        elif isinstance(value, dict) and part:
            value = value.get(part)
    return value


def unknown(shape: Shape, path: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield the path of each field that *shape* does not name, and the known name that it resembles (or nothing)."""
    if isinstance(shape, ListOf) and isinstance(value, list):
        for index, item in enumerate(value):
            yield from unknown(shape.item, f"{path}[{index}]", item)
    elif isinstance(shape, Fields) and isinstance(value, dict):
        for name, item in value.items():
            where = f"{path}.{name}" if path else name
            if name in shape.shapes:
                yield from unknown(shape.shapes[name], where, item)
            else:
                yield where, next(iter(difflib.get_close_matches(name, list(shape.shapes), n=1)), "")
