"""What of the configuration is exchanged while the daemon runs, and how.

Laws: what can fail (a password, a port) comes first, and then nothing is exchanged; what has not changed is not touched, so that a
reload of a file as it was costs no connection and no decision.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, NamedTuple

from bgpd.adapters import log
from bgpd.adapters.secrets import Unfit
from bgpd.api.endpoint import Unusable
from bgpd.api.metrics import MetricsServer
from bgpd.api.protocol import Refused
from bgpd.config.schema import Config, LogLevel
from bgpd.config.values import merged
from bgpd.daemon.events import Telling
from bgpd.daemon.part import Part, Work
from bgpd.model.event import Configured

TAKEN: Final = frozenset(
    {
        *("node", "peer", "bgp", "announce", "fallback", "ecmp", "decision", "startup"),  # the core's, by Configured
        *("check", "kernel", "collect", "metrics", "mqtt", "log"),
    }
)
"""Sections that :meth:`Live.take` looks at; what of them waits for the next start, and all others, is in config/values.py."""


class Makers(NamedTuple):
    """How each part is made of a configuration. *telling* and *exporter* raise Unfit."""

    configured: Callable[[Configured], Awaitable[None]]
    node: Callable[[Config], Work]
    """Writes the Node resource; its first writing is the daemon's business."""
    health: Callable[[Config], Work]
    collection: Callable[[Config], Work]
    comparison: Callable[[Config], Work]
    telling: Callable[[Config], Telling | None]
    exporter: Callable[[Config], MetricsServer | None]


class Live:
    """Owns the parts that a reload exchanges."""

    def __init__(self, config: Config, makers: Makers) -> None:
        """*config* is as found at start: with the node's address and the table. Raises Unfit."""
        self._config = config
        self._makers = makers
        self._wished_level = LogLevel.AUTO.value
        """What the cluster says (BGPConfiguration logSeverityScreen), for a file that leaves it to that."""
        self.telling = makers.telling(config)
        self._exporter = makers.exporter(config)
        self._node = Part(_nothing)
        self._health = Part(makers.health(config))
        self._collection = Part(makers.collection(config))
        self.comparison = Part(makers.comparison(config))
        """Runs beside the kernel's monitor, while that is open."""
        self._teller = Part(self._told())

    async def open(self) -> None:
        """Listen for scrapes. Raises Unusable."""
        if self._exporter is not None:
            await self._exporter.start()

    async def close(self) -> None:
        if self._exporter is not None:
            await self._exporter.stop()

    def works(self) -> list[Coroutine[Any, Any, None]]:
        """Return what runs as long as the daemon, beside the comparison."""
        return [part.run() for part in (self._node, self._health, self._collection, self._teller)]

    async def take(self, wanted: Config) -> None:
        """Take over what differs. Raises Refused; then all is as before."""
        before, config = self._config, merged(self._config, wanted)
        try:
            telling = self.telling if config.mqtt == before.mqtt else self._makers.telling(config)
            exporter = self._makers.exporter(config)
        except Unfit as error:
            raise Refused(str(error)) from error
        if config.metrics != before.metrics or config.metrics.certificate is not None:  # its file may be a new one
            await self._listen(exporter)
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

    async def _listen(self, exporter: MetricsServer | None) -> None:
        """Serve scrapes by *exporter* instead; both may want the same port, so the present one stops first."""
        before, self._exporter = self._exporter, None
        if before is not None:
            await before.stop()
        try:
            if exporter is not None:
                await exporter.start()
        except Unusable as error:
            if before is not None:
                await before.start()
            self._exporter = before
            raise Refused(str(error)) from error
        self._exporter = exporter

    def _told(self) -> Work:
        return _nothing if self.telling is None else self.telling.run


async def _nothing() -> None:
    """There is nothing to do."""
