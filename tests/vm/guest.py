"""Runs in the guest: pytest on the listed tests, with each of its reports sent to the host at once."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, Final

import pytest

SHARED: Final = Path("/run/vm")
LONGEST_S: Final = 600
"""Longest time of a test that says nothing else (seconds)."""


class Reporter:
    """Writes pytest's reports where the host reads them."""

    def __init__(self, target: int) -> None:
        self._target = target

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._write(report._to_json())

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._write({"$finished": nodeid})

    def _write(self, entry: dict[str, Any]) -> None:
        # One write of one whole line: the other shard's lines come between, never into it.
        os.write(self._target, json.dumps(entry).encode() + b"\n")


def main(shard: str) -> None:
    os.environ.update(json.loads((SHARED / "environment").read_text()))
    tests = (SHARED / f"tests.{shard}").read_text().splitlines()
    target = os.open(SHARED / "reports", os.O_WRONLY | os.O_APPEND)
    pytest.main(
        ["-q", "--color=no", "-p", "no:cacheprovider", "-p", "pytest_timeout", f"--timeout={LONGEST_S}", *tests],
        plugins=[Reporter(target)],
    )


if __name__ == "__main__":
    main(sys.argv[1])
