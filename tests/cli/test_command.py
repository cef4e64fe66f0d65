"""The command as a process: help, version, completion, terminals, and output that nobody reads."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

import bgpd as package
from bgpd.cli.main import COMMANDS, cli
from tests.api.fake import FakeViews, route, serving
from tests.cli.conftest import Bgpd

pytestmark = pytest.mark.netns

COMMAND = [sys.executable, "-m", "bgpd"]
TIMEOUT_S = 30.0


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a process of its own."""
    return subprocess.run(
        [*COMMAND, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]], ids=" ".join)
def test_help(bgpd: Bgpd, arguments: list[str]) -> None:
    """Without arguments the command shows its help: every subcommand, completion, exit status."""
    result = bgpd(*arguments)

    assert (result.exit_code, result.stderr) == (0, "")
    assert [name for name in COMMANDS if f"\n  {name} " not in result.stdout] == []
    assert 'eval "$(_BGPD_COMPLETE=bash_source bgpd)"' in result.stdout
    assert "3 the daemon or the store cannot be reached" in result.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(bgpd: Bgpd, name: str) -> None:
    """Each subcommand is where the list says it is, and explains itself."""
    result = bgpd(name, "--help")

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(f"Usage: bgpd {name} ")


@pytest.mark.parametrize("arguments", [["version"], ["--version"]], ids=" ".join)
def test_version(bgpd: Bgpd, arguments: list[str]) -> None:
    """Both ways of asking give the version."""
    assert bgpd(*arguments).stdout == f"bgpd {package.__version__}\n"


def test_asking_does_not_load_the_daemon() -> None:
    """A command that asks the daemon imports neither it nor its libraries."""
    code = "import sys; from bgpd.cli.main import cli; cli(['status'], standalone_mode=False, prog_name='bgpd')\n"
    loaded = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code],
        env={**os.environ, "BGPD_SOCKET": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    ).stderr

    assert "bgpd.api.client" in loaded
    assert [name for name in ("aiohttp", "pyroute2", "asyncio", "bgpd.daemon") if f" {name}\n" in loaded] == []


def test_completion_of_commands() -> None:
    """A shell completes subcommands and their options."""
    commands = run(_BGPD_COMPLETE="bash_complete", COMP_WORDS="bgpd rou", COMP_CWORD="1").stdout
    options = run(_BGPD_COMPLETE="bash_complete", COMP_WORDS="bgpd routes --so", COMP_CWORD="2").stdout

    assert commands == "plain,routes\n"
    assert options == "plain,--socket\n"


def test_terminal_gets_colours(run_dir: Path) -> None:
    """On a terminal the state of a session has a colour and the table is as wide as the terminal."""
    master, slave = pty.openpty()
    with serving(FakeViews(), run_dir / "s"):
        environment = {**os.environ, "BGPD_SOCKET": str(run_dir / "s"), "TERM": "xterm", "COLUMNS": "100"}
        environment.pop("NO_COLOR", None)
        process = subprocess.run([*COMMAND, "peers"], stdout=slave, env=environment, timeout=TIMEOUT_S, check=False)
    os.close(slave)
    output = os.read(master, 65536).decode()
    os.close(master)

    assert process.returncode == 0
    assert "\x1b[32mEstablished" in output
    assert "\x1b[2J" not in output


def test_reader_that_leaves(run_dir: Path) -> None:
    """A reader that has seen enough ends the command without a complaint."""
    rows = [route(f"10.{number >> 8}.{number & 255}.0/24", "bgp") for number in range(5000)]
    with serving(FakeViews(rows), run_dir / "s"):
        pipe = f"{sys.executable} -m bgpd routes | head -n 1"
        result = subprocess.run(
            ["sh", "-c", pipe],
            env={**os.environ, "BGPD_SOCKET": str(run_dir / "s")},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    assert (result.stdout[:6], result.stderr) == ("Codes:", "")


@pytest.mark.parametrize("arguments", ["peers", "peers -o json", "--help"])
def test_closed_stdout(run_dir: Path, arguments: str) -> None:
    """With stdout closed a command has nowhere to write, and does not complain."""
    with serving(FakeViews(), run_dir / "s"):
        result = subprocess.run(
            ["sh", "-c", f"{sys.executable} -m bgpd {arguments} >&-"],
            env={**os.environ, "BGPD_SOCKET": str(run_dir / "s")},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    assert (result.returncode, result.stderr) == (0, "")


def test_module_and_entry_point_are_one() -> None:
    """``python -m bgpd`` is the same command as the entry point."""
    assert run("version").stdout == f"bgpd {package.__version__}\n"
    assert cli.name == "cli"
