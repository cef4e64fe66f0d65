"""The store as a source of events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self

import msgspec
import pytest

from bgpd.adapters.store import keys, watch
from bgpd.adapters.store.base import Delete, Put, Store
from bgpd.adapters.store.memory import MemoryStore
from bgpd.adapters.store.watch import StoreSource
from bgpd.model.bgp import Workload
from bgpd.model.event import (
    AffinityChanged,
    AffinityRemoved,
    BgpPeerChanged,
    BlockChanged,
    BlockRemoved,
    Event,
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
from bgpd.model.node import Node
from bgpd.model.notice import Notice
from bgpd.model.pool import Affinity, AffinityState, Block, Pool
from bgpd.model.prefix import Address, Prefix

pytestmark = pytest.mark.adapter

CIDR = Prefix.parse("10.65.0.0/31")
POOL_KEY, NODE_KEY, ALIVE_KEY = keys.pool_key("p"), keys.node_key("n"), keys.alive_key("n")
BLOCK_KEY, AFFINITY_KEY = keys.block_key(CIDR), keys.affinity_key("n", CIDR)
POOL_VALUE = b'{"spec":{"cidr":"10.65.0.0/16"}}'
BLOCK_VALUE = (
    b'{"cidr":"10.65.0.0/31","affinity":"host:n","allocations":[null,null],"unallocated":[0,1],"attributes":[]}'
)
ALL = (
    Put(POOL_KEY, POOL_VALUE),
    Put(NODE_KEY, b'{"spec":{}}'),
    Put(ALIVE_KEY, b"{}"),
    Put(BLOCK_KEY, BLOCK_VALUE),
    Put(AFFINITY_KEY, b""),
    Put(keys.handle_key("h"), b"not ours to read"),
    Put(keys.IPAM_CONFIG, b"{}"),
)
EVENTS = {
    PoolChanged(Pool(name="p", cidr=Prefix.parse("10.65.0.0/16"))),
    NodeChanged(Node(name="n")),
    NodeAlive("n"),
    BlockChanged(Block(cidr=CIDR, node="n")),
    AffinityChanged(Affinity(cidr=CIDR, node="n", state=AffinityState.CONFIRMED)),
}
REMOVALS = {PoolRemoved("p"), NodeRemoved("n"), NodeDead("n"), BlockRemoved(CIDR), AffinityRemoved(CIDR, "n")}


class Watching:
    """A running source, with what it delivered."""

    def __init__(self, store: Store) -> None:
        self.events: list[Event] = []
        self.notices: list[Notice] = []
        self.blocked: asyncio.Event | None = None
        self._source = StoreSource(store, self._deliver, self.notices.append, "n")

    async def _deliver(self, event: Event) -> None:
        if self.blocked is not None:
            await self.blocked.wait()
        self.events.append(event)

    async def __aenter__(self) -> Self:
        self.task = asyncio.create_task(self._source.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])

    async def until(self, reached: Callable[[], bool]) -> None:
        """Wait until *reached*; the fixture's deadline bounds it."""
        while not reached():
            assert not self.task.done(), self.task.exception()
            await asyncio.sleep(0.005)

    async def take(self, count: int) -> list[Event]:
        await self.until(lambda: len(self.events) >= count)
        taken, self.events[:count] = self.events[:count], []
        return taken


def test_everything_is_read_then_synced_then_watched(on_store):
    """The first reading delivers each value, then StoreSynced; each change and removal follows, and other keys are silent."""

    async def work(store):
        await store.txn((), ALL)
        async with Watching(store) as source:
            assert set(await source.take(5)) == EVENTS
            assert await source.take(1) == [StoreSynced()]
            await store.txn((), tuple(Delete(write.key) for write in ALL))
            assert set(await source.take(5)) == REMOVALS
            await store.txn((), ALL)
            assert set(await source.take(5)) == EVENTS
        assert source.events == []
        assert source.notices == []

    on_store(work)


def test_a_rewritten_equal_value_is_silent(on_store):
    """A key that is written again with the same meaning makes no event; the next real change does."""

    async def work(store):
        await store.txn((), ALL)
        async with Watching(store) as source:
            await source.take(6)
            await store.txn((), (Put(POOL_KEY, b'{"spec": {"cidr": "10.65.0.0/16", "natOutgoing": true}}'),))
            await store.txn((), (Put(AFFINITY_KEY, b'{"state":"confirmed"}'),))
            await store.txn((), (Put(POOL_KEY, b'{"spec": {"cidr": "10.66.0.0/16"}}'),))
            assert await source.take(1) == [PoolChanged(Pool(name="p", cidr=Prefix.parse("10.66.0.0/16")))]

    on_store(work)


def test_a_malformed_value_keeps_its_last_meaning_and_is_told_once(on_store):
    """A value that cannot be read makes one notice and no event; the good one that follows is compared with the last good one."""

    async def work(store):
        await store.txn((), ALL)
        async with Watching(store) as source:
            await source.take(6)
            await store.txn((), (Put(POOL_KEY, b"{"), Put(keys.POOLS + "a/b", b"{}"), Put(keys.BLOCKS + "x", b"{}")))
            await store.txn((), (Put(POOL_KEY, POOL_VALUE), Delete(keys.BLOCKS + "x"), Delete(BLOCK_KEY)))
            assert await source.take(1) == [BlockRemoved(CIDR)]
        told = {notice.fields["key"]: notice.fields["defect"] for notice in source.notices}
        assert {notice.name for notice in source.notices} == {"record.skipped"}
        assert set(told) == {POOL_KEY, keys.POOLS + "a/b", keys.BLOCKS + "x"}
        assert len(source.notices) == 3
        assert "truncated" in told[POOL_KEY]

    on_store(work)


def test_an_ended_lease_is_a_dead_node(on_store):
    """A node whose lease ends is dead, without anybody writing."""

    async def work(store):
        await store.txn((), (Put(ALIVE_KEY, b"{}", await store.grant(1)),))
        async with Watching(store) as source:
            assert await source.take(3) == [NodeAlive("n"), StoreSynced(), NodeDead("n")]

    on_store(work)


def lose(store: MemoryStore, reason: str) -> None:
    store.outage = reason
    store.wake()


def on_memory(work):
    async def main():
        async with asyncio.timeout(20):
            await work(MemoryStore())

    asyncio.run(main())


def test_an_outage_is_told_once_and_repeats_nothing():
    """A lost store is told once; on its return come only what changed and what was removed meanwhile, then StoreSynced."""

    async def work(store):
        await store.txn((), ALL)
        async with Watching(store) as source:
            await source.take(6)
            lose(store, "no route to host")
            assert await source.take(1) == [StoreLost("no route to host")]
            store.outage = ""
            await store.txn((), (Delete(BLOCK_KEY), Put(NODE_KEY, b'{"spec":{"bgp":{"asNumber":1}}}')))
            store.outage = "no route to host"
            await asyncio.sleep(0.3)
            assert source.events == []
            store.outage = ""
            assert set(await source.take(2)) == {BlockRemoved(CIDR), NodeChanged(Node(name="n", asn=1))}
            assert await source.take(1) == [StoreSynced()]
            await store.txn((), (Delete(POOL_KEY),))
            assert await source.take(1) == [PoolRemoved("p")]

    on_memory(work)


def test_a_store_that_is_lost_from_the_start_is_told():
    """A store that cannot be read at start is told as lost, and read as soon as it is there."""

    async def work(store):
        lose(store, "refused")
        async with Watching(store) as source:
            assert await source.take(1) == [StoreLost("refused")]
            store.outage = ""
            await store.txn((), ALL)
            assert set(await source.take(5)) == EVENTS
            assert await source.take(1) == [StoreSynced()]

    on_memory(work)


def test_a_cancelled_delivery_is_made_up_for():
    """An event whose delivery an outage interrupted is delivered after it: nothing is known before it was told."""

    async def work(store):
        async with Watching(store) as source:
            await source.take(1)
            source.blocked = asyncio.Event()
            await store.txn((), (Put(POOL_KEY, POOL_VALUE),))
            await asyncio.sleep(0.02)
            lose(store, "gone")
            await asyncio.sleep(0.02)
            store.outage = ""
            source.blocked.set()
            source.blocked = None
            await source.until(lambda: StoreSynced() in source.events)
            assert [event for event in source.events if isinstance(event, PoolChanged)] == [
                PoolChanged(Pool(name="p", cidr=Prefix.parse("10.65.0.0/16")))
            ]

    on_memory(work)


def test_a_compacted_watch_reads_anew():
    """A watcher that history outran reads anew, delivers the difference alone and says that it is synced."""

    async def work(store):
        await store.txn((), ALL)
        async with Watching(store) as source:
            await source.take(6)
            source.blocked = asyncio.Event()
            await store.txn((), (Put(POOL_KEY, b'{"spec":{"cidr":"10.66.0.0/16"}}'),))
            await asyncio.sleep(0.02)
            for index in range(100):
                await store.txn((), (Put(NODE_KEY, b'{"spec":{"bgp":{"asNumber":%d}}}' % (index + 1)),))
            store.compact((await store.range("/")).revision)
            source.blocked.set()
            source.blocked = None
            await source.until(lambda: StoreSynced() in source.events)
            assert source.events[-1] == StoreSynced()
            assert [e for e in source.events if isinstance(e, NodeChanged)][-1] == NodeChanged(Node(name="n", asn=100))
            assert [e for e in source.events if isinstance(e, PoolChanged)] == [
                PoolChanged(Pool(name="p", cidr=Prefix.parse("10.66.0.0/16")))
            ]
            assert not any(isinstance(event, AffinityChanged | StoreLost) for event in source.events)
        assert "store.compacted" in {notice.name for notice in source.notices}

    on_memory(work)


def test_attempts_are_spaced_with_a_bound(monkeypatch):
    """A store that stays away is tried at once, then with pauses that double up to the ceiling."""
    pauses = []
    real = asyncio.sleep

    async def sleep(seconds):
        pauses.append(seconds)
        await real(0)

    async def work(store):
        lose(store, "gone")
        monkeypatch.setattr(watch.asyncio, "sleep", sleep)
        source = StoreSource(store, _ignore, lambda _notice: None)
        task = asyncio.create_task(source.run())
        while len(pauses) < 12:
            await real(0)
        task.cancel()
        await asyncio.wait([task])
        monkeypatch.undo()

    on_memory(work)
    assert pauses[:4] == [0.1, 0.2, 0.4, 0.4]
    assert max(pauses) == pauses[11] == watch.BACKOFF_MAX_S


async def _ignore(_event: Event) -> None:
    """Nobody listens."""


def test_workloads_are_told_where_a_peer_asks_for_them(on_store):
    """Without such a BGPPeer no workload is read; with one, those of our own node are told, and what becomes of them."""

    def endpoint(node: str, address: str) -> bytes:
        return msgspec.json.encode(
            {"metadata": {"labels": {"app": "vm"}}, "spec": {"node": node, "ipNetworks": [f"{address}/32"]}}
        )

    def told(address: str) -> Event:
        return WorkloadChanged(Workload(name="ns/a", addresses=(Address.parse(address),), labels=(("app", "vm"),)))

    async def work(store):
        ours, other = keys.WORKLOADS + "ns/a", keys.WORKLOADS + "ns/b"
        await store.txn((), (Put(ours, endpoint("n", "10.65.0.7")), Put(other, endpoint("m", "10.65.0.8"))))
        async with Watching(store) as source:
            assert await source.take(1) == [StoreSynced()]
            head = {"apiVersion": "projectcalico.org/v3", "kind": "BGPPeer", "metadata": {"name": "vm"}}
            spec = {"localWorkloadSelector": "app == 'vm'", "asNumber": 65001}
            await store.txn((), (Put(keys.BGP_PEERS + "vm", msgspec.json.encode(head | {"spec": spec})),))
            peer, *events = await source.take(3)
            assert isinstance(peer, BgpPeerChanged)
            assert events == [told("10.65.0.7"), StoreSynced()]

            await store.txn((), (Put(ours, endpoint("n", "10.65.0.9")), Put(other, endpoint("m", "10.65.0.10"))))
            assert await source.take(1) == [told("10.65.0.9")]
            await store.txn((), (Delete(other), Delete(ours)))
            assert await source.take(1) == [WorkloadRemoved("ns/a")]
        assert source.notices == []

    on_store(work)
