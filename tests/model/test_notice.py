"""Every notice has a meaning, and every meaning a notice."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import bgpd
from bgpd.model.notice import KINDS

pytestmark = pytest.mark.core

SOURCE = Path(bgpd.__file__).parent
NAME = re.compile(r"[a-z][a-z-]*\.[a-z_]+")
TARGETS = ("kernel", "adj-rib-out", "neighbors", "claims", "bfd")
"""Targets of reconcilers, each of which may refuse."""


def told() -> set[str]:
    """Return the names that the code gives to notices: first arguments, and strings assigned to a variable that becomes one."""
    names = {f"{target}.refused" for target in TARGETS}
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and node.args and _called(node) in {"Notice", "note"}:
                names |= _strings(node.args[0])
            elif isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "name" for t in node.targets):
                names |= _strings(node.value)
    return names


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _strings(node: ast.expr) -> set[str]:
    if isinstance(node, ast.IfExp):
        return _strings(node.body) | _strings(node.orelse)
    value = getattr(node, "value", None)
    return {value} if isinstance(value, str) and NAME.fullmatch(value) else set()


def test_the_names_of_the_code_are_those_of_the_table() -> None:
    """A name that is told and not explained, or explained and never told, is found here."""
    assert set(KINDS) == told()
