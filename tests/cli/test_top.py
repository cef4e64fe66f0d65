"""``bgpd top``: what fits on the screen, and the command in a pseudo-terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from rich.cells import cell_len

from bgpd.api.client import Client
from bgpd.cli.main import cli
from bgpd.cli.top import EVENTS_MIN, SORTS, Screen, Snapshot, Watch
from tests.api.fake import EVENTS, NODES, PEERS, STATUS, FakeViews, serving

pytestmark = pytest.mark.netns

WAIT_S = 60.0


def snapshot(peers: int = 2, nodes: int = 3, events: int = 2) -> Snapshot:
    """A look at so many of each, with names as long as they get."""
    paths = ("native", "fallback", "unreachable", "")
    return Snapshot(
        at=time.time(),
        status=STATUS,
        peers=[msgspec.structs.replace(PEERS[n % 2], name=f"router-with-a-very-long-name-{n}") for n in range(peers)],
        nodes=[NODES[0]]
        + [
            msgspec.structs.replace(
                NODES[1 + n % 3], name=f"node{n:04}", path=paths[n % 4], reason="a reason that is much too long " * 9
            )
            for n in range(nodes)
        ],
        events=[msgspec.structs.replace(EVENTS[0], sequence=n + 1) for n in range(events)],
        bits_per_s={f"eth{n}": (10.0**n, 5.0) for n in range(12)},
        routes_per_s={"router-with-a-very-long-name-0": 17.0},
    )


@pytest.mark.parametrize(("columns", "height"), [(80, 24), (80, 50), (200, 60), (40, 10), (20, 5)])
@pytest.mark.parametrize("many", [0, 3, 2000])
def test_it_fits_the_terminal(columns: int, height: int, many: int) -> None:
    """As many lines as the terminal has, none longer than it, whatever there is to show."""
    lines = Screen().lines(snapshot(peers=many, nodes=many, events=many), columns, height)
    assert height == len(lines)
    assert max(cell_len(line.plain) for line in lines) <= columns


def test_the_worst_comes_first_and_what_is_left_out_is_counted() -> None:
    """On 80x24 with 500 nodes the unreachable stand at the top, events keep their lines, and the rest is a number."""
    lines = [line.plain for line in Screen().lines(snapshot(peers=40, nodes=500, events=50), 80, 24)]
    start = next(n for n, line in enumerate(lines) if line.startswith("NODES "))
    end = lines.index("EVENTS")
    assert all("unreachable" in line for line in lines[start + 1 : end])
    assert lines[start].startswith(f"NODES {end - start - 1}/500 ")
    assert "nodes by path" in lines[start]
    assert EVENTS_MIN <= len(lines) - end - 2
    first = next(n for n, line in enumerate(lines) if line.startswith("SESSIONS"))
    assert "Idle" in lines[first + 1]


def test_a_session_of_80_columns_is_whole() -> None:
    """AS, state, since, received, accepted, announced and the rate of a session fit beside its name."""
    lines = [line.plain for line in Screen().lines(snapshot(), 80, 24)]
    assert any(line.split()[1:3] == ["AS65001", "Established"] and line.endswith("+17") for line in lines)


def test_keys_sort_scroll_and_pause() -> None:
    """s goes through the orders, j and k move by a node and stay within, p pauses, q ends."""
    screen, found = Screen(), snapshot(nodes=100)

    def first() -> str:
        lines = [line.plain for line in screen.lines(found, 80, 24)]
        return lines[1 + next(n for n, line in enumerate(lines) if line.startswith("NODES"))].split()[0]

    assert [True] * len(SORTS) == [screen.press("s") for _ in SORTS]
    assert "path" == screen.sort
    screen.press("s")
    assert "node0000" == first()
    screen.press("k")
    assert "node0000" == first()
    screen.press("j")
    assert "node0001" == first()
    for _ in range(300):
        screen.press("j")
    first()
    assert screen.scrolled < 100
    assert screen.press("p")
    assert screen.paused
    assert not screen.press("q")


def test_what_others_wrote_moves_no_cursor() -> None:
    """Control characters of a neighbor's text are replaced."""
    text = "\n".join(line.plain for line in Screen().lines(snapshot(), 120, 40))
    assert "\x1b" not in text
    assert "?[31mmaintenance" in text


def test_rates_are_worked_out_between_two_looks(run_dir: Path) -> None:
    """Routes by peer, and octets of the devices that paths use; a device that is not here is left out."""
    views, devices = FakeViews(), run_dir / "net"

    def octets(device: str, rx: int, tx: int) -> None:
        folder = devices / device / "statistics"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "rx_bytes").write_text(f"{rx}\n")
        (folder / "tx_bytes").write_text(f"{tx}\n")

    octets("eth1", 1000, 0)
    with serving(views, run_dir / "s"):
        watch = Watch(Client(run_dir / "s"), devices)
        assert {} == watch.look().bits_per_s
        octets("eth1", 5000, 0)
        views.peers_held = [msgspec.structs.replace(PEERS[0], received=PEERS[0].received + 10), PEERS[1]]
        found = watch.look()
    assert ["eth1"] == list(found.bits_per_s)
    received, sent = found.bits_per_s["eth1"]
    assert received > 0
    assert 0 == sent
    assert found.routes_per_s["tor1"] > 0
    assert 0 == found.routes_per_s["tor2"]
    assert [event.sequence for event in EVENTS] == [event.sequence for event in found.events]


def test_once_is_for_scripts(run_dir: Path) -> None:
    """--once writes one look as text without control characters, or JSON; without a terminal it is needed."""
    with serving(FakeViews(), run_dir / "s"):
        common = ["top", "--socket", str(run_dir / "s"), "-i", "0.2"]
        text = CliRunner().invoke(cli, [*common, "--once"])
        assert 0 == text.exit_code, text.output
        assert all(word in text.output for word in ("tor1", "node3", "fallback", "peer.lost", "nodes by path"))
        assert "\x1b" not in text.output
        found = CliRunner().invoke(cli, [*common, "--once", "-o", "json"])
        assert {"tor1", "tor2"} == {peer["name"] for peer in json.loads(found.output)["peers"]}
        refused = CliRunner().invoke(cli, common)
    assert 1 == refused.exit_code
    assert "--once" in refused.output
    absent = CliRunner().invoke(cli, ["top", "--once", "--socket", str(run_dir / "none")])
    assert 3 == absent.exit_code


class Terminal:
    """A command in a pseudo-terminal of 80 columns and 24 lines."""

    def __init__(self, *command: str) -> None:
        self.ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.before = termios.tcgetattr(theirs)
        self.theirs = theirs
        environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
        self.process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
        self.written = ""

    def until(self, holds: Callable[[list[str]], bool]) -> list[str]:
        """Read until the last whole frame is as wanted; gives its lines."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            if select.select([self.ours], [], [], 0.2)[0]:
                try:
                    self.written += os.read(self.ours, 65536).decode(errors="replace")
                except OSError:
                    break
            frames = self.written.split("\x1b[H")
            for frame in frames[-2:]:
                lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", frame).replace("\r", "").split("\n")
                if len(lines) >= 24 and holds(lines):
                    return lines
        raise AssertionError(f"not within {WAIT_S} s: {self.written[-3000:]!r}")

    def press(self, key: str) -> None:
        os.write(self.ours, key.encode())


@contextmanager
def terminal(socket: Path) -> Iterator[Terminal]:
    one = Terminal(sys.executable, "-m", "bgpd.cli.main", "top", "-i", "0.2", "--socket", str(socket))
    try:
        yield one
    finally:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait()
        os.close(one.ours)
        os.close(one.theirs)


def test_in_a_terminal_it_renews_itself_and_ends_by_a_key(run_dir: Path) -> None:
    """80x24: what changes shows by itself, s sorts, an absent daemon is said, q ends with the terminal as it was."""
    views = FakeViews()
    with serving(views, run_dir / "s"), terminal(run_dir / "s") as one:
        lines = one.until(lambda lines: "nodes by path" in "\n".join(lines))
        assert max(map(cell_len, lines)) <= 80
        assert "q quit" in lines[23]
        views.peers_held = [msgspec.structs.replace(PEERS[0], name="tor-new"), PEERS[1]]
        one.until(lambda lines: any(line.startswith("tor-new ") for line in lines))
        one.press("s")
        one.until(lambda lines: "nodes by name" in "\n".join(lines))
        one.press("q")
        assert 0 == one.process.wait(WAIT_S)
        assert one.before == termios.tcgetattr(one.theirs)
        while select.select([one.ours], [], [], 0.2)[0]:
            one.written += os.read(one.ours, 65536).decode(errors="replace")
        assert one.written.rindex("\x1b[?1049l") > one.written.rindex("\x1b[?1049h")


def test_a_daemon_that_went_is_waited_for(run_dir: Path) -> None:
    """While no daemon answers, the first line says so and the rest stays; when it is back, all goes on."""
    with serving(FakeViews(), run_dir / "s"):
        waiting = terminal(run_dir / "s")
        one = waiting.__enter__()
        one.until(lambda lines: "NODES" in "\n".join(lines))
    try:
        lines = one.until(lambda lines: "no daemon is running here" in lines[0])
        assert any("tor1" in line for line in lines)
        with serving(FakeViews(), run_dir / "s"):
            one.until(lambda lines: "node1" in lines[0])
            one.press("q")
            assert 0 == one.process.wait(WAIT_S)
    finally:
        waiting.__exit__(None, None, None)
