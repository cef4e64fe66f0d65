"""Health checks against real commands, ports and HTTP servers."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Callable

import pytest
from aiohttp import web

from bgpd.adapters.health import Health, probe
from bgpd.model.event import Event, HealthChanged
from bgpd.model.health import HealthCheck
from bgpd.model.prefix import Address

pytestmark = pytest.mark.adapter

LOCAL = Address.parse("127.0.0.1")
DEADLINE_S = 30.0


def command(*words: str, timeout_s: float = 20.0) -> HealthCheck:
    return HealthCheck(name="c", command=(sys.executable, "-c", *words), timeout_s=timeout_s)


def test_command_passes_with_status_zero() -> None:
    """Exit status 0 passes; another, a command that is not there and one that takes too long do not, each by its reason."""

    async def main() -> list[str]:
        missing = HealthCheck(name="c", command=("/no/such/command",), timeout_s=20.0)
        endless = command("import time; time.sleep(600)", timeout_s=0.3)
        return [await probe(one) for one in (command(""), command("raise SystemExit(3)"), missing, endless)]

    started = time.monotonic()
    passed, failed, missing, endless = asyncio.run(main())

    assert passed == ""
    assert failed.endswith("ended with status 3")
    assert missing == "/no/such/command cannot be run: No such file or directory"
    assert endless == "no answer within 0.3 s"
    assert time.monotonic() - started < DEADLINE_S


def test_tcp_passes_where_a_connection_is_accepted() -> None:
    """A listening port passes, a closed one is refused."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        open_port = HealthCheck(name="t", tcp=(LOCAL, port), timeout_s=20.0)
        assert asyncio.run(probe(open_port)) == ""
    assert asyncio.run(probe(open_port)) == f"127.0.0.1 port {port}: Connection refused"


def test_http_passes_below_400() -> None:
    """Success and redirection pass, an error's status is the reason, silence ends with the time-out."""

    async def main() -> dict[str, str]:
        async def answer(request: web.Request) -> web.Response:
            if request.path == "/silent":
                await asyncio.sleep(5)
            return web.Response(status=int(request.path[1:]) if request.path[1:].isdecimal() else 200)

        application = web.Application()
        application.router.add_get("/{code}", answer)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        found = {}
        for path, timeout_s in (("200", 20.0), ("302", 20.0), ("503", 20.0), ("silent", 0.2)):
            found[path] = await probe(HealthCheck(name="h", url=f"{url}/{path}", timeout_s=timeout_s))
        await runner.cleanup()
        return {path: reason.replace(url, "") for path, reason in found.items()}

    found = asyncio.run(main())

    assert found == {
        "200": "",
        "302": "",
        "503": "/503 answers 503 Service Unavailable",
        "silent": "no answer within 0.2 s",
    }


def test_verdicts_follow_a_service_that_comes_and_goes() -> None:
    """The first probe tells at once; a service that dies and comes back is told once each, after fall and rise."""

    async def main() -> list[Event]:
        told: list[Event] = []

        async def deliver(event: Event) -> None:
            told.append(event)

        server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        check = HealthCheck(name="t", tcp=(LOCAL, port), interval_s=0.02, timeout_s=20.0, rise=2, fall=2)
        running = asyncio.create_task(Health((check,), deliver).run())
        await until(lambda: len(told) == 1)
        server.close()
        await server.wait_closed()
        await until(lambda: len(told) == 2)
        again = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", port)
        await until(lambda: len(told) == 3)
        running.cancel()
        again.close()
        await asyncio.gather(running, again.wait_closed(), return_exceptions=True)
        return told

    told = asyncio.run(main())

    assert [(one.check, one.healthy) for one in told if isinstance(one, HealthChanged)] == [
        ("t", True),
        ("t", False),
        ("t", True),
    ]


async def until(holds: Callable[[], bool]) -> None:
    """Poll until a condition holds."""
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def test_no_checks_end_at_once() -> None:
    """Without checks there is no task to run."""

    async def deliver(_event: Event) -> None:
        raise AssertionError

    async def main() -> None:
        await asyncio.wait_for(Health((), deliver).run(), DEADLINE_S)

    asyncio.run(main())
