"""The HTTP endpoint that Prometheus scrapes.

Laws: a scrape is bounded in number and time; nothing but ``/metrics`` is served.
"""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from bgpd.adapters.prometheus import CONTENT_TYPE, Endpoint
from bgpd.api.endpoint import HttpEndpoint

PATH = "/metrics"
SCRAPES_LIMIT = 4
"""Scrapes in progress at once: two Prometheus servers and somebody who looks."""


class MetricsServer(HttpEndpoint):
    """Owns how many scrapes are in progress."""

    def __init__(self, endpoint: Endpoint, render: Callable[[], bytes]) -> None:
        super().__init__("metrics", endpoint)
        self._render = render
        self._scrapes = 0
        self.application.router.add_get(PATH, self._metrics)

    async def _metrics(self, _request: web.Request) -> web.Response:
        if self._scrapes >= SCRAPES_LIMIT:
            return web.Response(status=503, text="too many scrapes at once\n")
        self._scrapes += 1
        try:
            return web.Response(body=self._render(), headers={"Content-Type": CONTENT_TYPE})
        finally:
            self._scrapes -= 1
