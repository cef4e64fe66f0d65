"""Claims and assignments against a store, with writers in the way."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from bgpd.adapters.store import keys, records
from bgpd.adapters.store.base import Compare, Delete, Put, Transient, read_all
from bgpd.adapters.store.ipam.assign import assign_address
from bgpd.adapters.store.ipam.claim import claim_block
from bgpd.adapters.store.ipam.target import ClaimTarget
from bgpd.adapters.store.memory import MemoryStore
from bgpd.adapters.store.transact import CONFLICTS_MAX, Plan, ensure_pool, transact
from bgpd.core.ipam.block import Refused, new_block
from bgpd.core.ipam.search import search_order
from bgpd.model.pool import AffinityState, BlockClaim, Pool
from bgpd.model.prefix import Address, Prefix

pytestmark = pytest.mark.adapter

POOL = Pool(name="p", cidr=Prefix.parse("10.65.0.0/24"))


class Counting(MemoryStore):
    """A store that counts single reads and can let somebody else write before a transaction."""

    def __init__(self):
        super().__init__()
        self.gets = 0
        self.before_txn = []

    async def get(self, key):
        self.gets += 1
        return await super().get(key)

    async def txn(self, compares, writes):
        if self.before_txn:
            await self.before_txn.pop()()
        return await super().txn(compares, writes)


async def stored_block(store, cidr):
    item = await store.get(keys.block_key(cidr))
    return records.block_from(item.key, cidr, item.value)


async def snapshot(store):
    return {item.key: item.value async for item in read_all(store, "/")}


def test_a_claim_writes_block_and_affinity_together(on_store):
    """A claimed block and its confirmed affinity come in one revision; claiming again writes nothing."""

    async def work(store):
        cidr = await claim_block(store, POOL, "n")
        block, affinity = await store.get(keys.block_key(cidr)), await store.get(keys.affinity_key("n", cidr))
        again = await claim_block(store, POOL, "n")

        assert cidr == next(search_order(POOL, "n")) == again
        assert block.mod_revision == affinity.mod_revision == (await store.range("/")).revision
        assert records.affinity_from("k", "n", cidr, affinity.value).state is AffinityState.CONFIRMED
        assert (await stored_block(store, cidr)).node == "n"

    on_store(work)


def test_nodes_that_claim_at_once_get_different_blocks(on_store):
    """Twelve nodes that claim of sixteen blocks at once get twelve."""

    async def work(store):
        pool = Pool(name="p", cidr=Prefix.parse("10.65.0.0/22"))
        blocks = await asyncio.gather(*(claim_block(store, pool, f"x{index}") for index in range(12)))

        assert len(set(blocks)) == 12
        for index, cidr in enumerate(blocks):
            assert (await stored_block(store, cidr)).node == f"x{index}"

    on_store(work)


def test_one_node_that_claims_twice_at_once_gets_one_block(on_store):
    """Concurrent first claims of one node agree on one block (Calico takes two)."""

    async def work(store):
        blocks = await asyncio.gather(*(claim_block(store, POOL, "n") for _ in range(5)))

        assert len(set(blocks)) == 1
        assert len((await store.range(keys.BLOCKS)).items) == 1

    on_store(work)


def test_a_full_pool_is_refused(on_store):
    """When each block is taken the claim is refused with the pool's name, and nothing is written."""

    async def work(store):
        for index in range(4):
            assert not isinstance(await claim_block(store, POOL, f"x{index}"), Refused)
        before = await snapshot(store)

        assert await claim_block(store, POOL, "late") == Refused(
            "pool p is full: each block of 10.65.0.0/24 is taken or reserved"
        )
        assert before == await snapshot(store)

    on_store(work)


def test_a_claim_reads_candidates_and_not_the_cluster():
    """A first claim beside 200 blocks of others reads a handful of keys; a densely taken pool is searched to the end."""

    async def work():
        store = Counting()
        pool = Pool(name="p", cidr=Prefix.parse("10.64.0.0/14"))
        for cidr in (Prefix.of(Address(pool.cidr.network + index * 64), 26) for index in range(200)):
            await store.txn((), (Put(keys.block_key(cidr), records.block_bytes(new_block(cidr, "o", 1, ""))),))
        await claim_block(store, pool, "n")
        assert store.gets < 10

        order = list(search_order(Pool(name="p", cidr=Prefix.parse("10.80.0.0/20")), "m"))
        for cidr in order[:-1]:
            await store.txn((), (Put(keys.block_key(cidr), records.block_bytes(new_block(cidr, "o", 1, ""))),))
        assert await claim_block(store, Pool(name="p", cidr=Prefix.parse("10.80.0.0/20")), "m") == order[-1]

    asyncio.run(work())


def test_a_claim_that_lost_its_candidate_takes_the_next():
    """If another node takes the candidate between reading and writing, the claim reads anew and takes the next."""

    async def work():
        store = Counting()
        first, second, *_ = search_order(POOL, "n")
        taken = Put(keys.block_key(first), records.block_bytes(new_block(first, "o", 1, "")))
        store.before_txn = [lambda: store.txn((), (taken,))]

        assert await claim_block(store, POOL, "n") == second
        assert (await stored_block(store, first)).node == "o"
        assert [key for key in await snapshot(store) if key.startswith(keys.HOSTS)] == [keys.affinity_key("n", second)]

    asyncio.run(work())


def test_a_claim_sees_an_affinity_that_came_meanwhile():
    """An affinity that another tool writes between reading and writing is read anew, and what it holds survives."""

    async def work():
        store = Counting()
        cidr = next(search_order(POOL, "n"))
        key = keys.affinity_key("n", cidr)
        store.before_txn = [lambda: store.txn((), (Put(key, b'{"state":"pending","type":"host"}'),))]

        assert await claim_block(store, POOL, "n") == cidr
        assert (await store.get(key)).value == b'{"state":"confirmed","type":"host"}'

    asyncio.run(work())


def test_a_handle_that_got_an_address_meanwhile_gets_no_second_one():
    """If a handle got an address elsewhere between reading and writing, that one is the answer, and no other is taken."""

    async def work():
        store = Counting()
        await ensure_pool(store, POOL)
        ours = await claim_block(store, POOL, "n")
        theirs = await claim_block(store, POOL, "o")
        store.before_txn = [lambda: assign_address(store, "o", "h", {})]

        assert await assign_address(store, "n", "h", {}) == theirs.address(0)
        assert (await stored_block(store, ours)).in_use == 0

    asyncio.run(work())


def test_interrupted_claims_of_calico_are_finished_or_taken_back(on_store):
    """A pending affinity to our block is confirmed; one to another node's block is deleted along with a claim."""

    async def work(store):
        ours, theirs = Prefix.parse("10.65.0.64/26"), Prefix.parse("10.65.0.128/26")
        pending = b'{"state":"pending","deleted":false}'
        for cidr, node in ((ours, "n"), (theirs, "o")):
            block = records.block_bytes(new_block(cidr, node, 1, ""))
            await store.txn((), (Put(keys.block_key(cidr), block), Put(keys.affinity_key("n", cidr), pending)))

        assert await claim_block(store, POOL, "n") == ours
        affinities = (await store.range(keys.HOSTS)).items
        assert [(item.key, item.value) for item in affinities] == [
            (keys.affinity_key("n", ours), b'{"state":"confirmed","deleted":false}')
        ]
        assert (await stored_block(store, ours)).sequence_number == 2

    on_store(work)


def test_a_malformed_block_is_left_alone(on_store):
    """A block record that cannot be read is taken: the claim goes past it and leaves it as it is."""

    async def work(store):
        first, second, *_ = search_order(POOL, "n")
        await store.txn((), (Put(keys.block_key(first), b"rubbish"),))

        assert await claim_block(store, POOL, "n") == second
        assert (await store.get(keys.block_key(first))).value == b"rubbish"

    on_store(work)


def test_the_clusters_limits_hold(on_store):
    """maxBlocksPerHost and auto_allocate_blocks of the stored settings are obeyed."""

    async def work(store):
        await store.txn((), (Put(keys.IPAM_CONFIG, b'{"strict_affinity":true}'),))
        assert "auto_allocate_blocks" in (await claim_block(store, POOL, "n")).reason
        settings = b'{"strict_affinity":true,"auto_allocate_blocks":true,"maxBlocksPerHost":1}'
        await store.txn((), (Put(keys.IPAM_CONFIG, settings),))
        assert isinstance(await claim_block(store, POOL, "n"), Prefix)
        other = Pool(name="q", cidr=Prefix.parse("10.66.0.0/24"))
        assert await claim_block(store, other, "n") == Refused("limit of 1 blocks reached for node n")

    on_store(work)


def test_an_assignment_counts_in_block_and_handle(on_store):
    """An address, its attribute and the handle's count come in one revision; asking again returns the same address."""

    async def work(store):
        await ensure_pool(store, POOL)
        cidr = await claim_block(store, POOL, "n")

        address = await assign_address(store, "n", "cni.x", {"pod": "p"})
        revision = (await store.range("/")).revision
        handle = await store.get(keys.handle_key("cni.x"))

        assert address == cidr.address(0)
        assert handle.value == b'{"block":{"%s":1},"deleted":false}' % str(cidr).encode()
        assert (await store.get(keys.block_key(cidr))).mod_revision == handle.mod_revision == revision
        assert (await stored_block(store, cidr)).attributes[0].secondary == {"pod": "p", "node": "n"}
        assert await assign_address(store, "n", "cni.x", {}) == address
        assert (await store.range("/")).revision == revision

    on_store(work)


def test_concurrent_assignments_are_all_different(on_store):
    """Thirty handles at once over two blocks of sixteen get thirty addresses, and blocks and handles agree."""

    async def work(store):
        pool = Pool(name="p", cidr=Prefix.parse("10.65.0.0/26"), block_size=28)
        await ensure_pool(store, pool)
        found = await asyncio.gather(*(assign_address(store, "n", f"h{index}", {}) for index in range(30)))

        assert len(set(found)) == 30
        blocks = [
            records.block_from(i.key, keys.parse(i.key).cidr, i.value) for i in (await store.range(keys.BLOCKS)).items
        ]
        assert sum(block.in_use for block in blocks) == 30
        counts = [msgspec.json.decode(item.value)["block"] for item in (await store.range(keys.HANDLES)).items]
        assert sum(sum(count.values()) for count in counts) == 30

    on_store(work)


def test_an_assignment_says_why_not(on_store):
    """Without a pool, with a disabled one, and when all is full, the refusal says so; who has an address keeps it."""

    async def work(store):
        none = "no ipv4 pool qualifies for Workload: there is no pool"
        assert await assign_address(store, "n", "h", {}) == Refused(none)
        assert await assign_address(store, "n", "h", {}, "x") == Refused(f"{none} x")
        pool = Pool(name="p", cidr=Prefix.parse("10.65.0.0/31"), block_size=31)
        await ensure_pool(store, pool)
        for name in "ab":
            assert isinstance(await assign_address(store, "n", name, {}, "p"), Address)
        assert "pool p is full" in (await assign_address(store, "n", "c", {})).reason
        disabled = msgspec.structs.replace(pool, disabled=True)
        await store.txn((), (Put(keys.pool_key("p"), records.pool_bytes(disabled, _now())),))
        assert (await assign_address(store, "n", "d", {}, "p")).reason.endswith("pool p (10.65.0.0/31) is disabled")
        assert isinstance(await assign_address(store, "n", "a", {}, "p"), Address)

    on_store(work)


def test_the_default_pool_is_made_once(on_store):
    """Only a store without any pool gets one, also if several nodes with different pools come at once."""

    async def work(store):
        pools = [Pool(name=f"p{index}", cidr=POOL.cidr) for index in range(5)]
        made = await asyncio.gather(*(ensure_pool(store, pool) for pool in pools))

        assert sorted(made) == [False] * 4 + [True]
        (stored,) = (await store.range(keys.POOLS)).items
        name = keys.parse(stored.key).name
        assert records.pool_from(stored.key, name, stored.value) == pools[int(name[1:])]
        await store.txn((), (Delete(stored.key),))
        assert await ensure_pool(store, POOL)

    on_store(work)


def test_two_different_default_pools_are_not_both_made():
    """A node that found no pool while another was making one makes none: their pools have different names and the same place."""

    async def work():
        store = Counting()
        store.before_txn = [lambda: ensure_pool(store, Pool(name="other", cidr=POOL.cidr))]

        assert not await ensure_pool(store, POOL)
        assert [item.key for item in (await store.range(keys.POOLS)).items] == [keys.pool_key("other")]

    asyncio.run(work())


def test_conflicts_are_bounded():
    """A plan that never commits ends in Transient after CONFLICTS_MAX attempts."""

    async def work():
        attempts = 0

        async def decide():
            nonlocal attempts
            attempts += 1
            return Plan(None, (Compare("/x", 99),), (Put("/x", b""),))

        with pytest.raises(Transient, match="conflicts with other writers"):
            await transact(MemoryStore(), decide)
        assert attempts == CONFLICTS_MAX

    asyncio.run(work())


def test_the_claim_target_keeps_claims_and_reasons():
    """The target holds what is true, and returns the reason of what is not; a dropped claim leaves the block where it is."""

    async def work():
        store = MemoryStore()
        target = ClaimTarget(store)
        claims = [
            BlockClaim(pool=POOL, node="n"),
            BlockClaim(pool=Pool(name="q", cidr=POOL.cidr, disabled=True), node="n"),
        ]

        failed = await target.apply([(claim.pool.name, claim) for claim in claims])
        assert failed == {"q": "pool q is disabled"}
        assert (target.actual, target.blocks) == ({"p": claims[0]}, {"p": next(search_order(POOL, "n"))})

        before = await snapshot(store)
        assert await target.apply([("p", None)]) == {}
        assert (target.actual, target.blocks) == ({}, {})
        assert before == await snapshot(store)

        store.outage = "no route to host"
        assert await target.apply([("p", claims[0])]) == {"p": "no route to host"}

    asyncio.run(work())


def _now():
    return records.datetime(2026, 8, 22, tzinfo=records.UTC)
