"""The web page: files of ``web/``, what the API shows read-only, and a stream of events (server-sent events, HTML section 9.2).

Laws: nothing changes through it; the browser runs the scripts that came with bgpd and no others, and talks to nobody else (the policy
below); each stream and their number are bounded, and a browser that does not read is let go.
"""

from __future__ import annotations

import asyncio
import hashlib
from importlib.resources import files

import msgspec
from aiohttp import web

from bgpd.adapters.prometheus import Endpoint
from bgpd.api import protocol
from bgpd.api.endpoint import Handler, HttpEndpoint
from bgpd.api.server import Server

STREAMS_LIMIT = 16
"""Browsers that follow the events at once."""
REQUESTS_LIMIT = 16
"""Questions in progress at once; a page asks up to six."""
REQUEST_LIMIT_S = 30.0
BEAT_S = 5.0
"""A sign of life in a silent stream, so that both sides notice a lost connection."""
WRITE_LIMIT_S = 15.0
"""A browser that takes nothing for so long is let go; it comes back by itself and says what it had."""
RETRY_MS = 2000
"""A browser that lost its stream waits so long."""

TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


class PageServer(HttpEndpoint):
    """Owns the files of the page, in memory, and how many browsers follow."""

    def __init__(self, endpoint: Endpoint, api: Server, views: protocol.Views) -> None:
        super().__init__("web", endpoint)
        self._views = views
        self._streams = 0
        self._requests = 0
        self._files = {
            f"/{file.name}": file.read_bytes()
            for file in (files("bgpd.api") / "web").iterdir()
            if f".{file.name.rpartition('.')[2]}" in TYPES
        }
        self._tags = {path: f'"{hashlib.sha256(body).hexdigest()[:16]}"' for path, body in self._files.items()}
        router = self.application.router
        router.add_get("/", self._file)
        for path in self._files:
            router.add_get(path, self._file)
        router.add_get(protocol.STREAM, self._stream)
        for path, handler in api.reading().items():
            router.add_get(path, self._bounded(handler))
        self.application.on_response_prepare.append(_guard)

    async def _file(self, request: web.Request) -> web.Response:
        path = "/index.html" if request.path == "/" else request.path
        tag = self._tags[path]
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304, headers={"ETag": tag})
        kind = TYPES[f".{path.rpartition('.')[2]}"]
        return web.Response(body=self._files[path], headers={"ETag": tag}, content_type=kind, charset="utf-8")

    def _bounded(self, handler: Handler) -> Handler:
        """Bound how many questions are answered at once, and the time of each: apart from those on the socket, which the operator needs."""

        async def bounded(request: web.Request) -> web.StreamResponse:
            if self._requests >= REQUESTS_LIMIT:
                return web.Response(status=503, text="too many questions at once; ask again in a moment\n")
            self._requests += 1
            try:
                async with asyncio.timeout(REQUEST_LIMIT_S):
                    return await handler(request)
            finally:
                self._requests -= 1

        return bounded

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        if self._streams >= STREAMS_LIMIT:
            return web.Response(status=503, text="too many browsers follow already\n")
        self._streams += 1
        try:
            return await self._follow(request)
        finally:
            self._streams -= 1

    async def _follow(self, request: web.Request) -> web.StreamResponse:
        """Send the events that the browser has not seen, then what comes, until it goes or we end."""
        life = str(int(self._views.status().started))
        known, _, seen = request.headers.get("Last-Event-ID", "").partition(".")
        after = int(seen) if known == life and seen.isdecimal() else 0
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        part = f"retry: {RETRY_MS}\n\n"
        try:
            while not self.ending.is_set():
                async with asyncio.timeout(WRITE_LIMIT_S):
                    await response.write(part.encode())
                part = ": still here\n\n"
                for event in await self._views.events(after, BEAT_S):
                    after = event.sequence
                    text = msgspec.json.encode(event).decode()
                    part = f"{'' if part.startswith(':') else part}id: {life}.{after}\ndata: {text}\n\n"
        except (ConnectionError, TimeoutError):
            pass  # the browser went, or reads nothing: it asks again
        return response


async def _guard(_request: web.Request, response: web.StreamResponse) -> None:
    """Add what tells the browser to be strict."""
    response.headers.update(HEADERS)
