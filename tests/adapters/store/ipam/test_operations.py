"""What each operation gives, refuses and costs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from bgpd.adapters.store import keys
from bgpd.adapters.store.base import Delete, KeyValue, Put, Reading, Scan
from bgpd.adapters.store.ipam.assign import AddressRequest, Granted, assign, assign_at
from bgpd.adapters.store.ipam.claim import claim_block
from bgpd.adapters.store.ipam.reading import LOCKED
from bgpd.adapters.store.ipam.release import (
    locate,
    release,
    release_block,
    release_handle,
    release_node,
    release_whole,
)
from bgpd.adapters.store.ipam.target import ReleaseTarget
from bgpd.adapters.store.keys import Malformed
from bgpd.adapters.store.memory import MemoryStore
from bgpd.adapters.store.records import affinity_bytes, block_bytes, block_view, pool_bytes
from bgpd.core.ipam.block import BlockRecord, Refused, new_block
from bgpd.core.ipam.release import Release, Released
from bgpd.core.ipam.search import PROBES_MAX, block_at, search_order
from bgpd.model.pool import AffinityState, BlockRelease, Pool, Use
from bgpd.model.prefix import Address, Prefix
from tests.adapters.store.ipam import audit
from tests.adapters.store.test_transact import stored_block
from tests.core.ipam.test_block import NOW

pytestmark = pytest.mark.adapter

A, P = Address.parse, Prefix.parse
V4 = Pool(name="v4", cidr=P("10.0.0.0/24"), block_size=28)
V6 = Pool(name="v6", cidr=P("fd00::/112"), block_size=124)


class Counting(MemoryStore):
    """A store that counts calls and the keys that they return."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.keys = 0

    def load(self, values: dict[str, bytes]) -> None:
        """Have many keys at once, of the present revision."""
        self._live.update({key: KeyValue(key, value, self._revision) for key, value in values.items()})

    async def read(self, parts: Sequence[str | Scan]) -> Reading:
        self.calls += 1
        found = await super().read(parts)
        self.keys += sum(len(page.items) for page in found.pages)
        return found


async def put(store: MemoryStore, *pools: Pool, labels: dict[str, str] | None = None, **config: Any) -> None:
    for pool in pools:
        await store.txn((), (Put(keys.pool_key(pool.name), pool_bytes(pool, NOW)),))
    value = json.dumps({"auto_allocate_blocks": True, **config}).encode()
    await store.txn((), (Put(keys.IPAM_CONFIG, value),))
    node = json.dumps({"metadata": {"name": "n", "labels": labels or {}}, "spec": {}}).encode()
    await store.txn((), (Put(keys.node_key("n"), node),))


async def reserve(store: MemoryStore, name: str, *cidrs: str) -> None:
    await store.txn((), (Put(keys.RESERVATIONS + name, json.dumps({"spec": {"reservedCIDRs": cidrs}}).encode()),))


async def own(store: MemoryStore, cidr: Prefix, node: str, claimed: str = "2026-01-01T00:00:00Z") -> None:
    block, affinity = keys.block_key(cidr), keys.affinity_key(node, cidr)
    value = affinity_bytes(affinity, AffinityState.CONFIRMED, None)
    await store.txn((), (Put(block, block_bytes(new_block(cidr, node, 7, claimed))), Put(affinity, value)))


def asking(handle: str = "h", node: str = "n", **changes: Any) -> AddressRequest:
    return AddressRequest(node=node, handle_id=handle, **changes)


async def granted(store: MemoryStore, request: AddressRequest) -> tuple[str, ...]:
    answer = await assign(store, request)
    assert isinstance(answer, Granted), answer
    assert () == answer.short
    return tuple(map(str, answer.addresses))


async def refusal(store: MemoryStore, request: AddressRequest, address: str = "") -> str:
    answer = await (assign_at(store, request, A(address)) if address else assign(store, request))
    assert isinstance(answer, Refused), answer
    return answer.reason


async def refusal_of_part(store: MemoryStore, request: AddressRequest) -> str:
    answer = await assign(store, request)
    assert isinstance(answer, Granted), answer
    return answer.short[0]


async def clean(store: MemoryStore) -> dict[str, Any]:
    state = await audit.dump(store)
    assert [] == audit.defects(state)
    return state


# ------------------------------------------------------------------ addresses


def test_both_families_and_several_at_once(on_store: Any) -> None:
    """A request for several addresses of both families gets them in blocks of each, and gets the same ones when it asks again."""

    async def work(store: MemoryStore) -> None:
        await put(store, V4, V6)

        first = await granted(store, asking(ipv4=20, ipv6=3))
        revision = (await store.range("/")).revision

        assert 23 == len(set(first))
        assert 3 == len([one for one in first if ":" in one])
        assert first == await granted(store, asking(ipv4=20, ipv6=3))
        assert first[:2] == await granted(store, asking(ipv4=2))
        assert revision == (await store.range("/")).revision
        assert set(first) < set(await granted(store, asking(ipv4=22, ipv6=3)))
        state = await clean(store)
        assert {16, 6, 3} == set(state[keys.handle_key("h")]["block"].values())

    on_store(work)


def test_a_partial_success_says_so() -> None:
    """What can be had is given, the rest has its reason, for each family; asking again later completes it."""

    async def work() -> None:
        store = MemoryStore()
        small = Pool(name="v4", cidr=P("10.0.0.0/30"), block_size=31)
        await put(store, small)

        answer = await assign(store, asking(ipv4=6, ipv6=1))

        assert isinstance(answer, Granted)
        assert 4 == len(answer.addresses)
        assert answer.short[0].startswith("4 of 6 ipv4 addresses: no address is left in the pools v4 (10.0.0.0/30): ")
        assert "no ipv6 pool qualifies for Workload: pool v4 (10.0.0.0/30) is ipv4" == answer.short[1]
        await put(store, V6)
        again = await assign(store, asking(ipv4=6, ipv6=1))
        assert isinstance(again, Granted)
        assert (answer.addresses, 1) == (again.addresses[:4], len(again.short))
        await clean(store)

    asyncio.run(work())


def test_an_explicit_address_is_assigned_with_its_block(on_store: Any) -> None:
    """An address asked for comes with its block and affinity in one revision, and asking again changes nothing."""

    async def work(store: MemoryStore) -> None:
        await put(store, msgspec.structs.replace(V4, node_selector="has(nothing)", automatic=False))

        assert A("10.0.0.37") == await assign_at(store, asking(attributes={"pod": "p"}), A("10.0.0.37"))
        revision = (await store.range("/")).revision
        block = await stored_block(store, P("10.0.0.32/28"))

        assert ("n", 1) == (block.node, block.in_use)
        assert {"pod": "p", "node": "n"} == block.attributes[0].secondary
        assert A("10.0.0.37") == await assign_at(store, asking(), A("10.0.0.37"))
        assert revision == (await store.range("/")).revision
        assert A("10.0.0.38") == await assign_at(store, asking(), A("10.0.0.38"))
        assert {"10.0.0.32/28": 2} == (await clean(store))[keys.handle_key("h")]["block"]

    on_store(work)


def test_an_explicit_address_that_cannot_be_had_says_why() -> None:
    """Reserved, in use, resting, of another node under strict affinity, beyond the limit, outside the pools, in a disabled one."""

    async def work() -> None:
        store = MemoryStore()
        off = Pool(name="off", cidr=P("10.9.0.0/24"), disabled=True)
        await put(store, V4, off, ipCooldownSeconds=600, strict_affinity=True, maxBlocksPerHost=1)
        await reserve(store, "printers", "10.0.0.5/32", "10.0.0.6")
        await granted(store, asking("theirs", "o", attributes={"pod": "web", "namespace": "shop"}))
        (block,) = [key for key in await audit.dump(store) if key.startswith(keys.BLOCKS)]
        theirs = keys.parse(block)
        assert isinstance(theirs, keys.BlockKey)
        at = theirs.cidr.address(0)
        await granted(store, asking("mine"))
        await release_handle(store, "mine")
        mine = next(P(one["cidr"]) for one in (await audit.dump(store, keys.BLOCKS)).values() if "n" in one["affinity"])

        assert "address 10.0.0.5 is reserved by printers" == await refusal(store, asking(), "10.0.0.5")
        assert "address 10.0.0.6 is reserved by printers" == await refusal(store, asking(), "10.0.0.6")
        assert "address 192.0.2.1 is in no pool" == await refusal(store, asking(), "192.0.2.1")
        assert "pool off (10.9.0.0/24) is disabled" == await refusal(store, asking(), "10.9.0.1")
        strict = f"block {theirs.cidr} is of node o, and strict affinity forbids node n its addresses"
        assert strict == await refusal(store, asking(), str(theirs.cidr.address(3)))
        free = next(str(cidr.address(1)) for cidr in search_order(V4, "q") if cidr not in (mine, theirs.cidr))
        assert "limit of 1 blocks reached for node n" == await refusal(store, asking(), free)
        assert "it rests since" in await refusal(store, asking(), str(mine.address(0)))
        tunnel = await refusal(store, asking(use=Use.LOAD_BALANCER), str(mine.address(2)))
        assert "pool v4 (10.0.0.0/24) allows Workload, Tunnel, not LoadBalancer" == tunnel
        await put(store, V4)
        in_use = f"address {at} is in use by handle theirs (pod shop/web, node o)"
        assert in_use == await refusal(store, asking(), str(at))
        await clean(store)

    asyncio.run(work())


def test_beyond_its_limit_a_node_borrows_of_nobody() -> None:
    """Without strict affinity a node that has as many blocks as it may gets the address asked for, in a block that is nobody's."""

    async def work() -> None:
        store = MemoryStore()
        await put(store, V4)
        await claim_block(store, V4, "n")

        free = next(cidr.address(1) for cidr in list(search_order(V4, "n"))[1:])
        assert free == await assign_at(store, asking(max_blocks=1), free)

        block = await stored_block(store, Prefix.of(free, 28))
        assert (None, None, ((free, "n"),)) == (block.affinity, block.affinity_claim_time, block_view(block).borrowed)
        await release_handle(store, "h")
        assert await store.get(keys.block_key(block.cidr)) is None
        await clean(store)

    asyncio.run(work())


def test_reserved_addresses_are_not_handed_out(on_store: Any) -> None:
    """Addresses that reservations cover are passed over, a block that they cover together is not claimed, and all of it is refused."""

    async def work(store: MemoryStore) -> None:
        pool = Pool(name="p", cidr=P("10.0.0.0/28"), block_size=30)
        await put(store, pool)
        first, *_, last = search_order(pool, "n")
        await reserve(store, "a", str(Prefix.of(first.network, 31)), f"{last.address(1)}/32")
        await reserve(store, "b", f"{first.address(2)}/31")

        found = await granted(store, asking(ipv4=11))
        assert 11 == len(found)
        assert not [one for one in found if first.holds(A(one)) or one == str(last.address(1))]
        answer = await assign(store, asking("more"))
        assert isinstance(answer, Refused)
        assert await store.get(keys.block_key(first)) is None

    on_store(work)


def test_a_cool_down_is_kept_and_then_over(on_store: Any) -> None:
    """A released address of a full block is not given again while it rests, and is once the cluster's cool-down is off."""

    async def work(store: MemoryStore) -> None:
        pool = Pool(name="p", cidr=P("10.0.0.0/30"), block_size=30)
        await put(store, pool, ipCooldownSeconds=600)
        addresses = await granted(store, asking(ipv4=4))

        assert Released((A(addresses[1]),)) == await release(store, [Release(address=A(addresses[1]))])
        assert "no address is left" in await refusal(store, asking("next"))
        assert Released((), (A(addresses[1]),)) == await release(store, [Release(address=A(addresses[1]))])
        await put(store, pool)
        assert (addresses[1],) == await granted(store, asking("next"))
        await clean(store)

    on_store(work)


def test_a_locked_datastore_is_left_alone() -> None:
    """While ClusterInformation says that the datastore is not ready, nothing is claimed, assigned or released."""

    async def work() -> None:
        store = MemoryStore()
        await put(store, V4)
        (address,) = await granted(store, asking())
        await store.txn((), (Put(keys.CLUSTER_INFORMATION, b'{"spec":{"datastoreReady":false}}'),))
        before = await audit.dump(store)
        cidr = next(P(one["cidr"]) for key, one in before.items() if key.startswith(keys.BLOCKS))

        answers = [
            await claim_block(store, V4, "other"),
            await assign(store, asking("new")),
            await assign_at(store, asking("new"), V4.cidr.address(200)),
            await release(store, [Release(address=A(address))]),
            await release_whole(store, [Release(address=A(address))]),
            await release_handle(store, "h"),
            await release_block(store, cidr, "n"),
            await release_node(store, "n"),
        ]

        assert [LOCKED] * 8 == answers
        assert before == await audit.dump(store)
        assert (address,) == await granted(store, asking())
        await store.txn((), (Put(keys.CLUSTER_INFORMATION, b'{"spec":{"datastoreReady":true}}'),))
        assert isinstance(await release_handle(store, "h"), Released)

    asyncio.run(work())


def test_settings_that_cannot_be_read_stop_assignment() -> None:
    """What reservations forbid is not known when they cannot be read, so nothing is given; a pool that cannot be read is told."""

    async def work() -> None:
        store = MemoryStore()
        await put(store, V4)
        await store.txn((), (Put(keys.RESERVATIONS + "r", b'{"spec":{"reservedCIDRs":["x"]}}'),))
        with pytest.raises(Malformed, match="reservedCIDRs"):
            await assign(store, asking())
        await store.txn((), (Delete(keys.RESERVATIONS + "r"), Put(keys.pool_key("v4"), b"{}")))
        assert "pool v4 cannot be read: " in await refusal(store, asking())

    asyncio.run(work())


def test_selectors_and_uses_decide_where_addresses_come_from() -> None:
    """Node labels, the namespace and the use choose the pools; the refusal says of each pool why it does not serve."""

    async def work() -> None:
        store = MemoryStore()
        rack = Pool(name="rack", cidr=P("10.1.0.0/24"), node_selector="rack == 'a'")
        team = Pool(name="team", cidr=P("10.2.0.0/24"), namespace_selector="team == 'x'", allowed_uses=(Use.WORKLOAD,))
        tunnel = Pool(name="tunnel", cidr=P("10.3.0.0/24"), allowed_uses=(Use.TUNNEL,))
        await put(store, rack, team, tunnel)

        assert (await granted(store, asking("1", namespace_labels={"team": "x"})))[0].startswith("10.2.0.")
        assert (await granted(store, asking("2", use=Use.TUNNEL)))[0].startswith("10.3.0.")
        assert (await granted(store, asking("3", pools=("rack",))))[0].startswith("10.1.0.")
        why = await refusal(store, asking("4"))
        assert "pool rack (10.1.0.0/24) does not select the node: rack == 'a'" in why
        assert "pool team (10.2.0.0/24) selects namespaces (team == 'x'), and none is given" in why
        assert "pool tunnel (10.3.0.0/24) allows Tunnel, not Workload" in why
        await put(store, labels={"rack": "a"})
        assert (await granted(store, asking("4")))[0].startswith("10.1.0.")

    asyncio.run(work())


@pytest.mark.parametrize(("cidr", "size"), [("10.0.0.0/8", 26), ("10.1.1.1/32", 32), ("10.0.0.0/20", 20)])
@pytest.mark.parametrize("strict", [False, True])
def test_pools_of_any_size(cidr: str, size: int, strict: bool) -> None:
    """From a single address to a /8, and with the largest block, an address is had in a few calls."""

    async def work() -> None:
        store = Counting()
        pool = Pool(name="p", cidr=P(cidr), block_size=size)
        await put(store, pool, strict_affinity=strict)
        (address,) = await granted(store, asking())

        assert pool.cidr.holds(A(address))
        assert store.calls <= 6
        await clean(store)

    asyncio.run(work())


@pytest.mark.parametrize("size", [116, 122, 128])
def test_ipv6_blocks_of_any_size(size: int) -> None:
    """IPv6 blocks of 4096 addresses to a single one serve; a later block is another one."""

    async def work() -> None:
        store = MemoryStore()
        await put(store, Pool(name="p", cidr=P("fd00:10::/64"), block_size=size))

        found = await granted(store, asking(ipv4=0, ipv6=3))
        assert 3 == len(set(found))
        state = await clean(store)
        assert (3 if size == 128 else 1) == len([key for key in state if key.startswith(keys.BLOCKS)])

    asyncio.run(work())


# ------------------------------------------------------------------ borrowing, reclaiming


def test_a_full_pool_lends_of_other_nodes_blocks() -> None:
    """Where no block is left an address is borrowed, in one transaction with its handle; strict affinity forbids it."""

    async def work() -> None:
        store = MemoryStore()
        pool = Pool(name="p", cidr=P("10.0.0.0/30"), block_size=31)
        await put(store, pool)
        for cidr, node in zip(search_order(pool, "n"), ("o", "q"), strict=True):
            await own(store, cidr, node, claimed="2999-01-01T00:00:00Z")

        (address,) = await granted(store, asking())
        block = await stored_block(store, Prefix.of(A(address), 31))

        assert block.node in ("o", "q")
        assert ((A(address), "n"),) == block_view(block).borrowed
        assert 2 == len(await granted(store, asking("two", ipv4=2)))
        await put(store, pool, strict_affinity=True)
        assert (
            "pool p is full: each block of 10.0.0.0/30 is taken or reserved; "
            "and strict affinity forbids addresses of other nodes' blocks"
        ) == await refusal(store, asking("three"))
        await clean(store)

    asyncio.run(work())


def test_an_old_empty_block_is_reclaimed_before_anything_is_borrowed() -> None:
    """An address that is needed takes an empty block that another node claimed a minute ago; a mere wish for a block does not."""

    async def work() -> None:
        store = MemoryStore()
        pool = Pool(name="p", cidr=P("10.0.0.0/30"), block_size=31)
        await put(store, pool, strict_affinity=True)
        young, old = search_order(pool, "n")
        await own(store, young, "o", claimed="2999-01-01T00:00:00Z")
        await own(store, old, "o")

        assert isinstance(await claim_block(store, pool, "n"), Refused)
        (address,) = await granted(store, asking())

        assert old.holds(A(address))
        assert "n" == (await stored_block(store, old)).node
        state = await clean(store)
        assert keys.affinity_key("o", old) not in state
        assert keys.affinity_key("n", old) in state

    asyncio.run(work())


def test_an_address_is_borrowed_from_a_huge_pool_with_few_blocks() -> None:
    """A node at its limit in a /8 finds the few stored blocks by reading them, not by guessing."""

    async def work() -> None:
        store = Counting()
        pool = Pool(name="p", cidr=P("10.0.0.0/8"))
        await put(store, pool)
        await own(store, P("10.200.3.64/26"), "o")
        full = await granted(store, asking("full", ipv4=64, max_blocks=1))
        store.calls = 0

        (address,) = await granted(store, asking(max_blocks=1))

        assert 64 == len(full)
        assert P("10.200.3.64/26").holds(A(address))
        assert store.calls < 12

    asyncio.run(work())


# ------------------------------------------------------------------ what a search costs


async def fill(store: MemoryStore, pool: Pool, leave: Sequence[int]) -> None:
    """Give all blocks of *pool* but those numbers to another node, full."""
    count = 1 << pool.block_size - pool.cidr.length
    writes = []
    for index in range(count):
        if index not in leave:
            cidr = block_at(pool.cidr, pool.block_size, index)
            block = msgspec.structs.replace(new_block(cidr, "o", 1, None), affinity="host:o")
            writes.append(Put(keys.block_key(cidr), block_bytes(block)))
    for start in range(0, len(writes), 128):
        await store.txn((), writes[start : start + 128])


@pytest.mark.parametrize(("cidr", "size"), [("10.0.0.0/20", 32), ("fd00::/116", 128)])
def test_the_last_free_block_of_a_full_pool_is_found(cidr: str, size: int) -> None:
    """With one block of 4096 free, a bounded number of candidates is read, then the keys in pages; with none, that is said."""

    async def work() -> None:
        store = Counting()
        pool = Pool(name="p", cidr=P(cidr), block_size=size)
        left = list(search_order(pool, "n"))[3000]
        number = (left.network - pool.cidr.network) >> pool.cidr.family.bits - size
        await fill(store, pool, [number])
        store.calls = store.keys = 0

        assert left == await claim_block(store, pool, "n")
        assert store.calls <= PROBES_MAX // 64 + 5
        assert store.keys <= PROBES_MAX + 4096 + 10
        refused = await claim_block(store, pool, "m")
        assert isinstance(refused, Refused)
        assert f"no block of {cidr} is free, and none of 1024 looked at is given up" in refused.reason

    asyncio.run(work())


@pytest.mark.parametrize("others", [0, 10_000, 50_000])
def test_a_claim_costs_the_same_however_many_blocks_others_have(others: int) -> None:
    """Ten nodes' claims beside 0, 10,000 and 50,000 blocks laid side by side in a /8 make at most 15 readings, of a few keys each."""

    async def work() -> None:
        store = Counting()
        pool = Pool(name="p", cidr=P("10.0.0.0/8"))
        cidrs = (block_at(pool.cidr, 26, index) for index in range(others))
        taken = {keys.block_key(cidr): block_bytes(new_block(cidr, "o", 1, None)) for cidr in cidrs}
        store.load(taken)

        for number in range(10):
            assert isinstance(await claim_block(store, pool, f"n{number}"), Prefix)

        assert store.calls <= 15
        assert store.keys <= 150

    asyncio.run(work())


def test_a_claim_rests_on_the_pool_as_it_is_stored() -> None:
    """A pool that was disabled or made anew since the caller looked gives no block."""

    async def work() -> None:
        store = MemoryStore()
        await put(store, msgspec.structs.replace(V4, disabled=True))
        assert Refused("pool v4 is disabled") == await claim_block(store, V4, "n")
        await put(store, msgspec.structs.replace(V4, block_size=30))
        assert Refused("pool v4 is 10.0.0.0/24 with blocks of /30 now") == await claim_block(store, V4, "n")

    asyncio.run(work())


def test_many_single_address_blocks_make_one_request() -> None:
    """A request that takes more rounds than one operation has attempts is met, of blocks of one address each."""

    async def work() -> None:
        store = MemoryStore()
        pool = Pool(name="p", cidr=P("10.0.0.0/24"), block_size=32)
        await put(store, pool, strict_affinity=True, maxBlocksPerHost=70)

        assert 60 == len(set(await granted(store, asking(ipv4=60))))
        assert "limit of 70 blocks reached for node n" in await refusal_of_part(store, asking("more", ipv4=20))
        await clean(store)

    asyncio.run(work())


def test_two_claims_of_a_node_do_not_pass_its_limit() -> None:
    """Claims of two pools at once by one node with room for one block: one gets it, the other is refused."""

    async def work() -> None:
        store = MemoryStore()
        other = Pool(name="q", cidr=P("10.7.0.0/24"), block_size=28)
        await put(store, V4, other, strict_affinity=True, maxBlocksPerHost=1)

        answers = await asyncio.gather(claim_block(store, V4, "n"), claim_block(store, other, "n"))

        assert 1 == len([one for one in answers if isinstance(one, Prefix)])
        assert Refused("limit of 1 blocks reached for node n") in answers

    asyncio.run(work())


# ------------------------------------------------------------------ releasing


def test_what_becomes_of_each_address_is_told(on_store: Any) -> None:
    """Released, not allocated, held by another, assigned anew: each address of a release is in one part of the answer."""

    async def work(store: MemoryStore) -> None:
        await put(store, V4)
        one, two, three = await granted(store, asking(ipv4=3))
        sequence = (await stored_block(store, Prefix.of(A(one), 28))).sequence(A(one))
        outside = A("192.0.2.1")

        answer = await release(
            store,
            [
                Release(address=A(one), handle_id="h", sequence=sequence),
                Release(address=A(two), handle_id="other"),
                Release(address=A(three), sequence=1),
                Release(address=outside),
            ],
        )

        assert isinstance(answer, Released)
        assert ((A(one),), (outside,)) == (answer.released, answer.unallocated)
        assert [
            (A(two), "is held by handle h (node n), not by handle other"),
            (A(three), f"was assigned anew meanwhile (sequence {sequence}, not 1)"),
        ] == list(answer.refused)
        assert {A(two): Prefix.of(A(two), 28)} == await locate(store, [A(two), outside])
        state = await clean(store)
        assert [2] == list(state[keys.handle_key("h")]["block"].values())

    on_store(work)


def test_a_whole_release_is_all_or_none() -> None:
    """A release of several blocks and handles in one transaction frees all, or nothing and says for which address."""

    async def work() -> None:
        store = MemoryStore()
        await put(store, V4, V6)
        addresses = [A(one) for one in await granted(store, asking(ipv4=20, ipv6=2))]
        before = await audit.dump(store)

        refused = await release_whole(
            store, [*(Release(address=one) for one in addresses), Release(address=addresses[3], sequence=5)]
        )
        assert isinstance(refused, Refused)
        assert refused.reason.startswith(f"address {addresses[3]} was assigned anew meanwhile")
        assert before == await audit.dump(store)

        revision = (await store.range("/")).revision
        answer = await release_whole(store, [Release(address=one, handle_id="h") for one in addresses])
        assert isinstance(answer, Released)
        assert set(addresses) == set(answer.released)
        assert revision + 1 == (await store.range("/")).revision
        assert {} == audit.held(await clean(store))
        many = [V4.cidr.address(index) for index in range(0, 256, 4)]
        for index, address in enumerate(many):
            await assign_at(store, asking(f"h{index}"), address)
        with pytest.raises(ValueError, match="64 handles: one transaction holds 60"):
            await release_whole(store, [Release(address=one) for one in many])

    asyncio.run(work())


def test_a_handle_that_counts_too_much_goes_with_its_addresses() -> None:
    """Releasing a handle frees what it has and drops what it only counts, in blocks that are there or not."""

    async def work() -> None:
        store = MemoryStore()
        await put(store, V4)
        await granted(store, asking(ipv4=2))
        key = keys.handle_key("h")
        value = json.loads((await store.get(key)).value)  # type: ignore[union-attr]
        value["block"] |= {"10.0.0.240/28": 3, "10.77.0.0/26": 1}
        await store.txn((), (Put(key, json.dumps(value).encode()),))

        answer = await release_handle(store, "h")

        assert isinstance(answer, Released)
        assert 2 == len(answer.released)
        assert await store.get(key) is None
        assert Released() == await release_handle(store, "h")

    asyncio.run(work())


def test_a_block_is_given_back_as_asked() -> None:
    """An empty block goes with its affinity; one in use becomes nobody's, and its last address takes it along; terms are kept."""

    async def work() -> None:
        store = MemoryStore()
        await put(store, V4)
        cidr = await claim_block(store, V4, "n")
        assert isinstance(cidr, Prefix)
        number = (await stored_block(store, cidr)).sequence_number

        young = await release_block(store, cidr, "n", min_age_s=60)
        assert Refused(f"block {cidr} was claimed less than 60 s ago") == young
        stale = await release_block(store, cidr, "n", sequence=number + 1)
        assert Refused(f"block {cidr} changed meanwhile (sequence {number}, not {number + 1})") == stale
        (address,) = await granted(store, asking())
        used = await release_block(store, cidr, "n", require_empty=True)
        assert Refused(f"block {cidr} is not empty: 1 of its addresses are held or rest") == used

        assert await release_block(store, cidr, "n") is None
        assert (None, 1) == ((await stored_block(store, cidr)).affinity, (await stored_block(store, cidr)).in_use)
        assert (address,) == await granted(store, asking())
        await release_handle(store, "h")
        assert [keys.IPAM_CONFIG] == list(await clean(store))
        assert await release_block(store, cidr, "n") is None

    asyncio.run(work())


def test_an_affinity_whose_claim_is_under_way_is_left() -> None:
    """A pending affinity without its block may be a claim of Calico's that goes on: only with its node does it go."""

    async def work() -> None:
        store = MemoryStore()
        await put(store, V4)
        cidr = next(search_order(V4, "n"))
        await store.txn((), (Put(keys.affinity_key("n", cidr), b'{"state":"pending"}'),))

        refused = await release_block(store, cidr, "n")
        assert Refused(f"a claim of block {cidr} by node n is under way: its affinity is pending") == refused
        assert isinstance(await release_node(store, "n"), Released)
        assert await store.get(keys.affinity_key("n", cidr)) is None

    asyncio.run(work())


def test_a_node_that_is_no_more_gives_everything_back() -> None:
    """Its addresses go, borrowed ones too; its blocks go or, where others have addresses of them, become nobody's."""

    async def work() -> None:
        store = MemoryStore()
        pool = Pool(name="p", cidr=P("10.0.0.0/29"), block_size=30)
        await put(store, pool, V6)
        mine, theirs = search_order(pool, "n")
        await own(store, mine, "n")
        await own(store, theirs, "o")
        await assign_at(store, asking("a"), mine.address(0))
        await assign_at(store, asking("b", "o"), mine.address(1))
        await assign_at(store, asking("c"), theirs.address(0))
        await granted(store, asking("d", ipv4=0, ipv6=1))

        answer = await release_node(store, "n")

        assert isinstance(answer, Released)
        assert {mine.address(0), theirs.address(0)} < set(answer.released)
        state = await clean(store)
        assert {"b"} == set(audit.held(state).values())
        assert not [key for key in state if "/host/n/" in key]
        assert state[keys.block_key(mine)]["affinity"] is None
        assert "host:o" == state[keys.block_key(theirs)]["affinity"]

    asyncio.run(work())


def test_the_release_target_gives_empty_blocks_back() -> None:
    """The reconciler's target gives a block back once it is empty and old enough, and says why not before."""

    async def work() -> None:
        store = MemoryStore()
        await put(store, V4)
        cidr = next(search_order(V4, "n"))
        await own(store, cidr, "n")
        await granted(store, asking())
        target, wish = ReleaseTarget(store), BlockRelease(cidr=cidr, node="n")

        failed = await target.apply([(cidr, wish)])
        assert "is not empty" in failed[cidr]
        await release_handle(store, "h")
        assert ({}, {cidr: wish}) == (await target.apply([(cidr, wish)]), target.actual)
        assert await store.get(keys.block_key(cidr)) is None
        assert ({}, {}) == (await target.apply([(cidr, None)]), target.actual)
        store.outage = "gone"
        assert {cidr: "gone"} == await target.apply([(cidr, wish)])

    asyncio.run(work())


def test_a_broken_block_is_no_ones_to_use() -> None:
    """A block record that cannot be read gives no address and stops no other."""

    async def work() -> None:
        store = MemoryStore()
        await put(store, V4)
        first = await claim_block(store, V4, "n")
        assert isinstance(first, Prefix)
        await store.txn((), (Put(keys.block_key(first), b"{}"),))

        (address,) = await granted(store, asking())

        assert not first.holds(A(address))
        assert b"{}" == (await store.get(keys.block_key(first))).value  # type: ignore[union-attr]
        assert isinstance(await stored_block(store, Prefix.of(A(address), 28)), BlockRecord)

    asyncio.run(work())
