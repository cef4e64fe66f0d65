"""The API server over a real unix socket."""

from __future__ import annotations

import asyncio
import http.client
import os
import socket as sockets
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from bgpd.api import protocol, server
from bgpd.api.client import Client, _Connection
from bgpd.api.server import Server, SocketUnusable
from tests.api.fake import EXPLAIN, NATIVE, PEERS, POOLS, ROUTES, STATUS, BrokenViews, FakeViews, route, serving

pytestmark = pytest.mark.netns

TIMEOUT_S = 10.0


def raw(path: Path, method: str, target: str, body: bytes | None = None) -> tuple[int, str]:
    """Make a request that our client would not make; return its status and its error sentence."""
    connection = _Connection(path, TIMEOUT_S)
    try:
        connection.request(method, target, body)
        response = connection.getresponse()
        answer = response.read()
        assert str(response.getheader("Content-Type")).startswith("application/json")
        return response.status, msgspec.json.decode(answer, type=protocol.ErrorView).error
    finally:
        connection.close()


def test_answers_are_the_views_of_the_daemon(run_dir: Path) -> None:
    """Every path answers with the views that the daemon has."""
    with serving(FakeViews(), run_dir / "s"):
        client = Client(run_dir / "s")

        assert client.status() == STATUS
        assert client.peers() == PEERS
        assert client.routes() == ROUTES
        assert client.explain("10.42.0.65") == EXPLAIN
        assert client.pools() == POOLS


def test_routes_of_a_prefix(run_dir: Path) -> None:
    """A prefix selects exactly its own route; an unknown one selects none."""
    with serving(FakeViews(), run_dir / "s"):
        client = Client(run_dir / "s")

        assert client.routes(protocol.Prefix.parse("10.42.0.64/26")) == [NATIVE]
        assert client.routes(protocol.Prefix.parse("10.42.0.0/16")) == []


@pytest.mark.parametrize("count", [0, 1, server.PART_ROWS, server.PART_ROWS + 1, 3 * server.PART_ROWS])
def test_list_in_parts_is_whole(run_dir: Path, count: int) -> None:
    """A list arrives whole however many parts it is sent in."""
    rows = [route(f"10.{number >> 8}.{number & 255}.0/24", "bgp") for number in range(count)]

    with serving(FakeViews(rows), run_dir / "s"):
        assert Client(run_dir / "s").routes() == rows


def test_assign_returns_the_address(run_dir: Path) -> None:
    """An assignment passes handle and pool on and returns the address."""
    views = FakeViews()

    with serving(views, run_dir / "s"):
        client = Client(run_dir / "s")
        addresses = [client.assign("w1"), client.assign("w2", "main")]

    assert addresses == ["10.42.0.7", "10.42.0.7"]
    assert views.assigned == [("w1", None), ("w2", "main")]


@pytest.mark.parametrize(
    ("method", "target", "body", "status", "part"),
    [
        ("GET", "/v1/routes?prefix=10.0.0.1", None, 400, "has no prefix length"),
        ("GET", "/v1/routes?prefix=", None, 400, "does not appear to be an IPv4 or IPv6 address"),
        ("GET", "/v1/routes?prefix=10.0.0.1/24", None, 400, "the prefix is 10.0.0.0/24"),
        ("GET", "/v1/explain?q=nonsense", None, 400, "'nonsense' is neither an address nor a prefix"),
        ("GET", "/v1/explain", None, 400, "needs a parameter q"),
        ("GET", "/v1/explain?q=" + 200 * "1", None, 400, "parameter q is longer than 128 characters"),
        ("GET", "/v1/nothing", None, 404, "there is no /v1/nothing"),
        ("POST", "/v1/status", b"{}", 405, "is for GET, HEAD, not POST"),
        ("POST", "/v1/assign", b"{}", 400, "missing required field `handle`"),
        ("POST", "/v1/assign", b'{"handle": ""}', 400, "length >= 1"),
        ("POST", "/v1/assign", b"\xff\xff", 400, "not an assignment request"),
        ("POST", "/v1/assign", 5000 * b" ", 413, "larger than 4096 bytes"),
        ("POST", "/v1/assign", b'{"handle": "w", "pool": "other"}', 409, "there is no pool other"),
    ],
)
def test_errors_are_json(  # noqa: PLR0917
    run_dir: Path, method: str, target: str, body: bytes | None, status: int, part: str
) -> None:
    """Every error is JSON with a status that says whose it is and a sentence that says what."""
    with serving(FakeViews(), run_dir / "s"):
        found, sentence = raw(run_dir / "s", method, target, body)

    assert (status, True) == (found, part in sentence), sentence


def test_request_line_is_bounded(run_dir: Path) -> None:
    """A request line beyond the limit is refused before it is collected."""
    with serving(FakeViews(), run_dir / "s"):
        connection = _Connection(run_dir / "s", TIMEOUT_S)
        connection.request("GET", "/v1/explain?q=" + 4 * server.LINE_LIMIT_BYTES * "1")
        status = connection.getresponse().status
        connection.close()

    assert status == 400


def test_defect_of_a_view_does_not_end_the_server(run_dir: Path) -> None:
    """A view that fails is answered with 500, and the next question is answered."""
    with serving(BrokenViews(), run_dir / "s"):
        connection = _Connection(run_dir / "s", TIMEOUT_S)
        connection.request("GET", protocol.STATUS)
        status = connection.getresponse().status
        connection.close()

        assert status == http.client.INTERNAL_SERVER_ERROR
        assert Client(run_dir / "s").peers() == PEERS


def test_requests_at_once_are_bounded(run_dir: Path) -> None:
    """More requests at once than the limit are turned away; those in progress are not disturbed."""

    async def run() -> tuple[tuple[int, str], list[str]]:
        """Return the answer to one too many, and those to the others."""
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(server.REQUESTS_LIMIT + 1))
        views = FakeViews()
        views.hold = asyncio.Event()
        api = Server(views, run_dir / "s")
        await api.start()
        client = Client(run_dir / "s")
        async with asyncio.TaskGroup() as tasks, asyncio.timeout(TIMEOUT_S):
            waiting = [
                tasks.create_task(asyncio.to_thread(client.assign, f"w{number}"))
                for number in range(server.REQUESTS_LIMIT)
            ]
            while len(views.assigned) < server.REQUESTS_LIMIT:
                await asyncio.sleep(0.005)
            turned_away = await asyncio.to_thread(raw, run_dir / "s", "GET", "/v1/peers")
            views.hold.set()
        await api.stop()
        return turned_away, [task.result() for task in waiting]

    turned_away, answers = asyncio.run(run())

    assert turned_away == (503, "32 requests are in progress already; ask again in a moment")
    assert answers == server.REQUESTS_LIMIT * ["10.42.0.7"]


# ------------------------------------------------------------------ the socket file


def test_socket_is_for_owner_and_group(run_dir: Path) -> None:
    """The socket has mode 0660 whatever the umask, in a directory that is made for it."""
    path = run_dir / "made" / "for" / "s"
    before = os.umask(0)
    try:
        with serving(FakeViews(), path):
            mode = stat.S_IMODE(path.stat().st_mode)
            directory = stat.S_IMODE(path.parent.stat().st_mode)
    finally:
        os.umask(before)

    assert (mode, directory) == (0o660, 0o755)


def test_stop_removes_the_socket(run_dir: Path) -> None:
    """A stopped server leaves no socket file."""
    with serving(FakeViews(), run_dir / "s"):
        pass

    assert list(run_dir.iterdir()) == []


def test_stop_leaves_the_socket_of_a_successor(run_dir: Path) -> None:
    """A stopping server does not remove a socket that another process has put in its place."""

    async def run() -> None:
        """Put a successor in the place of a server, then stop that one."""
        old, new = Server(FakeViews(), run_dir / "s"), Server(FakeViews(), run_dir / "s")
        await old.start()
        (run_dir / "s").unlink()
        await new.start()
        await old.stop()
        assert await asyncio.to_thread(Client(run_dir / "s").status) == STATUS
        await new.stop()

    asyncio.run(run())


def test_stale_socket_is_replaced(run_dir: Path) -> None:
    """A socket that a dead daemon left is replaced."""
    with sockets.socket(sockets.AF_UNIX) as dead:
        dead.bind(str(run_dir / "s"))

    with serving(FakeViews(), run_dir / "s"):
        assert Client(run_dir / "s").status() == STATUS


def unusable(path: Path) -> str:
    """Try to serve on *path*; return why it cannot be."""

    async def run() -> str:
        """Start and fail."""
        with pytest.raises(SocketUnusable) as caught:
            await Server(FakeViews(), path).start()
        return str(caught.value)

    return asyncio.run(run())


def test_live_socket_is_never_taken_away(run_dir: Path) -> None:
    """A second daemon on the same socket is refused, and the first one keeps answering."""
    with serving(FakeViews(), run_dir / "s"):
        reason = unusable(run_dir / "s")
        answer = Client(run_dir / "s").status()

    assert reason == (
        f"the socket {run_dir}/s is taken: another daemon listens on it; stop that daemon, or choose another socket path"
    )
    assert answer == STATUS


def test_other_file_is_never_taken_away(run_dir: Path) -> None:
    """A file that is no socket is left alone."""
    (run_dir / "s").write_text("precious")

    assert unusable(run_dir / "s") == (
        f"{run_dir}/s exists and is not a socket: move it away, or choose another socket path"
    )
    assert (run_dir / "s").read_text() == "precious"


def test_path_too_long_is_said(run_dir: Path) -> None:
    """A path beyond 107 bytes is named as such."""
    path = run_dir / (120 * "x")

    assert "a unix socket path has at most 107: choose a shorter one" in unusable(path)


def test_directory_that_cannot_be_made_is_said(run_dir: Path) -> None:
    """A parent that is no directory is named with the reason."""
    (run_dir / "file").write_text("")

    assert unusable(run_dir / "file" / "s") == (
        f"the socket {run_dir}/file/s cannot be prepared: File exists: {run_dir}/file"
    )
