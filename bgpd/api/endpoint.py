"""An HTTP endpoint on TCP that only reads: off unless a port is configured, with TLS and a password on wish.

Laws: a wrong password costs as much time as a right one; without a password only names of this very host are answered on a loopback
address, so that a page of somebody else's cannot read it through the browser of whoever looks (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import hmac
import ssl
from collections.abc import Awaitable, Callable
from ipaddress import ip_address

from aiohttp import BasicAuth, web

from bgpd.adapters.prometheus import Endpoint
from bgpd.api.connections import HEADERS_LIMIT_S, Connections, connected

BODY_LIMIT_BYTES = 1024
"""Of a request: none has a body."""
LINE_LIMIT_BYTES = 8190
"""Of the request line and of each header: browsers send long ones."""
IDLE_LIMIT_S = 75.0
"""A kept connection without a request: longer than the usual scrape interval of 60 s."""
STOP_LIMIT_S = 1.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Unusable(Exception):  # noqa: N818 - named for what the caller is told
    """The endpoint cannot be opened as configured; the message says why and how to mend it. Trying again does not help."""


class HttpEndpoint:
    """Owns the listening socket. *section* of the configuration is named where it cannot be opened."""

    def __init__(self, section: str, endpoint: Endpoint) -> None:
        self._section = section
        self._endpoint = endpoint
        self._runner: web.AppRunner | None = None
        self._listener: asyncio.Server | None = None
        self._connections: Connections | None = None
        self._ending = asyncio.Event()
        self.application = web.Application(client_max_size=BODY_LIMIT_BYTES, middlewares=[self._admit])

    @property
    def ending(self) -> asyncio.Event:
        """Set when an answer without end is to end."""
        return self._ending

    async def start(self) -> None:
        """Listen, also again after a stop. Raises Unusable."""
        endpoint = self._endpoint
        self._ending.clear()
        self._runner, connections = await connected(
            self.application, idle_s=IDLE_LIMIT_S, stop_s=STOP_LIMIT_S, line_bytes=LINE_LIMIT_BYTES
        )
        self._connections = connections
        try:
            tls = self._tls()
            self._listener = await asyncio.get_running_loop().create_server(
                connections,
                endpoint.address,
                endpoint.port,
                ssl=tls,
                ssl_handshake_timeout=HEADERS_LIMIT_S if tls is not None else None,
            )
        except OSError as error:
            await self.stop()
            where = f"{endpoint.address} port {endpoint.port}"
            raise Unusable(
                f"{self._section}: cannot listen on {where}: {error.strerror}; choose another in [{self._section}]"
            ) from error

    async def stop(self) -> None:
        self._ending.set()
        if self._listener is not None:
            self._listener.close()
        if self._runner is not None:
            await self._runner.cleanup()
        self._runner = None

    @web.middleware
    async def _admit(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if self._connections is not None:
            self._connections.spoke(request)
        if not self._may(request):
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="bgpd"'})
        if not self._is_for_us(request):
            return web.Response(status=421, text="ask for this host by its address or as localhost\n")
        return await handler(request)

    def _may(self, request: web.Request) -> bool:
        if self._endpoint.password is None:
            return True
        try:
            given = BasicAuth.decode(request.headers.get("Authorization", ""))
        except ValueError:
            return False
        user = hmac.compare_digest(given.login.encode(), self._endpoint.user.encode())
        password = hmac.compare_digest(given.password.encode(), self._endpoint.password.reveal())
        return user and password

    def _is_for_us(self, request: web.Request) -> bool:
        """Whether the name asked for cannot be somebody else's that leads here."""
        if self._endpoint.password is not None:
            return True
        host = request.url.host or ""
        try:
            ip_address(host)
        except ValueError:
            return host == "localhost" or not ip_address(self._endpoint.address).is_loopback
        return True

    def _tls(self) -> ssl.SSLContext | None:
        endpoint = self._endpoint
        if endpoint.certificate is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(endpoint.certificate, endpoint.key)
        except (OSError, ssl.SSLError) as error:
            raise Unusable(
                f"{self._section}: certificate {endpoint.certificate} or its key cannot be used: {error}"
            ) from error
        return context
