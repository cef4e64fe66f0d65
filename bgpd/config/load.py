"""From the file to a checked configuration, or to all that is wrong with it.

Theory of operation. msgspec stops at the first error, so the file's tables are walked along the schema: each value is
converted alone, and each unknown or missing key and each bad value becomes a Defect. Sections without one are then
checked for what no type can say (config/check.py), so that one run names everything.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import msgspec

from bgpd.adapters.store.open import without_password
from bgpd.config.check import findings
from bgpd.config.error import ConfigError, Defect
from bgpd.config.schema import Config, Section
from bgpd.model.wire import from_builtin

DEFAULT_PATH = Path("/etc/bgpd/bgpd.toml")


def load(path: Path = DEFAULT_PATH) -> Config:
    """Read and check a configuration file; raises ConfigError with every defect found."""
    document = _read(path)
    defects = list(_walk(path, "", Config, document))
    broken = {defect.path.partition(".")[0] for defect in defects}
    defects += [
        Defect(file=path, path=where, value=_shown(where, _look_up(document, where)), rule=rule)
        for where, rule in findings(_sound(document, broken))
    ]
    if defects:
        raise ConfigError(tuple(defects))
    return msgspec.convert(document, Config, dec_hook=from_builtin)


def _sound(document: dict[str, Any], broken: set[str]) -> dict[str, Section]:
    """Convert the sections of the file that have no defect; the rules between values are for these."""
    sections: dict[str, Section] = {}
    for field in msgspec.structs.fields(Config):
        kind, repeated = _section(field.type)
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


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode())
    except FileNotFoundError as error:
        raise _whole(path, "the file does not exist; config/bgpd.toml in the project is an example") from error
    except OSError as error:
        raise _whole(path, f"the file cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise _whole(path, f"the file is not UTF-8 text: byte {error.start} is wrong") from error
    except tomllib.TOMLDecodeError as error:
        raise _whole(path, f"the file is not TOML: {error}") from error


def _whole(path: Path, rule: str) -> ConfigError:
    return ConfigError((Defect(file=path, path="", rule=rule),))


# ------------------------------------------------------------------ the walk


def _walk(file: Path, path: str, kind: type[Section], table: dict[str, Any]) -> Iterator[Defect]:
    """Yield the defects of a table that the schema calls *kind*."""
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    for name, value in table.items():
        where = f"{path}.{name}" if path else name
        if name not in fields:
            yield Defect(file=file, path=where, value=_shown(where, value), rule=_unknown(name, path, list(fields)))
        else:
            yield from _walk_value(file, where, fields[name].type, value)
    for field in fields.values():
        if field.required and field.name not in table:
            where = f"{path}.{field.name}" if path else field.name
            yield Defect(file=file, path=where, rule="is required")


def _walk_value(file: Path, where: str, kind: Any, value: Any) -> Iterator[Defect]:
    section, repeated = _section(kind)
    if section is None:
        rule = _convert(kind, value)
        if rule:
            yield Defect(file=file, path=where, value=_shown(where, value), rule=rule)
    elif repeated:
        if not isinstance(value, list):
            yield Defect(file=file, path=where, value=_shown(where, value), rule=f"is a list: write [[{where}]]")
            return
        for index, item in enumerate(value):
            yield from _walk_table(file, f"{where}[{index}]", section, item)
    else:
        yield from _walk_table(file, where, section, value)


def _walk_table(file: Path, where: str, section: type[Section], value: Any) -> Iterator[Defect]:
    if isinstance(value, dict):
        yield from _walk(file, where, section, value)
    else:
        yield Defect(file=file, path=where, value=_shown(where, value), rule=f"is a table: write [{where}]")


def _section(kind: Any) -> tuple[type[Section] | None, bool]:
    """Return the section that a field holds, and whether it holds a list of them."""
    if isinstance(kind, type) and issubclass(kind, Section):
        return kind, False
    for argument in get_args(kind) if get_origin(kind) in {tuple, Union, UnionType} else ():
        if isinstance(argument, type) and issubclass(argument, Section):
            return argument, get_origin(kind) is tuple
    return None, False


def _convert(kind: Any, value: Any) -> str:
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


def _shown(where: str, value: Any) -> str:
    """Write a value as it stands in the file, but for what may be a secret: it must not be in a message or a log."""
    if value is None:
        return ""
    if where.endswith(("password", "secret")) and not isinstance(value, dict):
        return "…"
    if isinstance(value, dict):
        return "{…}"
    return without_password(msgspec.json.encode(value, enc_hook=str).decode())
