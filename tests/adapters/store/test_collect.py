"""Collection on each store: what is left behind goes, what is in use stays, whoever writes in between."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from bgpd.adapters.store import collect as collecting
from bgpd.adapters.store import keys
from bgpd.adapters.store.base import Compare, Delete, Put, read_all
from bgpd.adapters.store.census import take
from bgpd.adapters.store.collect import _do, collect, publish
from bgpd.adapters.store.elect import Fenced
from bgpd.adapters.store.ipam.assign import AddressRequest, Granted, assign
from bgpd.adapters.store.ipam.claim import claim_block
from bgpd.adapters.store.ipam.release import release_handle
from bgpd.adapters.store.transact import ensure_pool
from bgpd.core.ipam.check import check
from bgpd.core.ipam.collect import Collector, Leak, Surplus, Why
from bgpd.model.pool import Pool
from bgpd.model.prefix import Address, Prefix

pytestmark = pytest.mark.adapter

POOL = Pool(name="p", cidr=Prefix.parse("10.65.0.0/24"))
NODE = b'{"kind":"Node","apiVersion":"projectcalico.org/v3","metadata":{"name":"NAME"},"spec":{}}'


async def prepared(store, *names: str):
    """A pool, and nodes with a block each."""
    await ensure_pool(store, POOL)
    for name in names:
        await store.txn((), (Put(keys.node_key(name), NODE.replace(b"NAME", name.encode())),))
        await claim_block(store, POOL, name)


async def given(store, node, handle, count=1):
    answer = await assign(store, AddressRequest(node=node, handle_id=handle, ipv4=count))
    assert isinstance(answer, Granted)
    return answer.addresses


@asynccontextmanager
async def collecting_on(store, *, grace_s=0.3):
    """A collector in office; gives what it told."""
    await store.txn((), (Put(keys.COLLECTOR, b"me"),))
    fence = Compare(keys.COLLECTOR, (await store.get(keys.COLLECTOR)).mod_revision)
    told = []
    task = asyncio.create_task(collect(Fenced(store, (fence,)), Collector(grace_s=grace_s), told.append))
    try:
        async with asyncio.timeout(15):
            while not told:
                await asyncio.sleep(0.01)
        yield told
    finally:
        task.cancel()
        with_errors = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(with_errors[0], asyncio.CancelledError), with_errors


async def until(condition):
    async with asyncio.timeout(15):
        while not await condition():
            await asyncio.sleep(0.02)


async def below(store, prefix):
    return [item.key async for item in read_all(store, prefix)]


def test_a_deleted_nodes_addresses_and_blocks_go(on_store):
    """When a Node is deleted, its addresses, handles, affinities and blocks go, another node's stay, and nothing is wrong after."""

    async def work(store):
        await prepared(store, "a", "b")
        await given(store, "a", "one", 3)
        (kept,) = await given(store, "b", "two")
        async with collecting_on(store) as told:
            await store.txn((), (Delete(keys.node_key("a")),))

            async def gone():
                return await below(store, keys.HOSTS + "a/") == [] and await store.get(keys.handle_key("one")) is None

            await until(gone)
        census = await take(store)

        assert [kept] == [one.holding.address for one in check(census).allocations]
        assert ([], ["b"]) == (list(check(census).problems), [one.record.node for one in census.blocks])
        assert {"collector.started", "ipam.collected"} == {notice.name for notice in told}

    on_store(work)


def test_a_borrowed_address_outlives_its_blocks_node(on_store):
    """The block of a deleted node that another node's address is in stays, as nobody's, until that address is released."""

    async def work(store):
        await prepared(store, "a", "b")
        block = keys.block_key((await _blocks(store, "a"))[0])
        (address,) = await given(store, "a", "one")
        item = await store.get(block)
        await store.txn((), (Put(block, item.value.replace(b'"node":"a"', b'"node":"b"')),))
        async with collecting_on(store):
            await store.txn((), (Delete(keys.node_key("a")),))

            async def nobodys():
                return (await take(store)).blocks and await below(store, keys.HOSTS + "a/") == []

            await until(nobodys)
            assert [address] == [one.holding.address for one in check(await take(store)).allocations]
            assert (address,) == (await release_handle(store, "one")).released
        assert await store.get(block) is None

    on_store(work)


async def _blocks(store, node):
    return [one.cidr for one in (await take(store)).blocks if one.record.node == node]


def test_an_address_without_trace_goes_and_others_stay(on_store):
    """What a node has no trace of over the grace time is released; what it has one of, and all of a handle with one, stays."""

    async def work(store):
        await prepared(store, "a")
        (seen,) = await given(store, "a", "seen")
        both = await given(store, "a", "both", 2)
        await given(store, "a", "lost")
        traces = [Prefix.of(address, 32) for address in (seen, both[0])]
        async with collecting_on(store):

            async def collected():
                await publish(store, "a", traces)
                await asyncio.sleep(0.05)
                return await store.get(keys.handle_key("lost")) is None

            await until(collected)
        left = {one.holding.handle for one in check(await take(store)).allocations}

        assert {"seen", "both"} == left

    on_store(work)


def test_silence_collects_nothing(on_store):
    """A node that publishes nothing, or takes it back, keeps all it has; publishing too much is saying nothing."""

    async def work(store):
        await prepared(store, "a")
        await given(store, "a", "one")
        await publish(store, "a", [])
        assert await store.get(keys.traces_key("a")) is not None
        await publish(store, "a", None)
        assert await store.get(keys.traces_key("a")) is None
        await publish(store, "a", [])
        many = [Prefix.of(Address(address), 32) for address in range(collecting.TRACES_MAX + 1)]
        await publish(store, "a", many)
        assert await store.get(keys.traces_key("a")) is None
        async with collecting_on(store, grace_s=0.05) as told:
            await asyncio.sleep(0.5)
        assert ["collector.started"] == [notice.name for notice in told]

    on_store(work)


def test_an_empty_block_goes_and_the_last_stays(on_store):
    """Of two empty blocks of a node one goes, with its affinity; the other stays."""

    async def work(store):
        await prepared(store, "a")
        await given(store, "a", "all", 64)
        assert await claim_block(store, POOL, "a", room=True)
        await release_handle(store, "all")
        assert 2 == len(await _blocks(store, "a"))
        async with collecting_on(store):

            async def one_left():
                return len(await _blocks(store, "a")) == 1

            await until(one_left)
            await asyncio.sleep(0.6)
        census = await take(store)

        assert (1, 1, ()) == (len(census.blocks), len(census.affinities), check(census).problems)

    on_store(work)


def test_late_work_frees_nothing(on_store):
    """Work whose facts have changed is refused and writes nothing: the node is back, the address has another tenant, the handle
    has more, the publication is another, the block is used."""

    async def work(store):
        await prepared(store, "a")
        (address,) = await given(store, "a", "one")
        (cidr,) = await _blocks(store, "a")
        record = next(one.record for one in (await take(store)).blocks)
        sequence = record.sequence(address)
        await publish(store, "a", [])
        revision = (await store.get(keys.traces_key("a"))).mod_revision
        await store.txn((), (Put(keys.COLLECTOR, b"me"),))
        fenced = Fenced(store, (Compare(keys.COLLECTOR, (await store.get(keys.COLLECTOR)).mod_revision),))

        def leak(**changes: object):
            fields = {
                "handle": "one",
                "addresses": ((address, sequence),),
                "blocks": ((cidr, 1),),
                "nodes": ("a",),
                "why": Why.NO_TRACE,
                "published": (("a", revision),),
            }
            return Leak(**{**fields, **changes})

        late = [
            leak(why=Why.NODE_GONE, published=()),
            leak(published=(("a", revision - 1),)),
            leak(addresses=((address, sequence + 1),)),
            Surplus(cidr, "a", Why.NODE_GONE, None),
            Surplus(cidr, "a", Why.EMPTY, record.sequence_number),
            Surplus(cidr, "a", Why.EMPTY, 1),
            Surplus(cidr, None, Why.EMPTY, record.sequence_number),
        ]
        before = {item.key: item.mod_revision async for item in read_all(store, "/")}
        reasons = [await _do(fenced, one) for one in late]
        assert all(reasons), reasons
        assert before == {item.key: item.mod_revision async for item in read_all(store, "/")}

        await given(store, "a", "one", 2)
        assert "as well" in await _do(fenced, leak())
        assert 2 == len(check(await take(store)).allocations)

    on_store(work)
