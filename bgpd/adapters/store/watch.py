"""The store as a source of events: everything that decisions need of it, read once and then watched.

Laws: an event says that a value differs from the one delivered before, so reading anew after an outage repeats nothing
and misses no removal; a value that cannot be read keeps its last good meaning and is told once; the store's loss is
told once, and its return by StoreSynced after everything was read. Workloads, of which a cluster has many, are read
only where a BGPPeer asks for them, and only those of our own node are told. Only the caller ends the watching (by cancelling
it); what is not Transient or Compacted ends the process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import assert_never

from bgpd.adapters.store import keys
from bgpd.adapters.store.base import Change, Compacted, Store, StoreError, Transient, read_all
from bgpd.adapters.store.keys import Malformed
from bgpd.adapters.store.records import (
    affinity_from,
    bgp_configuration_from,
    bgp_filter_from,
    bgp_peer_from,
    block_from,
    block_view,
    felix_configuration_from,
    node_from,
    pool_from,
    workload_from,
)
from bgpd.model.event import (
    AffinityChanged,
    AffinityRemoved,
    BgpConfigurationChanged,
    BgpConfigurationRemoved,
    BgpFilterChanged,
    BgpFilterRemoved,
    BgpPeerChanged,
    BgpPeerRemoved,
    BlockChanged,
    BlockRemoved,
    Event,
    FelixConfigurationChanged,
    FelixConfigurationRemoved,
    NodeAlive,
    NodeChanged,
    NodeDead,
    NodeRemoved,
    PoolChanged,
    PoolRemoved,
    StoreLost,
    StoreSynced,
    WorkloadChanged,
    WorkloadRemoved,
)
from bgpd.model.notice import Notice

PREFIXES = (
    keys.POOLS,
    keys.BGP_CONFIGURATIONS,
    keys.BGP_FILTERS,
    keys.BGP_PEERS,
    keys.FELIX_CONFIGURATIONS,
    keys.NODES,
    keys.OUR_NODES,
    keys.HOSTS,
    keys.BLOCKS,
)
"""What is read and watched; upstream first, so that early decisions have few gaps. Handles are not: there are as many
as workloads in the cluster, and no decision needs them."""
BACKOFF_FIRST_S = 0.1
"""Pause before the first attempt to reach a lost store: a restarting server is back in about that time."""
BACKOFF_MAX_S = 0.4
"""Longest pause between attempts: changes are to be seen within a second of the store's return. An attempt at etcd lasts
seconds by itself (OPERATION_S), and one at a file costs a system call."""


class _Wider(StoreError):  # noqa: N818 - named by what the caller does about it
    """A BGPPeer asks for workloads, which are not read yet: read again, with them."""


class StoreSource:
    """Owns the last delivered event of each key, which keys are unreadable, and whether the store is lost."""

    def __init__(
        self,
        store: Store,
        deliver: Callable[[Event], Awaitable[None]],
        notice: Callable[[Notice], None],
        node: str = "",
    ) -> None:
        """*node*: ours, whose workloads are told."""
        self._store = store
        self._deliver = deliver
        self._notice = notice
        self._known: dict[str, Event] = {}
        """The event that tells the present value of each key."""
        self._unreadable: dict[str, int] = {}
        """Revision of each key that was told to be malformed."""
        self._lost = False
        self._node = node
        self._asking: set[str] = set()
        """BGPPeers that ask for workloads."""
        self._prefixes: tuple[str, ...] = PREFIXES
        """What is read and watched now."""

    async def run(self) -> None:
        """Read, then watch, for ever; bounded back-off while the store cannot be read."""
        pause_s = 0.0
        while True:
            try:
                revision = await self._read()
                self._lost = False
                await self._deliver(StoreSynced())
                pause_s = 0.0
                await self._watch(revision + 1)
            except _Wider:
                pass
            except Compacted as error:
                self._notice(Notice("store.compacted", {"compact_revision": error.compact_revision}))
            except Transient as error:
                pause_s = max(pause_s, BACKOFF_FIRST_S)
                if not self._lost:
                    self._lost = True
                    await self._deliver(StoreLost(error.reason))
            # The first reading after a compaction is made at once; if writers outrun it again, it waits as well.
            await asyncio.sleep(pause_s)
            pause_s = min(max(2 * pause_s, BACKOFF_FIRST_S), BACKOFF_MAX_S)

    async def _read(self) -> int:
        """Deliver what differs from what is known; return the revision of which everything was read."""
        revision = (await self._store.range(PREFIXES[0], limit=1)).revision
        seen: set[str] = set()
        self._prefixes = PREFIXES
        for prefix in PREFIXES:
            await self._read_prefix(prefix, revision, seen)
        if self._asking:
            self._prefixes = (*PREFIXES, keys.WORKLOADS)
            await self._read_prefix(keys.WORKLOADS, revision, seen)
        for key in [key for key in self._known if key not in seen]:
            await self._handle(Change(key, None, revision))
        for key in [key for key in self._unreadable if key not in seen]:
            del self._unreadable[key]
        return revision

    async def _read_prefix(self, prefix: str, revision: int, seen: set[str]) -> None:
        async for item in read_all(self._store, prefix, revision):
            seen.add(item.key)
            await self._handle(Change(item.key, item.value, item.mod_revision))

    async def _watch(self, revision: int) -> None:
        """Watch all prefixes at once until one of them fails; raises what it raised."""
        failures: list[StoreError] = []
        try:
            async with asyncio.TaskGroup() as group:
                for prefix in self._prefixes:
                    group.create_task(self._watch_prefix(prefix, revision))
        except* StoreError as raised:
            failures.extend(error for error in raised.exceptions if isinstance(error, StoreError))
        # Reading anew answers a compaction as well, so a lost store is the one to tell.
        raise next((error for error in failures if not isinstance(error, Compacted | _Wider)), failures[0])

    async def _watch_prefix(self, prefix: str, revision: int) -> None:
        async for _, changes in self._store.watch(prefix, revision):
            for change in changes:
                await self._handle(change)
                if self._asking and keys.WORKLOADS not in self._prefixes:
                    raise _Wider

    async def _handle(self, change: Change) -> None:
        try:
            event = self._event(change)
        except Malformed as error:
            if change.value is None:
                self._unreadable.pop(change.key, None)
            elif self._unreadable.get(change.key) != change.mod_revision:
                self._unreadable[change.key] = change.mod_revision
                self._notice(Notice("record.skipped", {"key": error.key, "defect": error.defect}))
            return
        self._unreadable.pop(change.key, None)
        before = self._known.get(change.key)
        if event is None or event == before or (change.value is None and before is None):
            return
        # Known only once delivered: a cancelled delivery is repeated by the next reading.
        await self._deliver(event)
        if isinstance(event, BgpPeerChanged | BgpPeerRemoved):
            self._asks(event)
        if change.value is None:
            del self._known[change.key]
        else:
            self._known[change.key] = event

    def _asks(self, event: BgpPeerChanged | BgpPeerRemoved) -> None:
        if isinstance(event, BgpPeerChanged) and event.peer.workload_selector and self._node:
            self._asking.add(event.peer.name)
        else:
            self._asking.discard(event.peer.name if isinstance(event, BgpPeerChanged) else event.name)

    def _event(self, change: Change) -> Event | None:
        """Say what a change means for us; None also for another node's workload, which it stays."""
        if change.value is None or not change.key.startswith(keys.WORKLOADS):
            return _event(change)
        name = change.key.removeprefix(keys.WORKLOADS)
        node, workload = workload_from(change.key, name, change.value)
        return WorkloadChanged(workload) if node == self._node else None


def _event(change: Change) -> Event | None:
    """Say what a change means; None for a key that decisions do not need. Raises Malformed."""
    about = keys.parse(change.key)
    key, value = change.key, change.value
    match about:
        case None | keys.TracesKey():
            return None
        case keys.PoolKey(name=name):
            return PoolRemoved(name) if value is None else PoolChanged(pool_from(key, name, value))
        case keys.NodeKey(name=name):
            return NodeRemoved(name) if value is None else NodeChanged(node_from(key, name, value))
        case keys.BgpPeerKey(name=name):
            return BgpPeerRemoved(name) if value is None else BgpPeerChanged(bgp_peer_from(key, name, value))
        case keys.BgpConfigurationKey(name=name):
            removed_one = BgpConfigurationRemoved(name)
            return removed_one if value is None else BgpConfigurationChanged(bgp_configuration_from(key, name, value))
        case keys.BgpFilterKey(name=name):
            return BgpFilterRemoved(name) if value is None else BgpFilterChanged(bgp_filter_from(key, name, value))
        case keys.WorkloadKey(name=name):
            return WorkloadRemoved(name)  # StoreSource reads the others
        case keys.FelixConfigurationKey(name=name):
            gone = FelixConfigurationRemoved(name)
            return gone if value is None else FelixConfigurationChanged(felix_configuration_from(key, name, value))
        case keys.AliveKey(name=name):
            return NodeDead(name) if value is None else NodeAlive(name)
        case keys.BlockKey(cidr=cidr):
            return BlockRemoved(cidr) if value is None else BlockChanged(block_view(block_from(key, cidr, value)))
        case keys.AffinityKey(node=node, cidr=cidr):
            removed = AffinityRemoved(cidr, node)
            return removed if value is None else AffinityChanged(affinity_from(key, node, cidr, value))
        case _:
            assert_never(about)


def told(items: Iterable[tuple[str, bytes]]) -> list[Event]:
    """Say what keys and values mean, as the watch would tell them; those that cannot be read are left out."""
    found = []
    for key, value in items:
        try:
            event = _event(Change(key, value, 0))
        except Malformed:
            continue
        if event is not None:
            found.append(event)
    return found


async def contents(store: Store) -> dict[str, bytes]:
    """Read everything that decisions are made from, as of one revision; raises Transient, Compacted."""
    revision = (await store.range(PREFIXES[0], limit=1)).revision
    return {item.key: item.value for prefix in PREFIXES async for item in read_all(store, prefix, revision)}
