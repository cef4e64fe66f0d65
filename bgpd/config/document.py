"""The file as its tables, and the line on which each value stands.

Theory of operation. tomllib keeps no places, so the text is taken statement by statement: a header, or a key with its value, which ends
where tomllib can read it. Each is read alone for the names that are in it. The whole text is read by tomllib first, so that what
this finds is only ever a place, never a value.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

FILE_LIMIT_BYTES: Final = 1 << 20
"""Of a file: a thousand peers have some 200 KB."""


class Origin(msgspec.Struct, frozen=True):
    """Where a value comes from: a line of the file, or an environment variable; neither: its default."""

    line: int = 0
    variable: str = ""


class Document(msgspec.Struct):
    """What was read, and where each table and value of it stands, by its path such as ``peer[1].address``."""

    file: Path
    tables: dict[str, Any]
    origins: dict[str, Origin]

    def origin(self, path: str) -> Origin:
        """Return where *path* itself stands; nowhere for a default."""
        return self.origins.get(path, Origin())

    def nearest(self, path: str) -> Origin:
        """Return where *path* stands, or the nearest above it that stands anywhere."""
        while path and path not in self.origins:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.origin(path)


class Unreadable(Exception):  # noqa: N818 - named for what the caller is told
    """The file cannot be read, or is not TOML; the message is a rule for a defect of the file as a whole."""


def read(file: Path) -> Document:
    """Read a file; raises Unreadable."""
    try:
        with file.open("rb") as stream:
            content = stream.read(FILE_LIMIT_BYTES + 1)
    except FileNotFoundError as error:
        raise Unreadable("the file does not exist; config/bgpd.toml in the project is an example") from error
    except OSError as error:
        raise Unreadable(f"the file cannot be read: {error.strerror}") from error
    if len(content) > FILE_LIMIT_BYTES:
        raise Unreadable(f"the file is larger than {FILE_LIMIT_BYTES} bytes")
    try:
        text = content.decode()
        tables = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise Unreadable(f"the file is not UTF-8 text: byte {error.start} is wrong") from error
    except tomllib.TOMLDecodeError as error:
        raise Unreadable(f"the file is not TOML: {error}") from error
    except RecursionError as error:
        raise Unreadable("the file is not TOML that can be read: it is nested too deeply") from error
    return Document(file, tables, {path: Origin(line) for path, line in _places(text).items()})


def paths(value: Any, path: str) -> Iterator[str]:
    """Yield the paths of all that is in *value*, which stands at *path*."""
    yield path
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from paths(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from paths(inner, f"{path}[{index}]")


def _places(text: str) -> dict[str, int]:
    """Return the line of each path. O(text), but for a value over many lines that end in brackets: O(its length squared)."""
    found: dict[str, int] = {}
    counts: dict[str, int] = {}
    table = ""
    for line, statement in _statements(text):
        parsed = tomllib.loads(statement)
        if statement.lstrip().startswith("["):
            table = _header(parsed, counts, repeated=statement.lstrip().startswith("[["))
            found[table] = line
            continue
        for path in paths(parsed, table):
            found.setdefault(path, line)
    return found


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Yield each header, and each key with its value, with its first line's number; *text* is TOML."""
    begun, statement = 0, ""
    for number, line in enumerate(text.split("\n"), 1):
        if not statement:
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            begun = number
        statement += line + "\n"
        if line.rstrip().endswith(","):
            continue  # inside a list
        try:
            tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue
        yield begun, statement
        statement = ""


def _header(parsed: dict[str, Any], counts: dict[str, int], *, repeated: bool) -> str:
    """Return the path of the table that a header opens; *counts* has the tables so far of each list of tables."""
    path, value = "", parsed
    while value:
        (name, inner), *_ = value.items()
        path = f"{path}.{name}" if path else name
        last = not (inner[0] if isinstance(inner, list) else inner)
        if last and repeated:
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path = f"{path}[{counts[path]}]"
        value = inner[0] if isinstance(inner, list) else inner
    return path
