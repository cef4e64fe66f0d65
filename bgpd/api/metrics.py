"""The HTTP endpoint that Prometheus scrapes: read-only, off unless an address is configured, with TLS and a password on wish.

Laws: a scrape is bounded in number and time; a wrong password costs as much time as a right one; nothing but ``/metrics`` is served.
"""

from __future__ import annotations

import hmac
import ssl
from collections.abc import Callable

from aiohttp import BasicAuth, web

from bgpd.adapters.prometheus import CONTENT_TYPE, Endpoint

PATH = "/metrics"
BODY_LIMIT_BYTES = 1024
"""Of a request: a scrape has no body."""
SCRAPES_LIMIT = 4
"""Scrapes in progress at once: two Prometheus servers and somebody who looks."""
IDLE_LIMIT_S = 75.0
"""A kept connection without a request: longer than the usual scrape interval of 60 s."""
STOP_LIMIT_S = 1.0


class Unusable(Exception):  # noqa: N818 - named for what the caller is told
    """The endpoint cannot be opened as configured; the message says why and how to mend it. Trying again does not help."""


class MetricsServer:
    """Owns the listening socket."""

    def __init__(self, endpoint: Endpoint, render: Callable[[], bytes]) -> None:
        self._endpoint = endpoint
        self._render = render
        self._runner: web.AppRunner | None = None
        self._scrapes = 0

    async def start(self) -> None:
        """Listen. Raises Unusable."""
        application = web.Application(client_max_size=BODY_LIMIT_BYTES)
        application.router.add_get(PATH, self._metrics)
        runner = web.AppRunner(
            application,
            access_log=None,
            handle_signals=False,
            keepalive_timeout=IDLE_LIMIT_S,
            shutdown_timeout=STOP_LIMIT_S,
        )
        await runner.setup()
        self._runner = runner
        where = f"{self._endpoint.address} port {self._endpoint.port}"
        try:
            await web.TCPSite(
                runner, self._endpoint.address, self._endpoint.port, ssl_context=_tls(self._endpoint)
            ).start()
        except OSError as error:
            await self.stop()
            raise Unusable(
                f"metrics: cannot listen on {where}: {error.strerror}; choose another in [metrics]"
            ) from error

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        self._runner = None

    async def _metrics(self, request: web.Request) -> web.Response:
        if not self._may(request):
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="bgpd"'})
        if self._scrapes >= SCRAPES_LIMIT:
            return web.Response(status=503, text="too many scrapes at once\n")
        self._scrapes += 1
        try:
            return web.Response(body=self._render(), headers={"Content-Type": CONTENT_TYPE})
        finally:
            self._scrapes -= 1

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


def _tls(endpoint: Endpoint) -> ssl.SSLContext | None:
    if endpoint.certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(endpoint.certificate, endpoint.key)
    except (OSError, ssl.SSLError) as error:
        raise Unusable(f"metrics: certificate {endpoint.certificate} or its key cannot be used: {error}") from error
    return context
