"""The tables that say which test shows what name tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.core

TESTS = Path(__file__).parent
_NAMED = re.compile(r"`([\w/]+\.py)(?:::(\w+))?`")


@pytest.mark.parametrize("table", [path.name for path in sorted(TESTS.glob("*.md"))])
def test_each_named_test_exists(table: str) -> None:
    """A test that is renamed or removed is so in the table, too."""
    found = _NAMED.findall((TESTS / table).read_text())
    missing = [
        f"{file}::{name}"
        for file, name in found
        if not (TESTS / file).exists() or (name and f"def {name}(" not in (TESTS / file).read_text())
    ]

    assert found
    assert [] == missing
