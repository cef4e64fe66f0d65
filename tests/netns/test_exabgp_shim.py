"""The shim as a process of its own: we are ExaBGP at its pipes and daemons at its socket."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bgpd.adapters.exabgp.child.shim import BACKLOG_BYTES

pytestmark = pytest.mark.netns

OPEN = b'{"raw":1,"direction":"receive","peer":"192.0.2.1","body":"00"}'
UPDATE = b'{"raw":2,"direction":"receive","peer":"192.0.2.1","body":"00000000"}'
WAIT_S = 10.0


def state(word: str) -> bytes:
    neighbor = {"address": {"local": "192.0.2.2", "peer": "192.0.2.1"}, "state": word}
    return b'{ "exabgp": "5.0.0", ' + json.dumps({"type": "state", "neighbor": neighbor})[1:].encode()


class Daemon:
    """One connection to the shim."""

    def __init__(self, path: Path) -> None:
        self.socket = _connect(path)
        self.file = self.socket.makefile("rb")
        self.hello = json.loads(self.line())

    def line(self) -> bytes:
        return self.file.readline().rstrip(b"\n")

    def send(self, command: bytes) -> None:
        self.socket.sendall(command)

    def close(self) -> None:
        self.file.close()
        self.socket.close()


def _connect(path: Path) -> socket.socket:
    deadline = time.monotonic() + WAIT_S
    while True:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(WAIT_S)
        try:
            connection.connect(str(path))
        except ConnectionRefusedError:  # bound, and about to listen
            connection.close()
            assert time.monotonic() < deadline
        else:
            return connection


class Shim:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "shim.sock"
        command = [sys.executable, "-m", "bgpd.adapters.exabgp.child.shim", str(self.path)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        deadline = time.monotonic() + WAIT_S
        while not self.path.exists():
            assert time.monotonic() < deadline, "the shim does not start"
            time.sleep(0.01)

    def say(self, *lines: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"".join(line + b"\n" for line in lines))
        self.process.stdin.flush()

    def heard(self) -> bytes:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip(b"\n")


@pytest.fixture
def shim(tmp_path: Path) -> Iterator[Shim]:
    made = Shim(tmp_path)
    yield made
    assert made.process.stdin is not None
    assert made.process.stdout is not None
    made.process.stdin.close()
    assert made.process.wait(WAIT_S) == 0
    made.process.stdout.close()


def test_the_first_daemon_gets_every_line_since_the_start(shim: Shim) -> None:
    """Nothing is lost between ExaBGP's start and the first connection, and the socket is ours alone."""
    shim.say(OPEN, state("up"), UPDATE)
    daemon = Daemon(shim.path)

    assert daemon.hello["complete"]
    assert daemon.hello["exabgp"] == os.getpid()
    assert [OPEN, state("up"), UPDATE] == [daemon.line() for _ in range(3)]
    assert oct(shim.path.stat().st_mode & 0o777) == "0o600"
    daemon.close()


def test_a_later_daemon_gets_a_snapshot(shim: Shim) -> None:
    """Sessions that are up are told with OPEN and state; a new connection replaces the old one."""
    first = Daemon(shim.path)
    shim.say(OPEN, state("up"), UPDATE)
    assert [OPEN, state("up"), UPDATE] == [first.line() for _ in range(3)]
    second = Daemon(shim.path)

    assert not second.hello["complete"]
    assert [OPEN, state("up"), b'{"shim":"snapshot-end"}'] == [second.line() for _ in range(3)]
    assert first.line() == b""
    shim.say(state("down"), UPDATE)
    assert [state("down"), UPDATE] == [second.line() for _ in range(2)]
    third = Daemon(shim.path)
    assert third.line() == b'{"shim":"snapshot-end"}'
    for daemon in (first, second, third):
        daemon.close()


def test_answers_go_to_the_daemon_that_asked(shim: Shim) -> None:
    """The answer to a dead daemon's command, text and all, does not reach its successor; half a command is dropped."""
    first = Daemon(shim.path)
    first.send(b"show one\nhalf a comm")
    assert shim.heard() == b"show one"
    second = Daemon(shim.path)
    assert second.line() == b'{"shim":"snapshot-end"}'
    second.send(b"show two\n")
    assert shim.heard() == b"show two"

    shim.say(b"text of one", b"done", b"text of two", b"error")

    assert [b"text of two", b"error"] == [second.line() for _ in range(2)]
    first.close()
    second.close()


def test_a_daemon_that_does_not_read_holds_nothing_up(shim: Shim) -> None:
    """ExaBGP can write more than the bound without ever waiting; the stalled daemon is cut off and its successor knows."""
    stalled = Daemon(shim.path)
    line = UPDATE[:-2] + b"0" * 60000 + b'"}'
    began = time.monotonic()
    for _ in range(BACKLOG_BYTES // len(line) + 50):
        shim.say(line)
    assert time.monotonic() - began < WAIT_S
    shim.say(OPEN, state("up"))

    deadline = time.monotonic() + WAIT_S
    while True:
        successor = Daemon(shim.path)
        if successor.hello["dropped"] and successor.line() == OPEN:
            break
        assert time.monotonic() < deadline
        successor.close()
    assert successor.line() == state("up")
    size = int(Path(f"/proc/{shim.process.pid}/statm").read_text().split()[1]) * 4096
    assert size < BACKLOG_BYTES * 3
    stalled.close()
    successor.close()


def test_lines_that_make_no_sense_do_not_end_it(shim: Shim) -> None:
    """A defect in a line costs that line at most."""
    daemon = Daemon(shim.path)
    shim.say(b'{ "exabgp" nonsense', b'{"raw":1', UPDATE)

    lines = [daemon.line()]
    while lines[-1] != UPDATE:
        lines.append(daemon.line())
    assert shim.process.poll() is None
    daemon.close()


def test_a_second_shim_of_the_same_exabgp_says_so(tmp_path: Path) -> None:
    """A shim that replaces a dead one knows no sessions, and tells the daemon."""
    told = []
    for _ in range(2):
        shim = Shim(tmp_path)
        daemon = Daemon(shim.path)
        told.append(daemon.hello["respawned"])
        daemon.close()
        shim.process.kill()
        shim.process.communicate()
        shim.path.unlink()

    assert told == [False, True]
