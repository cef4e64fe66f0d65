"""The web page's server over real TCP: its files, its policy, who is let in, and the stream of events."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import aiohttp
import pytest

from bgpd.adapters.prometheus import Endpoint
from bgpd.adapters.secrets import Password
from bgpd.api.page import HEADERS, STREAMS_LIMIT, PageServer
from bgpd.api.server import Server
from bgpd.model.telling import EventView
from tests.api.fake import EVENTS, STATUS, FakeViews
from tests.api.test_metrics import free_port

pytestmark = pytest.mark.adapter

T = TypeVar("T")
WAIT_S = 30.0


@asynccontextmanager
async def page(folder: Path, views: FakeViews | None = None, port: int = 0, **more: object) -> AsyncIterator[str]:
    """Serve the page; gives its address."""
    port = port or free_port()
    endpoint = Endpoint(address="127.0.0.1", port=port, **more)  # type: ignore[arg-type]
    held = views or FakeViews()
    server = PageServer(endpoint, Server(held, folder / "s"), held)
    await server.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await asyncio.wait_for(server.stop(), WAIT_S)


def asked(folder: Path, body: Callable[[str, aiohttp.ClientSession], Awaitable[T]], **more: object) -> T:
    async def main() -> T:
        async with page(folder, **more) as url, aiohttp.ClientSession() as session:  # type: ignore[arg-type]
            return await asyncio.wait_for(body(url, session), WAIT_S)

    return asyncio.run(main())


def test_every_answer_tells_the_browser_to_be_strict(tmp_path: Path) -> None:
    """Scripts and styles of this server only, nothing inline, no frames, no guessing of types; errors too."""

    async def body(url: str, session: aiohttp.ClientSession) -> None:
        for path in ("/", "/app.js", "/style.css", "/icon.svg", "/v1/status", "/nothing", "/v1/explain"):
            async with session.get(url + path) as answer:
                assert HEADERS.items() <= dict(answer.headers).items(), path
        policy = HEADERS["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy

    asked(tmp_path, body)


def test_the_files_name_nobody_else(tmp_path: Path) -> None:
    """No address of another server, no inline script or style, no markup made of text."""

    async def body(url: str, session: aiohttp.ClientSession) -> None:
        for path in ("/", "/app.js", "/dom.js", "/map.js", "/style.css"):
            async with session.get(url + path) as answer:
                text = await answer.text()
            outside = text.replace("http://www.w3.org/2000/svg", "")
            assert "://" not in outside, path
            for word in (
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "<style",
                'style="',
                "onclick=",
            ):
                assert word not in outside, (path, word)

    asked(tmp_path, body)


def test_nothing_changes_through_the_page(tmp_path: Path) -> None:
    """What the socket takes as orders is not there; other methods are refused."""

    async def body(url: str, session: aiohttp.ClientSession) -> None:
        for path in ("/v1/refresh", "/v1/reset", "/v1/assign", "/v1/drain", "/v1/undrain", "/v1/fib/diff"):
            async with session.post(url + path, json={}) as answer:
                assert 404 == answer.status, path
        for path in ("/", "/v1/status", "/v1/routes"):
            async with session.post(url + path) as answer:
                assert 405 == answer.status, path

    asked(tmp_path, body)


def test_files_are_sent_once(tmp_path: Path) -> None:
    """A browser that has a file is told so."""

    async def body(url: str, session: aiohttp.ClientSession) -> None:
        async with session.get(f"{url}/app.js") as answer:
            tag = answer.headers["ETag"]
        async with session.get(f"{url}/app.js", headers={"If-None-Match": tag}) as answer:
            assert 304 == answer.status

    asked(tmp_path, body)


def test_a_name_of_somebody_else_is_refused(tmp_path: Path) -> None:
    """Without a password a page of a name that leads here (DNS rebinding) reads nothing; localhost and addresses do."""

    async def body(url: str, session: aiohttp.ClientSession) -> list[int]:
        found = []
        for host in ("127.0.0.1:9180", "localhost:9180", "[::1]:9180", "evil.example:9180", "localhost.evil.example"):
            async with session.get(f"{url}/v1/status", headers={"Host": host}) as answer:
                found.append(answer.status)
        return found

    assert [200, 200, 200, 421, 421] == asked(tmp_path, body)


def test_a_password_keeps_the_page_shut(tmp_path: Path) -> None:
    """With a password every path asks for it, the stream and the files too."""

    async def body(url: str, session: aiohttp.ClientSession) -> None:
        for path in ("/", "/app.js", "/v1/status", "/v1/stream"):
            async with session.get(url + path) as answer:
                assert 401 == answer.status
                assert "Basic" in answer.headers["WWW-Authenticate"]
            right = base64.b64encode(b"operator:right").decode()
            async with session.get(url + path, headers={"Authorization": f"Basic {right}"}) as answer:
                assert 200 == answer.status

    asked(tmp_path, body, user="operator", password=Password(b"right"))


async def read_events(answer: aiohttp.ClientResponse, many: int) -> list[tuple[str, EventView]]:
    found: list[tuple[str, EventView]] = []
    number = ""
    while len(found) < many:
        line = (await answer.content.readline()).decode().strip()
        if line.startswith("id: "):
            number = line.removeprefix("id: ")
        elif line.startswith("data: "):
            found.append((number, json.loads(line.removeprefix("data: "))))
    return found


def test_the_stream_goes_on_where_a_browser_left_it(tmp_path: Path) -> None:
    """Each event has the number of this life of the daemon; whoever comes back with one gets what follows it, with another's all."""

    async def body(url: str, session: aiohttp.ClientSession) -> None:
        async with session.get(f"{url}/v1/stream") as answer:
            assert "text/event-stream" == answer.content_type
            all_of_them = await read_events(answer, len(EVENTS))
        assert [f"{int(STATUS.started)}.{event.sequence}" for event in EVENTS] == [number for number, _ in all_of_them]
        async with session.get(f"{url}/v1/stream", headers={"Last-Event-ID": all_of_them[0][0]}) as answer:
            assert all_of_them[1:] == await read_events(answer, len(EVENTS) - 1)
        async with session.get(f"{url}/v1/stream", headers={"Last-Event-ID": "17.99"}) as answer:
            assert all_of_them == await read_events(answer, len(EVENTS))

    asked(tmp_path, body)


def test_streams_are_bounded_and_end_with_the_daemon(tmp_path: Path) -> None:
    """One browser too many is told so; open streams do not hold up the end of the daemon."""

    async def main() -> list[int]:
        async with aiohttp.ClientSession() as session:
            async with page(tmp_path) as url:
                answers = [await session.get(f"{url}/v1/stream") for _ in range(STREAMS_LIMIT + 1)]
            for answer in answers:
                answer.close()
        return [answer.status for answer in answers]

    assert [200] * STREAMS_LIMIT + [503] == asyncio.run(main())


def test_nodes_and_pages_of_routes_are_answered(tmp_path: Path) -> None:
    """Pages follow each other without a gap; a bad query is one sentence and status 400."""

    async def body(url: str, session: aiohttp.ClientSession) -> None:
        async with session.get(f"{url}/v1/nodes") as answer:
            assert ["node1", "node2", "node3", "node4"] == [node["name"] for node in await answer.json()]
        seen, after = [], None
        while True:
            query = {"limit": "2", **({"after": after} if after else {})}
            async with session.get(f"{url}/v1/route-page", params=query) as answer:
                found = await answer.json()
            seen += [row["prefix"] for row in found["rows"]]
            after = found["next"]
            if after is None:
                break
        assert found["total"] == len(seen) == len(set(seen))
        for bad in ("v1/route-page?limit=0", "v1/route-page?limit=x", "v1/pools?blocks=some"):
            async with session.get(f"{url}/{bad}") as answer:
                assert 400 == answer.status
                assert (await answer.json())["error"]

    asked(tmp_path, body)
