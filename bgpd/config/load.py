"""From the file to a checked configuration, or to all that is wrong with it.

Theory of operation. The file is read with its places (config/document.py), and the environment put over it
(config/environment.py). msgspec stops at the first error, so the tables are walked along the schema: each value is
converted alone, and each unknown or missing key and each bad value becomes a Defect. Sections without one are then
checked for what no type can say (config/check.py), so that one run names everything.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import msgspec

from bgpd.adapters.store.open import without_password
from bgpd.config.check import findings
from bgpd.config.document import Document, Unreadable, read
from bgpd.config.environment import override
from bgpd.config.error import ConfigError, Defect
from bgpd.config.kinds import section_of, why_not
from bgpd.config.schema import Config, Section
from bgpd.model.wire import from_builtin

DEFAULT_PATH = Path("/etc/bgpd/bgpd.toml")
SECRET: Final = ("password", "secret")
"""How names end under which no value is ever shown."""
HIDDEN: Final = "…"
NO_ENVIRONMENT: Final[Mapping[str, str]] = MappingProxyType({})


def load(path: Path = DEFAULT_PATH, environment: Mapping[str, str] = NO_ENVIRONMENT) -> Config:
    """Read and check a configuration file, with what the environment says instead; raises ConfigError with every defect found."""
    return load_document(path, environment)[0]


def load_document(path: Path, environment: Mapping[str, str]) -> tuple[Config, Document]:
    """Load a configuration, and say where each of its values stands; raises as :func:`load` does."""
    try:
        document = read(path)
    except Unreadable as error:
        raise ConfigError((Defect(file=path, path="", rule=str(error)),)) from error
    wrong = override(document, environment)
    tables = document.tables
    defects = list(_walk(path, "", Config, tables))
    broken = {defect.path.partition(".")[0] for defect in defects}
    defects += [
        Defect(file=path, path=where, value=shown(where, _look_up(tables, where)), rule=rule)
        for where, rule in findings(_sound(tables, broken))
    ]
    defects = [_placed(document, defect) for defect in defects]
    defects += [Defect(file=path, path=one.path, rule=one.rule, variable=one.variable) for one in wrong]
    if defects:
        raise ConfigError(tuple(defects))
    return msgspec.convert(tables, Config, dec_hook=from_builtin), document


def _placed(document: Document, defect: Defect) -> Defect:
    """Say on which line, or in which variable, what is wrong stands."""
    origin = document.nearest(defect.path)
    return msgspec.structs.replace(defect, line=origin.line, variable=origin.variable)


def _sound(document: dict[str, Any], broken: set[str]) -> dict[str, Section]:
    """Convert the sections of the file that have no defect; the rules between values are for these."""
    sections: dict[str, Section] = {}
    for field in msgspec.structs.fields(Config):
        kind, repeated = section_of(field.type)
        value = document.get(field.name)
        if kind is None or value is None or field.name in broken:
            continue
        places = (
            {f"{field.name}[{index}]": item for index, item in enumerate(value)} if repeated else {field.name: value}
        )
        for where, table in places.items():
            if where not in broken:
                sections[where] = msgspec.convert(table, kind, dec_hook=from_builtin)
    return sections


# ------------------------------------------------------------------ the walk


def _walk(file: Path, path: str, kind: type[Section], table: dict[str, Any]) -> Iterator[Defect]:
    """Yield the defects of a table that the schema calls *kind*."""
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    for name, value in table.items():
        where = f"{path}.{name}" if path else name
        if name not in fields:
            yield Defect(file=file, path=where, value=shown(where, value), rule=_unknown(name, path, list(fields)))
        else:
            yield from _walk_value(file, where, fields[name].type, value)
    for field in fields.values():
        if field.required and field.name not in table:
            where = f"{path}.{field.name}" if path else field.name
            yield Defect(file=file, path=where, rule="is required")


def _walk_value(file: Path, where: str, kind: Any, value: Any) -> Iterator[Defect]:
    section, repeated = section_of(kind)
    if section is None:
        rule = why_not(kind, value)
        if rule:
            yield Defect(file=file, path=where, value=shown(where, value), rule=rule)
    elif repeated:
        if not isinstance(value, list):
            yield Defect(file=file, path=where, value=shown(where, value), rule=f"is a list: write [[{where}]]")
            return
        for index, item in enumerate(value):
            yield from _walk_table(file, f"{where}[{index}]", section, item)
    else:
        yield from _walk_table(file, where, section, value)


def _walk_table(file: Path, where: str, section: type[Section], value: Any) -> Iterator[Defect]:
    if isinstance(value, dict):
        yield from _walk(file, where, section, value)
    else:
        yield Defect(file=file, path=where, value=shown(where, value), rule=f"is a table: write [{where}]")


def _unknown(name: str, path: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    place = f"[{path}]" if path else "the file"
    if close:
        return f"unknown key; did you mean {close[0]!r}?"
    return f"unknown key; {place} knows {', '.join(known)}"


# ------------------------------------------------------------------ values as written


def _look_up(document: dict[str, Any], where: str) -> Any:
    """Return the value at a path such as ``peer[1].address``; None where a default stands for it."""
    value: Any = document
    for part in where.replace("[", ".").replace("]", "").split("."):
        if isinstance(value, list):
            value = value[int(part)]
        elif isinstance(value, dict):
            value = value.get(part)
    return value


def shown(where: str, value: Any) -> str:
    """Write a value as it stands in the file, but for what may be a secret: it must not be in a message or a log."""
    if value is None:
        return ""
    if where.endswith(SECRET) and not isinstance(value, dict):
        return HIDDEN
    if isinstance(value, dict):
        return "{…}"
    return without_password(msgspec.json.encode(_masked(value), enc_hook=str).decode())


def hidden(where: str, value: Any) -> Any:
    """Return a value for a program to read, but for what may be a secret."""
    if where.endswith(SECRET) and isinstance(value, str):
        return HIDDEN
    return without_password(value) if isinstance(value, str) else _masked(value)


def _masked(value: Any) -> Any:
    """Hide what stands under the name of a secret, however deep."""
    if isinstance(value, dict):
        return {
            name: HIDDEN if name.endswith(SECRET) and not isinstance(inner, dict) else _masked(inner)
            for name, inner in value.items()
        }
    return [_masked(inner) for inner in value] if isinstance(value, list) else value
