"""Expected failures: one sentence on stderr, nothing on stdout, the exit status that says who has to act."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.api.fake import BrokenViews, FakeViews, as_nobody, serving
from tests.cli.conftest import Bgpd

pytestmark = pytest.mark.netns

ASKING = [
    ["status"],
    ["peers"],
    ["routes"],
    ["routes", "10.42.0.0/26"],
    ["explain", "10.42.0.1"],
    ["ipam", "assign", "--handle", "w"],
]


@pytest.mark.parametrize("arguments", ASKING, ids=" ".join)
@pytest.mark.parametrize("form", ["table", "json"])
def test_no_daemon(bgpd: Bgpd, run_dir: Path, arguments: list[str], form: str) -> None:
    """Without a daemon every asking command ends with status 3 and says which socket is missing."""
    result = bgpd(*arguments, "-o", form)

    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == (
        f"bgpd: no daemon is running here: the socket {run_dir}/s does not exist; "
        "start one with `bgpd run`, or name its socket with --socket or BGPD_SOCKET\n"
    )


def test_permission_denied(bgpd: Bgpd, views: FakeViews, run_dir: Path) -> None:
    """A user without rights on the socket ends with status 3 and is told whose rights it takes."""
    with as_nobody():
        result = bgpd("status")

    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == (
        f"bgpd: you (uid 65534) may not open the socket {run_dir}/s: become root or a member of its group\n"
    )


def test_socket_option_wins(bgpd: Bgpd, views: FakeViews, run_dir: Path) -> None:
    """``--socket`` is taken before BGPD_SOCKET."""
    result = bgpd("status", "--socket", str(run_dir / "other"))

    assert result.exit_code == 3
    assert f"the socket {run_dir}/other does not exist" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["routes", "10.0.0.1"],
            "'10.0.0.1' has no prefix length: write ADDRESS/LENGTH; for a single address there is `bgpd explain`",
        ),
        (["routes", "10.0.0.1/24"], "'10.0.0.1/24' has bits set right of its length: the prefix is 10.0.0.0/24"),
        (["routes", "10.0.0.0/33"], "prefix length 33 is not in 0..32"),
        (["explain", "node2"], "'node2' does not appear to be an IPv4 or IPv6 address"),
        (["explain", "10.0.0.1/24"], "'10.0.0.1/24' has bits set right of its length: the prefix is 10.0.0.0/24"),
    ],
)
def test_bad_query(bgpd: Bgpd, arguments: list[str], sentence: str) -> None:
    """A bad query ends with status 2, also where no daemon runs."""
    result = bgpd(*arguments)

    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"bgpd: {sentence}\n")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["explain"], "Missing argument 'ADDRESS|PREFIX'"),
        (["peers", "-o", "xml"], "'xml' is not one of 'table', 'json'"),
        (["ipam", "assign"], "Missing option '--handle'"),
        (["ipam", "assign", "--handle", ""], "a handle has 1 to 253 characters"),
    ],
)
def test_bad_usage(bgpd: Bgpd, arguments: list[str], part: str) -> None:
    """A wrong command line ends with status 2 and says what is wrong."""
    result = bgpd(*arguments)

    assert (result.exit_code, result.stdout) == (2, "")
    assert part in result.stderr


def test_refusal(bgpd: Bgpd, views: FakeViews) -> None:
    """A refused assignment ends with status 1 and the daemon's reason."""
    result = bgpd("ipam", "assign", "--handle", "w", "--pool", "other")

    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "bgpd: there is no pool other\n")


def test_defect_of_the_daemon(bgpd: Bgpd, run_dir: Path) -> None:
    """A daemon that cannot answer ends the command with status 1 and points to its log."""
    with serving(BrokenViews(), run_dir / "s"):
        result = bgpd("status")

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "bgpd: the daemon failed to answer (HTTP status 500); its log says why\n"
