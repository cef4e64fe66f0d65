"""What strangers may cost: connections, headers, bodies and silence are bounded on the socket and on TCP; who may open the socket."""

from __future__ import annotations

import asyncio
import grp
import os
import re
import socket as sockets
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from bgpd.adapters.mqtt.reader import PAYLOAD_LIMIT_BYTES, decoded
from bgpd.adapters.prometheus import Endpoint
from bgpd.adapters.secrets import PASSWORD_BYTES
from bgpd.api import connections, endpoint, metrics, page, server
from bgpd.api.client import Client
from bgpd.api.metrics import MetricsServer
from bgpd.api.server import Access, Server, SocketUnusable
from bgpd.cli import manifest
from bgpd.config.document import FILE_LIMIT_BYTES
from bgpd.config.environment import VALUE_LIMIT_CHARS
from tests.api.fake import FakeViews
from tests.api.test_metrics import free_port

pytestmark = pytest.mark.adapter

TOP = Path(__file__).parents[2]
DEADLINE_S = 60.0
REQUEST = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n"
Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


async def closed(reader: asyncio.StreamReader) -> bool:
    """Whether the other side ended the connection without a word."""
    async with asyncio.timeout(DEADLINE_S):
        try:
            return await reader.read(1) == b""
        except ConnectionResetError:
            return True


async def status(connect: Connect, request: bytes) -> int:
    reader, writer = await connect()
    try:
        async with asyncio.timeout(DEADLINE_S):
            writer.write(request)
            return int((await reader.readline()).split()[1])
    finally:
        writer.close()


async def on_tcp(use: Callable[[Connect], Awaitable[None]]) -> None:
    port = free_port()
    made = MetricsServer(Endpoint(address="127.0.0.1", port=port), lambda: b"bgpd_ready 1\n")
    await made.start()
    try:
        await use(lambda: asyncio.open_connection("127.0.0.1", port))
    finally:
        await made.stop()


async def on_socket(folder: Path, use: Callable[[Connect], Awaitable[None]]) -> None:
    made = Server(FakeViews(), folder / "s")
    await made.start()
    try:
        await use(lambda: asyncio.open_unix_connection(str(folder / "s")))
    finally:
        await made.stop()


def everywhere(folder: Path, use: Callable[[Connect], Awaitable[None]]) -> None:
    """Run *use* against each of the servers."""
    asyncio.run(on_tcp(use))
    asyncio.run(on_socket(folder, use))


def test_connections_at_once_are_bounded(run_dir: Path) -> None:
    """One connection too many is ended at once, and room that is given back is used again."""

    async def use(connect: Connect) -> None:
        held = [await connect() for _ in range(connections.CONNECTIONS_LIMIT)]
        for _, writer in held:
            writer.write(REQUEST + b"\r\n")
        for reader, _ in held:
            async with asyncio.timeout(DEADLINE_S):
                assert (await reader.readline()).startswith(b"HTTP/1.1 ")
        reader, writer = await connect()
        assert await closed(reader)
        for _, each in [*held, (reader, writer)]:
            each.close()
        async with asyncio.timeout(DEADLINE_S):
            while True:
                try:
                    assert await status(connect, REQUEST + b"\r\n") in {200, 404}
                except (IndexError, ConnectionResetError):
                    await asyncio.sleep(0.05)
                else:
                    return

    everywhere(run_dir, use)


@pytest.mark.parametrize("said", [b"", REQUEST])
def test_a_connection_that_asks_nothing_is_ended(run_dir: Path, monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    """Silence, or headers without an end, is not waited for; a connection that has asked is kept."""
    made = connections.Connections.__init__

    def impatient(self: connections.Connections, server: object) -> None:
        made(self, server, wait_s=0.5)  # type: ignore[arg-type]

    monkeypatch.setattr(connections.Connections, "__init__", impatient)

    async def use(connect: Connect) -> None:
        spoke, silent = await connect(), await connect()
        spoke[1].write(REQUEST + b"\r\n")
        silent[1].write(said)
        assert await closed(silent[0])
        async with asyncio.timeout(DEADLINE_S):
            assert (await spoke[0].readline()).startswith(b"HTTP/1.1 ")
        silent[1].close()
        spoke[1].close()

    everywhere(run_dir, use)


def test_headers_and_bodies_are_bounded(run_dir: Path) -> None:
    """A long request line and a long header are refused before they are collected."""

    async def use(connect: Connect) -> None:
        long = b"x" * (2 * endpoint.LINE_LIMIT_BYTES)
        assert 400 == await status(connect, b"GET /" + long + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert 400 == await status(connect, REQUEST + b"X-Long: " + long + b"\r\n\r\n")

    everywhere(run_dir, use)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_http_only_reads(method: str) -> None:
    """Nothing can be changed over TCP: other methods than those that read are refused."""

    async def use(connect: Connect) -> None:
        head = f"{method} /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
        assert 405 == await status(connect, head.encode())

    asyncio.run(on_tcp(use))


@pytest.mark.parametrize(
    ("access", "mode"), [(Access(), 0o660), (Access(0o600), 0o600), (Access(0o660, "daemon"), 0o660)]
)
def test_the_socket_has_the_mode_and_group_of_the_configuration(run_dir: Path, access: Access, mode: int) -> None:
    """The socket's mode and group are as configured; it works with them."""

    async def serve() -> None:
        made = Server(FakeViews(), run_dir / "s", access)
        await made.start()
        try:
            found = (run_dir / "s").stat()
            assert mode == stat.S_IMODE(found.st_mode)
            assert (grp.getgrnam(access.group).gr_gid if access.group else os.getegid()) == found.st_gid
            assert "node1" == (await asyncio.to_thread(Client(run_dir / "s").status)).node
        finally:
            await made.stop()

    asyncio.run(serve())


def test_an_unknown_group_is_named_and_leaves_no_socket(run_dir: Path) -> None:
    """A group that does not exist ends the start with how to mend it, and no socket is left for everybody."""
    with pytest.raises(SocketUnusable, match="there is no group nobody-knows: groupadd"):
        asyncio.run(Server(FakeViews(), run_dir / "s", Access(0o660, "nobody-knows")).start())

    assert [] == list(run_dir.iterdir())


def test_a_group_of_others_is_refused(run_dir: Path) -> None:
    """A daemon that is no member of the group cannot give it the socket, and says what to do."""
    run_dir.chmod(0o777)
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        try:
            asyncio.run(Server(FakeViews(), run_dir / "s", Access(0o660, "daemon")).start())
        except SocketUnusable as unusable:
            os._exit(0 if "SupplementaryGroups=" in str(unusable) else 1)
        os._exit(2)

    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert [] == list(run_dir.iterdir())


def test_security_md_says_what_is() -> None:
    """Each test and file that .github/SECURITY.md names exists, and the bounds in its table are those of the code."""
    text = (TOP / ".github" / "SECURITY.md").read_text()
    named = re.findall(r"`((?:tests|api|config|cli|adapters|core|flow)/[\w/.*]*)`", text)
    rows = {
        cells[1].partition(":")[0].strip(): cells[2].strip()
        for line in text.splitlines()
        if len(cells := line.split("|")) == 5
    }

    assert len(named) > 30
    assert [] == [one for one in named if not list(TOP.glob(one)) and not list((TOP / "bgpd").glob(one))]
    api = (server.BODY_LIMIT_BYTES, server.LINE_LIMIT_BYTES)
    assert (
        f"{api[0]:,} bytes; {api[1]:,} bytes; {server.REQUESTS_LIMIT}; {server.REQUEST_LIMIT_S:.0f} s; "
        f"{connections.CONNECTIONS_LIMIT}; {connections.HEADERS_LIMIT_S:.0f} s"
    ) == rows["API"]
    assert (
        f"{endpoint.BODY_LIMIT_BYTES:,} bytes; {endpoint.LINE_LIMIT_BYTES:,} bytes; "
        f"{metrics.SCRAPES_LIMIT}, {page.REQUESTS_LIMIT}, {page.STREAMS_LIMIT}; "
        f"{connections.CONNECTIONS_LIMIT}; {connections.HEADERS_LIMIT_S:.0f} s"
    ) == rows["metrics and page"]
    assert (
        f"{FILE_LIMIT_BYTES >> 20} MiB; {VALUE_LIMIT_CHARS:,} characters"
        == rows["configuration; one variable of the environment"]
    )
    assert rows["file of resources; depth; values; report of IPAM"].startswith(
        f"{manifest.BYTES_MAX >> 20} MiB; {manifest.DEPTH_MAX}; {manifest.VALUES_MAX:,}; "
    )
    assert f"{PASSWORD_BYTES} bytes" == rows["password"]


def test_a_huge_message_of_the_broker_is_no_message() -> None:
    """What is larger than any message of ours is not decoded, whoever put it on our topic."""
    assert decoded("bgpd/c/n/events", b" " * (PAYLOAD_LIMIT_BYTES + 1)) is None


def test_the_socket_cannot_be_squatted(run_dir: Path) -> None:
    """A file that is no socket, in the socket's place, is not taken away."""
    (run_dir / "s").write_text("somebody's")

    with pytest.raises(SocketUnusable, match="is not a socket"):
        asyncio.run(Server(FakeViews(), run_dir / "s").start())

    assert "somebody's" == (run_dir / "s").read_text()
    with sockets.socket(sockets.AF_UNIX) as one, pytest.raises(ConnectionRefusedError):
        one.connect(str(run_dir / "s"))
