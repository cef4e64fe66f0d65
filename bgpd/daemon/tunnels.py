"""The daemon's tunnel addresses: settled at start, when a pool, the own Node or the WireGuard settings change, and now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from bgpd.adapters.store.base import Compacted, Store, Transient
from bgpd.adapters.store.keys import Malformed
from bgpd.adapters.store.tunnels import FELIX, Outcome, settle
from bgpd.model.event import Event, NodeChanged, PoolChanged, PoolRemoved, StoreSynced
from bgpd.model.notice import Notice

GATHER_S = 0.2
"""Changes within this time are settled together: a pool and what goes with it come one after the other."""
RETRY_S = 5.0
"""Pause after a pass that failed, or that left an address missing, doubled up to RETRY_MAX_S."""
RETRY_MAX_S = 60.0
AGAIN_S = 600.0
"""Longest time between two passes: what no event tells, such as an address released by hand, is mended by then."""


class Tunnels:
    """Owns what is missing, as it was told, and whether something changed since the last pass."""

    def __init__(self, store: Store, node: str, notice: Callable[[Notice], None]) -> None:
        self._store = store
        self._node = node
        self._notice = notice
        self._changed = asyncio.Event()
        self._told: dict[str, str] = {}

    def heard(self, event: Event) -> None:
        """Take note of an event of the store."""
        match event:
            case PoolChanged() | PoolRemoved() | StoreSynced():
                self._changed.set()
            case NodeChanged(node=node) if node.name == self._node:
                self._changed.set()
            case _:
                return

    async def run(self) -> None:
        """Settle, for ever; what fails is told once, and tried again."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch())
            pause_s = RETRY_S
            while True:
                self._changed.clear()
                settled = await self._settle()
                pause_s = RETRY_S if settled else min(2 * pause_s, RETRY_MAX_S)
                try:
                    async with asyncio.timeout(AGAIN_S if settled else pause_s):
                        await self._changed.wait()
                    await asyncio.sleep(GATHER_S)
                except TimeoutError:
                    continue

    async def _settle(self) -> bool:
        """Make one pass; return whether nothing is missing."""
        try:
            outcomes = await settle(self._store, self._node)
        except Transient:
            return False  # the loss of the store is told by who watches it
        except Malformed as error:
            self._tell("store", str(error))
            return False
        self._told.pop("store", None)
        for one in outcomes:
            self._notify(one)
        return not any(one.reason for one in outcomes)

    def _notify(self, outcome: Outcome) -> None:
        kind = outcome.kind.value
        if outcome.reason:
            self._tell(kind, outcome.reason)
            return
        self._told.pop(kind, None)
        if outcome.address is None:
            self._notice(Notice("tunnel.address_released", {"kind": kind}))
        else:
            self._notice(Notice("tunnel.address_assigned", {"kind": kind, "address": str(outcome.address)}))

    def _tell(self, kind: str, reason: str) -> None:
        """Tell what is missing, once."""
        if self._told.get(kind) != reason:
            self._told[kind] = reason
            self._notice(Notice("tunnel.address_missing", {"kind": kind, "reason": reason}))

    async def _watch(self) -> None:
        """Take note of changes of the WireGuard settings."""
        while True:
            try:
                async for _ in self._store.watch(FELIX, 0):
                    self._changed.set()
            except (Transient, Compacted):
                await asyncio.sleep(RETRY_S)
                self._changed.set()
