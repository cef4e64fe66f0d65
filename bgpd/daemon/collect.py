"""The daemon's part in collection: standing for collector, and saying which addresses this node has a trace of.

Saying so is opted into (``collect.workloads``): an address is then given back whose workload left without releasing it, which
is right only where every workload's address has a route of its own, is on a link of the host, or on the host itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from bgpd.adapters.store import keys
from bgpd.adapters.store.base import Store, Transient
from bgpd.adapters.store.collect import collect, publish
from bgpd.adapters.store.elect import Election, Fenced
from bgpd.config.schema import CollectSection
from bgpd.core.ipam.census import PoolIndex
from bgpd.core.ipam.collect import Collector
from bgpd.core.pipeline import Pipeline
from bgpd.model.notice import Notice
from bgpd.model.prefix import Prefix

PUBLICATIONS_PER_GRACE = 3
"""Publications in a grace time: what has a trace at one of them is not collected."""
PUBLISH_LEAST_S = 1.0
"""Shortest time between two publications, whatever the grace time."""
RETRY_S = 5.0
"""Pause before a publication that the lost store did not take is tried again."""


class Collection:
    """Owns the node's candidacy and its publications."""

    def __init__(
        self, store: Store, pipeline: Pipeline, node: str, options: CollectSection, notice: Callable[[Notice], None]
    ) -> None:
        self._store = store
        self._pipeline = pipeline
        self._node = node
        self._options = options
        self._notice = notice

    async def run(self) -> None:
        """Take part, for ever; a node that does not publish any more takes back what it said."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._publish())
            if self._options.enabled:
                tasks.create_task(Election(self._store, keys.COLLECTOR, self._node).run(self._lead))

    async def _lead(self, store: Fenced) -> None:
        await collect(store, Collector(grace_s=self._options.grace_s), self._notice)

    async def _publish(self) -> None:
        pause_s = max(self._options.grace_s / PUBLICATIONS_PER_GRACE, PUBLISH_LEAST_S)
        while True:
            try:
                if not self._options.workloads:
                    await publish(self._store, self._node, None)
                    return
                facts = self._pipeline.state.facts
                if facts.kernel_synced and facts.store.synced_once:
                    await publish(self._store, self._node, self._traces())
                    await asyncio.sleep(pause_s)
                else:
                    await asyncio.sleep(PUBLISH_LEAST_S)
            except Transient:
                await asyncio.sleep(min(RETRY_S, pause_s))

    def _traces(self) -> list[Prefix]:
        """Return what leads to addresses of pools on this host or its links. O(routes of others), a few times in a grace time."""
        state = self._pipeline.state
        pools = tuple(state.facts.pools.values())
        index = PoolIndex(pools)
        return sorted(
            trace
            for trace in set(state.resolver.local())
            if index.of(trace.network, trace.length) is not None or any(trace.covers(pool.cidr) for pool in pools)
        )
