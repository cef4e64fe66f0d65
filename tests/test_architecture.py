"""The import contracts hold, and they are real: a deliberate violation is caught."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.adapter

ROOT = Path(__file__).parent.parent
VIOLATIONS = [
    ("bgpd/core/rib/decision.py", "import time", "the core is synchronous"),
    ("bgpd/model/prefix.py", "from bgpd.flow.table import Table", "layers"),
    ("bgpd/core/rib/nexthop.py", "import bgpd.core.overlay.choose", "core siblings are independent"),
    ("bgpd/adapters/store/base.py", "import bgpd.adapters.netlink.routes", "adapter siblings are independent"),
    ("bgpd/daemon/loop.py", "import exabgp", "only the child imports ExaBGP"),
    ("bgpd/daemon/views.py", "import pyroute2", "pyroute2 only in adapters.netlink"),
    ("bgpd/config/check.py", "import grpc", "grpc only in adapters.store"),
]


def lint(tree: Path) -> subprocess.CompletedProcess[str]:
    command = Path(sys.executable).with_name("lint-imports")
    return subprocess.run([command, "--no-cache"], cwd=tree, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the tree that a test may break."""
    shutil.copytree(ROOT / "bgpd", tmp_path / "bgpd", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_import_contracts_hold() -> None:
    """The tree as it is keeps every contract."""
    result = lint(ROOT)

    assert 0 == result.returncode, result.stdout + result.stderr


@pytest.mark.parametrize(("module", "line", "contract"), VIOLATIONS)
def test_a_deliberate_violation_is_caught(copy: Path, module: str, line: str, contract: str) -> None:
    """One forbidden import breaks the contract that forbids it, by name."""
    path = copy / module
    text = path.read_text()
    path.write_text(
        text.replace("from __future__ import annotations\n", f"from __future__ import annotations\n\n{line}\n", 1)
    )

    result = lint(copy)

    assert 1 == result.returncode, result.stdout + result.stderr
    broken = [row for row in result.stdout.splitlines() if row.endswith("BROKEN")]
    assert any(row.startswith(contract) for row in broken), result.stdout
