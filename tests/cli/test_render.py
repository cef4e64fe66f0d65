"""How tables, ages and texts are written."""

from __future__ import annotations

import pytest

from bgpd.cli.render import BAD, Column, Styled, Table, age, printable

pytestmark = pytest.mark.core

TABLE = Table(
    (Column("NAME"), Column("N", right=True), Column("VIA")),
    [("a", 7, ("x", "y")), (Styled("bc", BAD), 1234, ""), (None, 0, "last")],
)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "00:00:00"),
        (59.9, "00:00:59"),
        (751, "00:12:31"),
        (86399, "23:59:59"),
        (86400, "1d00h"),
        (3 * 86400 + 4 * 3600 + 3599, "3d04h"),
        (400 * 86400, "400d00h"),
        (-5, "00:00:00"),
    ],
)
def test_age(seconds: float, expected: str) -> None:
    """An age has seconds below a day, hours from then on, and is never negative."""
    assert expected == age(1_000_000.0, 1_000_000.0 + seconds)


def test_age_of_never() -> None:
    """What never was has no age."""
    assert age(None, 1.0) == ""


def test_plain_table() -> None:
    """A plain table is aligned, one line a row, absent values as dashes, no trailing blanks."""
    assert TABLE.plain().splitlines() == [
        "NAME     N  VIA",
        "a        7  x, y",
        "bc    1234  -",
        "-        0  last",
    ]


def test_table_without_titles() -> None:
    """A table whose columns have no titles has no title row."""
    assert Table((Column(""), Column("")), [("a", "1"), ("bcd", "2")]).plain() == "a    1\nbcd  2"


def test_pretty_table_has_colours_and_lines() -> None:
    """On a terminal a style becomes a colour, and each element of a tuple its own line."""
    lines = TABLE.pretty(80).splitlines()

    assert any("\x1b[1;31mbc" in line for line in lines)
    assert [line.split()[-1] for line in lines if line.split()[-1] in ("x", "y")] == ["x", "y"]


def test_pretty_table_keeps_to_the_width() -> None:
    """On a narrow terminal a long value is folded, never cut."""
    table = Table((Column("NAME"), Column("REASON")), [("tor1", "abcdefghij" * 4)])

    lines = table.pretty(24).splitlines()

    assert max(map(len, lines[2:])) <= 24
    assert "".join(line[7:] for line in lines[2:]).replace(" ", "") == "abcdefghij" * 4


def test_markup_is_text() -> None:
    """What looks like rich's markup is shown as it is."""
    assert "[bold]x[/bold]" in Table((Column("A"),), [("[bold]x[/bold]",)]).pretty(80)


def test_control_characters_are_not_obeyed() -> None:
    """A text from elsewhere cannot move the cursor, ring or break the line."""
    assert printable("a\x1b[2Jb\nc\x07d") == "a?[2Jb?c?d"
    assert "\x1b[2J" not in Table((Column("A"),), [("\x1b[2J",)]).pretty(80)
