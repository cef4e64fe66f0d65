"""Bounds the connections of an HTTP server, whatever they want: how many there are, and how long one may say nothing.

aiohttp bounds the parts of a request and the idle time after one; a connection that never makes its first request it keeps for ever.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from aiohttp import web

CONNECTIONS_LIMIT: Final = 128
"""Connections at once: a browser makes six, a scrape or a command one; each costs some 20 KB and a file descriptor."""
HEADERS_LIMIT_S: Final = 15.0
"""For the first request of a connection to arrive with all its headers, and for the TLS handshake before it."""


class Connections:
    """What the event loop asks for the protocol of each connection; owns which of them have said nothing yet."""

    def __init__(self, server: web.Server, limit: int = CONNECTIONS_LIMIT, wait_s: float = HEADERS_LIMIT_S) -> None:
        self._server = server
        self._limit = limit
        self._wait_s = wait_s
        self._silent: set[int] = set()
        """By id: each is held by its timer until it is looked at."""

    def __call__(self) -> asyncio.Protocol:
        """Return the protocol of a new connection; one that ends it where there are too many."""
        speaking = sum(id(one) not in self._silent for one in self._server.connections)
        if speaking + len(self._silent) >= self._limit:
            return _Refused()
        protocol = self._server()
        self._silent.add(id(protocol))
        asyncio.get_running_loop().call_later(self._wait_s, self._look_at, protocol)
        return protocol

    def spoke(self, request: web.BaseRequest) -> None:
        """Take note that a connection has made a request; from now on aiohttp's own limits hold for it."""
        self._silent.discard(id(request.protocol))

    def _look_at(self, protocol: Any) -> None:
        if id(protocol) in self._silent:
            self._silent.discard(id(protocol))
            protocol.force_close()


class _Refused(asyncio.Protocol):
    """Ends a connection without a word: an answer would have to wait for a question."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


async def connected(
    application: web.Application, *, idle_s: float, stop_s: float, line_bytes: int
) -> tuple[web.AppRunner, Connections]:
    """Set *application* up, to be listened for: a connection waits *idle_s* for its next request, and *stop_s* at the end.

    The request line and each header have at most *line_bytes*.
    """
    runner = web.AppRunner(
        application,
        access_log=None,
        handle_signals=False,
        keepalive_timeout=idle_s,
        shutdown_timeout=stop_s,
        max_line_size=line_bytes,
        max_field_size=line_bytes,
    )
    await runner.setup()
    assert runner.server is not None
    return runner, Connections(runner.server)
