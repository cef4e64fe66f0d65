"""How the command line writes: aligned tables, ages, JSON.

On a terminal a table has its width and colours (rich). Anywhere else it is plain text for grep and awk: one line a row,
columns two blanks apart, an absent value as ``-``, no blanks at the end of a line.

Texts may come from other machines (a neighbor's shutdown message, a node's name), so characters that a terminal would
obey are replaced before they are shown.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import click
import msgspec
from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

GOOD = "green"
WARN = "yellow"
BAD = "bold red"
DIM = "dim"

PRETTY_ROWS = 1000
"""A longer table is plain on a terminal, too: rich takes 0.6 ms a row, plain text 0.01 ms."""

_ABSENT = "-"
_GAP = "  "


class Styled(NamedTuple):
    """A text with the style it has on a terminal."""

    text: str
    style: str


class Column(NamedTuple):
    title: str
    right: bool = False
    """Numbers stand at the right."""


Cell = str | int | None | Styled | tuple[str, ...]
"""None and an empty text are absent; a tuple has a line for each element, or commas where a row is one line."""


@dataclass(frozen=True)
class Table:
    """Rows under titles; without a title row where no column has a title."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]

    def plain(self) -> str:
        """Write the table as plain lines."""
        lines = [[_text(cell, ", ") or _ABSENT for cell in row] for row in self.rows]
        titles = [column.title for column in self.columns]
        if any(titles):
            lines.insert(0, titles)
        widths = [max((len(line[index]) for line in lines), default=0) for index in range(len(self.columns))]
        return "\n".join(self._line(line, widths) for line in lines)

    def _line(self, texts: Sequence[str], widths: Sequence[int]) -> str:
        padded = (
            text.rjust(width) if column.right else text.ljust(width)
            for text, column, width in zip(texts, self.columns, widths, strict=True)
        )
        return _GAP.join(padded).rstrip()

    def pretty(self, width: int | None = None) -> str:
        """Write the table with colours, for a terminal of *width* columns (None: as wide as the terminal is)."""
        titled = any(column.title for column in self.columns)
        table = RichTable(
            box=box.SIMPLE_HEAD if titled else None,
            show_header=titled,
            show_edge=False,
            pad_edge=False,
            header_style="bold",
        )
        for column in self.columns:
            table.add_column(column.title, justify="right" if column.right else "left", overflow="fold")
        for row in self.rows:
            table.add_row(*(_rich(cell) for cell in row))
        console = Console(width=width, highlight=False, force_terminal=True)
        with console.capture() as captured:
            console.print(table)
        return "\n".join(line.rstrip() for line in captured.get().splitlines())


def show(*parts: str | Table) -> None:
    """Write *parts* to stdout, each on lines of its own, as stdout is."""
    terminal = is_terminal()
    for part in parts:
        if isinstance(part, Table):
            click.echo(part.pretty() if terminal and len(part.rows) <= PRETTY_ROWS else part.plain())
        else:
            click.echo(part)


def show_json(value: Any, indent: int = 2) -> None:
    """Write views as JSON, in one line with *indent* 0."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=indent))


def is_terminal() -> bool:
    """Whether stdout is a terminal; it may be closed."""
    return sys.stdout is not None and sys.stdout.isatty()


def age(since: float | None, now: float) -> str:
    """Write the time from *since* to *now* (seconds): 00:12:31, or 3d04h from a day on; empty for None."""
    if since is None:
        return ""
    seconds = max(0, int(now - since))
    if seconds < 86400:
        return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{seconds // 86400}d{seconds // 3600 % 24:02}h"


def printable(text: str) -> str:
    """Replace what is not printable: line ends, and control sequences that a terminal would obey."""
    return text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)


def _text(cell: Cell, separator: str) -> str:
    if cell is None:
        return ""
    if isinstance(cell, Styled):
        return printable(cell.text)
    if isinstance(cell, tuple):
        return separator.join(map(printable, cell))
    return printable(str(cell))


def _rich(cell: Cell) -> Text:
    text = _text(cell, "\n")
    if not text:
        return Text(_ABSENT, style=DIM)
    return Text(text, style=cell.style if isinstance(cell, Styled) else "")
