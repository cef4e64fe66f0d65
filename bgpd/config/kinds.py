"""What a field of the schema may hold: a section, a list of them, or a value; and why a value is not of its kind, in words."""

from __future__ import annotations

from types import UnionType
from typing import Any, Union, get_args, get_origin

import msgspec

from bgpd.config.schema import Section
from bgpd.model.wire import from_builtin


def section_of(kind: Any) -> tuple[type[Section] | None, bool]:
    """Return the section that a field holds, and whether it holds a list of them."""
    if isinstance(kind, type) and issubclass(kind, Section):
        return kind, False
    for argument in get_args(kind) if get_origin(kind) in {tuple, Union, UnionType} else ():
        if isinstance(argument, type) and issubclass(argument, Section):
            return argument, get_origin(kind) is tuple
    return None, False


def why_not(kind: Any, value: Any) -> str:
    """Return why *value* is not of *kind*; empty if it is."""
    try:
        msgspec.convert(value, kind, dec_hook=from_builtin)
    except msgspec.ValidationError as error:
        choices = _choices(kind)
        return (
            f"must be one of {', '.join(choices)}" if choices and isinstance(value, str | list) else _plain(str(error))
        )
    return ""


def _choices(kind: Any) -> list[str]:
    """Return the words that a field may hold, where only some may."""
    information = msgspec.inspect.type_info(kind)
    if isinstance(information, msgspec.inspect.VarTupleType):
        information = information.item_type
    parts = information.types if isinstance(information, msgspec.inspect.UnionType) else (information,)
    for part in parts:
        if isinstance(part, msgspec.inspect.EnumType):
            return [repr(member.value) for member in part.cls]
        if isinstance(part, msgspec.inspect.LiteralType):
            return [repr(value) for value in part.values]
    return []


def _plain(message: str) -> str:
    """Turn msgspec's message into words of ours."""
    for theirs, ours in (
        ("Expected ", "must be "),
        ("`bool | int | str`", "text in quotes, a whole number, true or false"),
        (" - at `$[...]`", ""),
        (" | null", ""),
        ("`float`", "a number"),
        ("`int`", "a whole number"),
        ("`str`", "text"),
        ("`bool`", "true or false"),
        ("`array`", "a list"),
        ("`object`", "a table"),
        (", got a", ", not a"),
        (", got text", ", not text"),
        (", got true or false", ", not true or false"),
        ("must be text matching regex '^/.*[^/]$'", "must be an absolute path, such as /run/bgpd"),
        ("`", ""),
    ):
        message = message.replace(theirs, ours)
    if "(?!" in message:
        return "must be the name of a file: letters, digits and . _ -"
    if "matching regex" in message:
        return "must be a name of letters, digits and . _ - that begins and ends with a letter or digit"
    return message
