"""A short, traversable directory for sockets: a unix socket path has at most 107 bytes, and others may reach it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """A directory like /run: everybody may enter it."""
    with tempfile.TemporaryDirectory(prefix="bgpd-api-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path
