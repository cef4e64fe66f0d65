"""What is wrong with a configuration: every defect at once, each with file and line, path, value and rule."""

from __future__ import annotations

from pathlib import Path

import msgspec


class Defect(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong."""

    file: Path
    path: str
    """Where in the file, such as ``peer[1].address``; empty for the file as a whole."""
    value: str = ""
    """As written, in TOML's form; empty where there is none."""
    rule: str
    """What holds instead."""
    line: int = 0
    """Of the file; 0: none."""
    variable: str = ""
    """The environment variable that it stands in, where it does not stand in the file."""

    def __str__(self) -> str:
        where = self.variable or (f"{self.file}:{self.line}" if self.line else str(self.file))
        place = f"{where}: {self.path}" if self.path else where
        shown = f" = {self.value}" if self.value else ""
        return f"{place}{shown}: {self.rule}"


class ConfigError(Exception):
    """The configuration cannot be used: say so, and end with exit status 2."""

    def __init__(self, errors: tuple[Defect, ...]) -> None:
        super().__init__("\n".join(map(str, errors)))
        self.errors = errors
