"""Values from the environment, for one start of one node: containers, drop-ins of units, tests.

The rule: ``BGPD_SECTION_KEY`` takes the place of *key* in *[section]*, and ``BGPD_PEER``, ``BGPD_ANNOUNCE`` and ``BGPD_CHECK`` that of the
whole list. A value is written as in the file, text with or without quotes; its kind and range are the file's. A variable
with the name of a section and no key of it is a defect; others that begin with ``BGPD_`` are somebody else's (a service named
bgpd in Kubernetes makes ``BGPD_PORT``), unless their section is nearly one of ours.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from bgpd.config.document import Document, Origin, paths
from bgpd.config.kinds import section_of, why_not
from bgpd.config.schema import Config

PREFIX: Final = "BGPD_"
VALUE_LIMIT_CHARS: Final = 65_536
"""Of one variable: some three hundred peers."""
NEAR: Final = 0.75
"""How alike a section's name must be to one of ours to be taken for it: ``BGPD_LOGG_LEVEL``, not ``BGPD_PORT_179_TCP``."""


class Wrong(msgspec.Struct, frozen=True):
    """A variable that cannot be used."""

    variable: str
    path: str
    rule: str


class Place(NamedTuple):
    """What a variable takes the place of: section and key, or a list of sections as a whole."""

    names: tuple[str, ...]
    kind: Any


def override(document: Document, environment: Mapping[str, str]) -> list[Wrong]:
    """Put what *environment* says into *document*; returns what is wrong with it."""
    wrong: list[Wrong] = []
    for variable, text in sorted(environment.items()):
        found = _place(variable) if variable.startswith(PREFIX) else None
        if isinstance(found, Place):
            if len(text) > VALUE_LIMIT_CHARS:
                wrong.append(
                    Wrong(variable, ".".join(found.names), f"must not be longer than {VALUE_LIMIT_CHARS} characters")
                )
            else:
                _put(document, variable, found, text)
        elif found is not None:
            wrong.append(found)
    return wrong


def variable_of(path: str) -> str:
    """Return the variable for a path such as ``ecmp.limit``, or for the list that it is in."""
    section, _, key = path.partition(".")
    return PREFIX + (section.partition("[")[0] if "[" in section else f"{section}_{key.partition('.')[0]}").upper()


def _place(variable: str) -> Place | Wrong | None:
    """Return what a variable is for, or what is wrong with it; None: it is not ours."""
    fields = {field.name: field.type for field in msgspec.structs.fields(Config)}
    name, _, key = variable.removeprefix(PREFIX).lower().partition("_")
    if name not in fields:
        near = difflib.get_close_matches(name, fields, n=1, cutoff=NEAR) if key else []
        return Wrong(variable, "", f"names no section; did you mean {PREFIX}{near[0].upper()}_…?") if near else None
    section, repeated = section_of(fields[name])
    if section is None or repeated or not key:
        return Place((name,), fields[name]) if repeated and not key else None
    keys = {field.name: field.type for field in msgspec.structs.fields(section)}
    return Place((name, key), keys[key]) if key in keys else Wrong(variable, name, _unknown(name, key, list(keys)))


def _unknown(section: str, key: str, keys: list[str]) -> str:
    near = difflib.get_close_matches(key, keys, n=1)
    if near:
        return f"names no key of [{section}]; did you mean {PREFIX}{section.upper()}_{near[0].upper()}?"
    return f"names no key of [{section}], which knows {', '.join(keys)}"


def _put(document: Document, variable: str, place: Place, text: str) -> None:
    """Put one value into its place, with where it comes from."""
    table, path = document.tables, ".".join(place.names)
    for name in place.names[:-1]:
        if not isinstance(table.setdefault(name, {}), dict):
            return  # the file has something else there, which is a defect of its own
        table = table[name]
    value = table[place.names[-1]] = _value(place.kind, text)
    for stale in [known for known in document.origins if known == path or known.startswith((f"{path}.", f"{path}["))]:
        del document.origins[stale]
    document.origins.setdefault(place.names[0], Origin(variable=variable))
    document.origins.update(dict.fromkeys(paths(value, path), Origin(variable=variable)))


def _value(kind: Any, text: str) -> Any:
    """Read a value as TOML does where that is of *kind*; else it is text without quotes."""
    try:
        value = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
    if value.keys() != {"value"} or (why_not(kind, value["value"]) and not why_not(kind, text)):
        return text
    return value["value"]
