"""A test that is skipped proves nothing: on CI it fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.core

WAYS = {
    "in the test": 'def test_it() -> None:\n    pytest.skip("no kernel")\n',
    "by a mark": '@pytest.mark.skipif(True, reason="no kernel")\ndef test_it() -> None:\n    pass\n',
    "the whole module": 'pytest.skip("no kernel", allow_module_level=True)\n',
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("ci", "status"), [("true", 1), ("", 0)])
def test_a_skip_fails_on_ci_only(tmp_path: Path, way: str, ci: str, status: int) -> None:
    """Whatever way a test is skipped, the run fails with CI=true, and says why; elsewhere it passes."""
    file = tmp_path / "test_one.py"
    file.write_text(f"import pytest\npytestmark = pytest.mark.core\n{WAYS[way]}")
    top = Path(__file__).parent.parent
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-rs",
        "-p",
        "tests.conftest",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(top),
        str(file),
    ]

    ended = subprocess.run(
        command, cwd=top, env={**os.environ, "CI": ci}, capture_output=True, text=True, check=False, timeout=60
    )

    assert "no kernel" in ended.stdout
    # A module that was skipped leaves no test: pytest says 5 then, and 2 where its collection failed.
    expected = status if way != "the whole module" else {0: 5, 1: 2}[status]
    assert expected == ended.returncode, ended.stdout + ended.stderr
