"""What of the configuration is exchanged while the daemon runs, and how.

Laws: what can fail (a password, a port) comes first, and then nothing is exchanged; what has not changed is not touched, so that a
reload of a file as it was costs no connection and no decision.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final, NamedTuple

from bgpd.adapters import log
from bgpd.adapters.secrets import Unfit
from bgpd.api.endpoint import HttpEndpoint, Unusable
from bgpd.api.protocol import Refused
from bgpd.config.schema import Config, LogLevel
from bgpd.config.values import merged
from bgpd.daemon.events import Telling
from bgpd.daemon.part import Part, Work
from bgpd.model.event import Configured

TAKEN: Final = frozenset(
    {
        *("node", "peer", "bgp", "announce", "fallback", "ecmp", "decision", "startup"),  # the core's, by Configured
        *("check", "kernel", "collect", "metrics", "web", "mqtt", "log"),
    }
)
"""Sections that :meth:`Live.take` looks at; what of them waits for the next start, and all others, is in config/values.py."""


Serving = Callable[[Config], HttpEndpoint | None]
"""Makes what listens, not yet started; None: it is off. Raises Unfit."""


class Makers(NamedTuple):
    """How each part is made of a configuration. *telling* and *exporter* raise Unfit."""

    configured: Callable[[Configured], Awaitable[None]]
    node: Callable[[Config], Work]
    """Writes the Node resource; its first writing is the daemon's business."""
    health: Callable[[Config], Work]
    collection: Callable[[Config], Work]
    comparison: Callable[[Config], Work]
    telling: Callable[[Config], Telling | None]
    exporter: Serving


class Live:
    """Owns the parts that a reload exchanges."""

    def __init__(self, config: Config, makers: Makers) -> None:
        """*config* is as found at start: with the node's address and the table. Raises Unfit."""
        self._config = config
        self._makers = makers
        self._wished_level = LogLevel.AUTO.value
        """What the cluster says (BGPConfiguration logSeverityScreen), for a file that leaves it to that."""
        self.telling = makers.telling(config)
        self._serving: dict[str, Serving] = {"metrics": makers.exporter}
        self._served: dict[str, HttpEndpoint] = {}
        """What listens now, by section; one that is off is not there."""
        self._node = Part(_nothing)
        self._health = Part(makers.health(config))
        self._collection = Part(makers.collection(config))
        self.comparison = Part(makers.comparison(config))
        """Runs beside the kernel's monitor, while that is open."""
        self._teller = Part(self._told())

    async def open(self, page: Serving) -> None:
        """Listen for scrapes and for browsers, by *page*. Raises Unfit and Unusable."""
        self._serving["web"] = page
        for section, make in self._serving.items():
            endpoint = make(self._config)
            if endpoint is not None:
                await endpoint.start()
                self._served[section] = endpoint

    async def close(self) -> None:
        for endpoint in self._served.values():
            await endpoint.stop()

    def works(self) -> list[Coroutine[Any, Any, None]]:
        """Return what runs as long as the daemon, beside the comparison."""
        return [part.run() for part in (self._node, self._health, self._collection, self._teller)]

    async def take(self, wanted: Config) -> None:
        """Take over what differs. Raises Refused; then all is as before."""
        before, config = self._config, merged(self._config, wanted)
        try:
            telling = self.telling if config.mqtt == before.mqtt else self._makers.telling(config)
            endpoints = {
                section: make(config)
                for section, make in self._serving.items()
                if (options := getattr(config, section)) != getattr(before, section)
                or options.certificate is not None  # whose file may be a new one, and so may
                or options.password is not None
            }
        except Unfit as error:
            raise Refused(str(error)) from error
        await self._listen(endpoints)
        self._config = config
        if telling is not self.telling:
            self.telling = telling
            self._teller.exchange(self._told())
        self._set_level()
        if config.check != before.check:
            self._health.exchange(self._makers.health(config))
        if config.collect != before.collect:
            self._collection.exchange(self._makers.collection(config))
        if config.kernel != before.kernel:
            self.comparison.exchange(self._makers.comparison(config))
        if config.node != before.node:
            self._node.exchange(self._makers.node(config))
        if (configured := config.configured()) != before.configured():
            await self._makers.configured(configured)

    def wish_level(self, level: str) -> None:
        """Take note of the log level that the cluster wants; the node's file stands before it."""
        self._wished_level = level
        self._set_level()

    def _set_level(self) -> None:
        level = self._wished_level if self._config.log.level is LogLevel.AUTO else self._config.log.level.value
        log.set_level("info" if level == LogLevel.AUTO else level)

    async def _listen(self, endpoints: Mapping[str, HttpEndpoint | None]) -> None:
        """Serve by *endpoints* instead, or by none; a new one may want the port of one before, so those stop first."""
        before = {section: self._served.pop(section) for section in endpoints if section in self._served}
        for old in before.values():
            await old.stop()
        started: list[HttpEndpoint] = []
        try:
            for endpoint in endpoints.values():
                if endpoint is not None:
                    await endpoint.start()
                    started.append(endpoint)
        except Unusable as error:
            for new in started:
                await new.stop()
            for old in before.values():
                await old.start()
            self._served |= before
            raise Refused(str(error)) from error
        self._served |= {section: endpoint for section, endpoint in endpoints.items() if endpoint is not None}

    def _told(self) -> Work:
        return _nothing if self.telling is None else self.telling.run


async def _nothing() -> None:
    """There is nothing to do."""
