"""Asking a running daemon by its own command, as an operator does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

DEADLINE_S = 30.0


def asked(socket: Path, *command: str, deadline_s: float = DEADLINE_S) -> Any:
    """Run a reading command against the daemon behind *socket*; its JSON, or None while that cannot be reached or refuses."""
    line = [sys.executable, "-m", "bgpd.cli.main", *command, "--socket", str(socket), "-o", "json"]
    answer = subprocess.run(line, capture_output=True, text=True, check=False, timeout=deadline_s)
    return json.loads(answer.stdout) if answer.returncode == 0 else None
