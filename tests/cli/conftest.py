"""The command line against a served set of views."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bgpd.cli.main import cli
from tests.api.fake import FakeViews, serving

Bgpd = Callable[..., Result]


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """A directory like /run: everybody may enter it, and its name is short."""
    with tempfile.TemporaryDirectory(prefix="bgpd-cli-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@pytest.fixture
def bgpd(run_dir: Path) -> Bgpd:
    """Run ``bgpd ARGUMENTS`` in this process, against the socket of *run_dir*."""

    def run(*arguments: str) -> Result:
        """Run the command."""
        environment = {"BGPD_SOCKET": str(run_dir / "s"), "BGPD_CONFIG": str(run_dir / "bgpd.toml")}
        return CliRunner().invoke(cli, arguments, prog_name="bgpd", env=environment)

    return run


@pytest.fixture
def views(run_dir: Path) -> Iterator[FakeViews]:
    """A daemon that listens on the socket of *run_dir*."""
    served = FakeViews()
    with serving(served, run_dir / "s"):
        yield served
