"""The tour that the README promises, with both makes of router: every check passes, and nothing is left behind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.lab, pytest.mark.timeout(450)]

NAME = f"two-tor-{os.getpid()}"
TOP = Path(__file__).parents[2]
TWO_TOR = TOP / "containerlab" / "two-tor" / "two-tor.clab.yml"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The two-tor lab under a name of this run, so that one that somebody keeps up is left alone."""
    copy = tmp_path / "two-tor"
    shutil.copytree(TWO_TOR.parent, copy)
    found = copy / TWO_TOR.name
    found.write_text(found.read_text().replace("name: two-tor", f"name: {NAME}"))
    return found


@pytest.mark.parametrize("router", ["frr", "bird"])
def test_tour_passes_every_check(file: Path, router: str) -> None:
    """The tour ends with no check failed, exit status 0, and no namespace, state or store file left."""
    env = {key: value for key, value in os.environ.items() if key != "TOR_IMAGE"} | (
        {"TOR_IMAGE": "bird"} if router == "bird" else {}
    )

    done = subprocess.run(
        [sys.executable, "-m", "bgpd.lab.tour", str(file)],
        cwd=TOP,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )

    print(done.stdout, done.stderr)
    summary = re.search(r"^(\d+) checks passed, (\d+) failed", done.stdout.strip().splitlines()[-1])
    assert summary is not None
    assert ("0", 0) == (summary[2], done.returncode)
    assert int(summary[1]) >= 25
    assert nothing_left(file)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_tour_leaves_nothing(file: Path, number: signal.Signals) -> None:
    """A tour that is interrupted while its daemons peer takes its lab down and says so."""
    # A shell's background jobs are born with SIGINT ignored: a test run in one is no reason to ignore it here.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "bgpd.lab.tour", str(file)]
    with subprocess.Popen(command, cwd=TOP, stdout=subprocess.PIPE, text=True) as tour:
        assert tour.stdout is not None
        while "Sessions" not in tour.stdout.readline():
            assert tour.poll() is None
        tour.send_signal(number)
        rest = tour.stdout.read()

    assert 130 == tour.returncode
    assert "interrupted" in rest.splitlines()[-1]
    assert nothing_left(file)


def nothing_left(file: Path) -> bool:
    """No namespace, no state, no store beside the file."""
    store = [path.name for path in (file.parent / "store").iterdir()]
    namespaces = list(Path("/run/netns").glob(f"clab-{NAME}-*"))
    return store == [".gitignore"] and not namespaces and not Path("/run/bgpd-lab", NAME).exists()


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [(["--router", "cisco"], 2, "frr or bird"), (["--frobnicate"], 2, "unknown argument"), (["--help"], 0, "--keep")],
)
def test_quickstart_refuses_what_it_does_not_know(arguments: list[str], status: int, words: str) -> None:
    """A wrong argument is one sentence and exit 2, before anything is installed."""
    done = subprocess.run(
        [TOP / "containerlab" / "quickstart", *arguments], capture_output=True, text=True, check=False
    )

    assert status == done.returncode
    assert words in done.stdout + done.stderr


def test_runner_lists_its_tiers() -> None:
    """--help names every tier; an unknown one is exit 2."""
    shown = subprocess.run([TOP / "tests" / "run", "--help"], capture_output=True, text=True, check=True).stdout
    wrong = subprocess.run([TOP / "tests" / "run", "nothing"], capture_output=True, text=True, check=False)

    assert all(tier in shown for tier in ("lint", "core", "netns", "lab", "bench"))
    assert 2 == wrong.returncode
