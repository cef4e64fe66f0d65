"""The API client against sockets in every bad state: one sentence each, saying what, where, and how to mend it."""

from __future__ import annotations

import socket as sockets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bgpd.api.client import BadRequest, Client, Failed, Unreachable
from bgpd.api.protocol import Refused
from tests.api.fake import BrokenViews, FakeViews, as_nobody, serving

pytestmark = pytest.mark.netns

TIMEOUT_S = 10.0


@contextmanager
def answering(path: Path, answer: bytes) -> Iterator[None]:
    """Answer one connection with *answer*, whatever it asks, and close it."""
    with sockets.socket(sockets.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        listener.settimeout(TIMEOUT_S)

        def serve() -> None:
            """Be the thread."""
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)
                connection.shutdown(sockets.SHUT_WR)
                while connection.recv(4096):
                    pass  # what is left of the question: closed before, it would be refused

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join(TIMEOUT_S)


def why(path: Path, kind: type[Exception] = Unreachable, timeout_s: float = TIMEOUT_S) -> str:
    """Ask for the status; return the sentence with which it fails."""
    with pytest.raises(kind) as caught:
        Client(path, timeout_s).status()
    return str(caught.value)


def test_missing_socket(run_dir: Path) -> None:
    """A missing socket is said with its path and both ways to mend it."""
    assert why(run_dir / "s") == (
        f"no daemon is running here: the socket {run_dir}/s does not exist; "
        "start one with `bgpd run`, or name its socket with --socket or BGPD_SOCKET"
    )


def test_nobody_listens(run_dir: Path) -> None:
    """A socket left by a dead daemon is said as such."""
    with sockets.socket(sockets.AF_UNIX) as dead:
        dead.bind(str(run_dir / "s"))

    assert f"no daemon is running here: nobody listens on the socket {run_dir}/s" in why(run_dir / "s")


def test_permission_denied(run_dir: Path) -> None:
    """A user who may not open the socket is told who he is and who may."""
    with serving(FakeViews(), run_dir / "s"), as_nobody():
        sentence = why(run_dir / "s")

    assert sentence == (f"you (uid 65534) may not open the socket {run_dir}/s: become root or a member of its group")


def test_silent_daemon(run_dir: Path) -> None:
    """A daemon that accepts but does not answer is given up after the timeout."""
    with sockets.socket(sockets.AF_UNIX) as silent:
        silent.bind(str(run_dir / "s"))
        silent.listen(1)

        assert why(run_dir / "s", timeout_s=0.05) == (
            f"the daemon behind {run_dir}/s did not answer within 0.05 s: it is busy or stopped; see its log"
        )


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"], ids=["at once", "midway"])
def test_daemon_that_ends(run_dir: Path, answer: bytes) -> None:
    """A daemon that ends while it answers is said as such."""
    with answering(run_dir / "s", answer):
        sentence = why(run_dir / "s")

    assert sentence == (
        f"the daemon behind {run_dir}/s closed the connection: it has just ended or restarted; see its log"
    )


def test_other_service(run_dir: Path) -> None:
    """A socket on which something else answers is no daemon of ours."""
    with answering(run_dir / "s", b"220 mail.example ESMTP\r\n"):
        sentence = why(run_dir / "s", Failed)

    assert f"what listens on {run_dir}/s does not answer as bgpd does" in sentence


def test_other_version(run_dir: Path) -> None:
    """An answer that lacks a field is taken for another version's."""
    with answering(run_dir / "s", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"):
        sentence = why(run_dir / "s", Failed)

    assert "answers in a form unknown here: it may be of another version" in sentence


def test_newer_daemon_is_understood(run_dir: Path) -> None:
    """An answer with a field more is understood."""
    body = b'{"address": "10.0.0.1", "lease_s": 60}'
    with answering(run_dir / "s", b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)):
        assert Client(run_dir / "s").assign("w") == "10.0.0.1"


def test_path_too_long(run_dir: Path) -> None:
    """A path that no socket can have is said as such."""
    assert why(run_dir / (120 * "x")).endswith("cannot be used: AF_UNIX path too long")


def test_defect_of_the_daemon(run_dir: Path) -> None:
    """A daemon that fails points to its log."""
    with serving(BrokenViews(), run_dir / "s"):
        sentence = why(run_dir / "s", Failed)

    assert sentence == "the daemon failed to answer (HTTP status 500); its log says why"


def test_bad_question(run_dir: Path) -> None:
    """What the daemon does not understand is told with its words."""
    with serving(FakeViews(), run_dir / "s"), pytest.raises(BadRequest) as caught:
        Client(run_dir / "s").explain("nonsense")

    assert str(caught.value) == "'nonsense' is neither an address nor a prefix"


def test_refusal(run_dir: Path) -> None:
    """A refused assignment carries the daemon's reason."""
    with serving(FakeViews(), run_dir / "s"), pytest.raises(Refused) as caught:
        Client(run_dir / "s").assign("w", "other")

    assert caught.value.reason == "there is no pool other"
