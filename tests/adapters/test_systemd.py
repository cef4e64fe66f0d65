"""What the service manager and the journal are told: sockets of our own instead of theirs."""

from __future__ import annotations

import itertools
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from bgpd.adapters.journal import VALUE_BYTES, Journal, entry
from bgpd.adapters.systemd import START_LIMIT_S, STATUS_CHARACTERS, Systemd

pytestmark = pytest.mark.adapter


class Listener:
    """A datagram socket in the place of systemd's or journald's."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    def heard(self) -> list[bytes]:
        found = []
        try:
            while True:
                found.append(self._socket.recv(1 << 20))
        except BlockingIOError:
            return found

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    made = Listener(tmp_path / "notify")
    yield made
    made.close()


def manager(listener: Listener, **more: str) -> tuple[Systemd, dict[str, str]]:
    environment = {"NOTIFY_SOCKET": str(listener.path), "HOME": "/", **more}
    return Systemd(environment, 42), environment


def test_watchdog_is_fed_often_enough_and_not_at_each_turn(listener: Listener) -> None:
    """Once ready, a turn feeds the watchdog at least four times in its limit, and thousands of turns cost few datagrams."""
    systemd, _ = manager(listener, WATCHDOG_USEC="8000000", WATCHDOG_PID="42")
    systemd.ready()
    assert [b"READY=1\nWATCHDOG=1"] == listener.heard()
    assert 2.0 == systemd.feed_s

    fed = []
    for turn in range(800):
        systemd.alive(turn / 100)
        fed += [(turn / 100, what) for what in listener.heard()]

    assert {b"WATCHDOG=1"} == {what for _, what in fed}
    times = [at for at, _ in fed]
    assert all(0.9 <= after - before <= 2.0 for before, after in itertools.pairwise(times))
    systemd.close()


def test_start_is_extended_while_the_core_turns(listener: Listener) -> None:
    """Before it is ready, the daemon asks for more time with each feed, and for no more than it needs to be found hanging."""
    systemd, _ = manager(listener)

    systemd.alive(1.0)
    systemd.alive(1.1)
    systemd.alive(100.0)

    assert 2 * [f"EXTEND_TIMEOUT_USEC={int(START_LIMIT_S * 1e6)}".encode()] == listener.heard()
    systemd.close()


def test_status_is_one_line_told_when_it_changes(listener: Listener) -> None:
    """The status has one bounded line, and is told once as long as it stays the same."""
    systemd, _ = manager(listener)

    for text in ("peers-wait: waiting for tor1", "peers-wait: waiting for tor1", "ready", "a\nREADY=1 " + 1000 * "x"):
        systemd.status(text)

    told = listener.heard()
    assert [b"STATUS=peers-wait: waiting for tor1", b"STATUS=ready"] == told[:2]
    assert told[2].startswith(b"STATUS=a READY=1 xxx")
    assert len(b"STATUS=") + STATUS_CHARACTERS == len(told[2])
    systemd.close()


def test_children_do_not_speak_for_us(listener: Listener) -> None:
    """What the service manager gave us is not handed down to the processes that we start."""
    systemd, environment = manager(listener, WATCHDOG_USEC="8000000", WATCHDOG_PID="42")

    assert {"HOME": "/"} == environment
    systemd.close()


def test_watchdog_meant_for_another_is_not_ours(listener: Listener) -> None:
    """A limit that was set for another process is not kept by us."""
    systemd, _ = manager(listener, WATCHDOG_USEC="8000000", WATCHDOG_PID="43")
    systemd.ready()

    assert systemd.feed_s == START_LIMIT_S / 4
    systemd.close()


def test_without_a_manager_nothing_happens(tmp_path: Path) -> None:
    """By hand, or where the manager's socket is gone, every call does nothing."""
    for environment in ({}, {"NOTIFY_SOCKET": str(tmp_path / "gone")}, {"NOTIFY_SOCKET": "vsock:2:1"}):
        systemd = Systemd(environment, 42)
        assert systemd.feed_s is None
        systemd.alive(1.0)
        systemd.status("ready")
        systemd.ready()
        systemd.stopping()
        systemd.close()


def test_manager_that_goes_away_is_no_failure(listener: Listener) -> None:
    """A socket that nobody reads any more costs us nothing."""
    systemd, _ = manager(listener)
    listener.close()

    systemd.ready()
    systemd.close()


def fields(datagram: bytes) -> dict[str, str]:
    """Read a datagram of the native journal protocol."""
    found: dict[str, str] = {}
    while datagram:
        line, _, rest = datagram.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            length = int.from_bytes(rest[:8], "little")
            value, rest = rest[8 : 8 + length], rest[9 + length :]
        found[name.decode()] = value.decode()
        datagram = rest
    return found


def test_facts_are_fields_of_the_journal() -> None:
    """A notice is an entry with its name, its priority, and each fact as a field; the message reads alone."""
    told = fields(
        entry({"event": "peer.lost", "level": "warning", "peer": "10.0.0.1", "after_s": 1.5, "reason": "hold time"})
    )

    assert {
        "MESSAGE": 'peer.lost peer=10.0.0.1 after_s=1.5 reason="hold time"',
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "bgpd",
        "BGPD_EVENT": "peer.lost",
        "BGPD_PEER": "10.0.0.1",
        "BGPD_AFTER_S": "1.5",
        "BGPD_REASON": "hold time",
    } == told


def test_what_a_peer_says_cannot_make_fields() -> None:
    """A value with line breaks stays one value, and a long one is cut."""
    told = fields(entry({"event": "peer.lost", "reason": "bye\nPRIORITY=0\nX=1", "text": 2 * VALUE_BYTES * "x"}))

    assert {"MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER", "BGPD_EVENT", "BGPD_REASON", "BGPD_TEXT"} == set(told)
    assert "6" == told["PRIORITY"]
    assert "bye\nPRIORITY=0\nX=1" == told["BGPD_REASON"]
    assert VALUE_BYTES == len(told["BGPD_TEXT"])


def test_journal_that_does_not_listen_leaves_the_entry_on_standard_error(
    listener: Listener, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An entry goes to the journal, and to standard error with the reason where there is none."""
    there, lost = Journal(listener.path), Journal(tmp_path / "gone")
    there.info(event="daemon.started", level="info")
    lost.warning(event="peer.lost", level="warning", peer="10.0.0.1")
    there.close()
    lost.close()

    assert ["daemon.started"] == [fields(each)["BGPD_EVENT"] for each in listener.heard()]
    told = json.loads(capsys.readouterr().err)
    assert "peer.lost" == told["event"]
    assert "No such file" in told["journal"]
