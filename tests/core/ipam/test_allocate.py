"""Which block a node takes."""

from __future__ import annotations

from itertools import islice

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgpd.core.ipam.allocate import Claimed, Owned, Probe, Searched, Snapshot, claim, fnv32, search_order
from bgpd.core.ipam.block import BlockRecord, Refused, new_block
from bgpd.model.pool import AffinityState, Pool
from bgpd.model.prefix import Prefix

pytestmark = pytest.mark.core

POOL = Pool(name="p", cidr=Prefix.parse("10.65.0.0/24"))
NODE = "node-a"
NOW_NS = 1_787_392_800_123_456_789
A, B, C = (Prefix.parse(f"10.65.0.{host}/26") for host in (0, 64, 128))


def block(cidr: Prefix, node: str = NODE, free: bool = True) -> BlockRecord:
    made = new_block(cidr, node, 7, "2026-08-22T10:00:00Z")
    return made if free else msgspec.structs.replace(made, unallocated=())


def snapshot(**given: object) -> Snapshot:
    return Snapshot(now_ns=NOW_NS, **given)  # type: ignore[arg-type]


def test_fnv_is_go_s():
    """The hash is FNV-1 of 32 bits: the published vectors hold."""
    assert [fnv32(text) for text in (b"", b"a", b"foobar")] == [0x811C9DC5, 0x050C5D7E, 0x31F0B262]


@given(st.text(min_size=1, max_size=20), st.integers(16, 26), st.integers(20, 32))
def test_the_search_visits_each_block_once(node, length, block_size):
    """The order begins at the node's place, goes on by one with wrap, and holds every block of the pool once."""
    pool = Pool(name="p", cidr=Prefix.of(Prefix.parse("10.64.0.0/12").network, length), block_size=block_size)
    count = 1 << max(block_size - length, 0) if block_size >= length else 0
    order = list(islice(search_order(pool, node), 2000))

    assert min(count, 2000) == len(order) == len(set(order))
    assert all(pool.cidr.covers(cidr) and cidr.length == block_size for cidr in order)
    if order:
        assert order[0].network == pool.cidr.network + fnv32(node.encode()) % count * order[0].size


def test_the_search_of_a_huge_pool_begins_at_once():
    """The order of an IPv6 pool of 2^58 blocks is not made before it is asked for."""
    pool = Pool(name="p", cidr=Prefix.parse("fd00::/64"), block_size=122)

    assert len(set(islice(search_order(pool, NODE), 3))) == 3


def test_nodes_of_consecutive_names_begin_apart():
    """Nodes whose names differ in their last digit do not begin at the same block."""
    firsts = {next(search_order(Pool(name="p", cidr=Prefix.parse("10.0.0.0/16")), f"node-{n}")) for n in range(8)}

    assert len(firsts) == 8


def test_a_free_candidate_is_claimed_whole():
    """The first free candidate becomes an empty block affine to the node, with a confirmed affinity in the same transaction."""
    taken = Probe(B, block(B, "node-b"))

    assert Claimed(cidr=C, block=new_block(C, NODE, NOW_NS, "2026-08-22T10:00:00Z"), confirm=True) == claim(
        snapshot(probes=(taken, Probe(C, None), Probe(A, None))), POOL, NODE
    )


def test_an_own_block_comes_before_a_new_one():
    """A node that owns a block of the pool writes nothing and takes no other."""
    owned = (Owned(B, AffinityState.CONFIRMED, block(B)),)

    assert Claimed(cidr=B) == claim(snapshot(owned=owned, probes=(Probe(A, None),)), POOL, NODE)


def test_a_full_own_block_does_not_do_where_room_is_needed():
    """If an address is needed, a full own block leads to the search."""
    owned = (Owned(B, AffinityState.CONFIRMED, block(B, free=False)),)

    assert Claimed(cidr=B) == claim(snapshot(owned=owned), POOL, NODE)
    assert Searched() == claim(snapshot(owned=owned, room=True), POOL, NODE)
    found = claim(snapshot(owned=owned, room=True, probes=(Probe(B, block(B, free=False)), Probe(A, None))), POOL, NODE)
    assert isinstance(found, Claimed)
    assert found.cidr == A


@pytest.mark.parametrize("state", [AffinityState.PENDING, AffinityState.PENDING_DELETION])
def test_an_interrupted_claim_is_finished(state):
    """An own block whose affinity is not confirmed is confirmed; the block takes a new revision, which voids a concurrent release."""
    owned = (Owned(B, state, block(B)),)

    assert Claimed(cidr=B, block=msgspec.structs.replace(block(B), sequence_number=8), confirm=True) == claim(
        snapshot(owned=owned), POOL, NODE
    )


def test_an_affinity_without_its_block_gets_it():
    """An affinity whose block is missing gets the block made."""
    found = claim(snapshot(owned=(Owned(B, AffinityState.PENDING, None),), probes=(Probe(A, None),)), POOL, NODE)

    assert isinstance(found, Claimed)
    assert (found.cidr, found.confirm) == (B, True)
    assert found.block is not None


def test_an_affinity_to_another_nodes_block_is_taken_back():
    """Our affinity to a block that is somebody else's is deleted along with the claim of another."""
    owned = (Owned(B, AffinityState.PENDING, block(B, "node-b")),)
    found = claim(snapshot(owned=owned, probes=(Probe(B, block(B, "node-b")), Probe(A, None))), POOL, NODE)

    assert isinstance(found, Claimed)
    assert (found.cidr, found.stale) == (A, (B,))


def test_an_own_block_without_affinity_is_confirmed():
    """A block that is ours although no affinity says so is used before a new one."""
    found = claim(snapshot(probes=(Probe(B, block(B)), Probe(A, None))), POOL, NODE)

    assert isinstance(found, Claimed)
    assert (found.cidr, found.confirm) == (B, True)


def test_an_unreadable_block_is_neither_used_nor_replaced():
    """A malformed record keeps its place: other candidates are taken."""
    owned = (Owned(B, AffinityState.CONFIRMED, None, unreadable=True),)
    found = claim(snapshot(owned=owned, probes=(Probe(C, None, unreadable=True), Probe(A, None))), POOL, NODE)

    assert isinstance(found, Claimed)
    assert found.cidr == A


def test_refusals_say_why():
    """A disabled pool, a node at its limit and a cluster that forbids automatic blocks are refused with their reason."""
    free = (Probe(A, None),)

    assert Refused("pool p is disabled") == claim(snapshot(), msgspec.structs.replace(POOL, disabled=True), NODE)
    assert Refused("limit of 2 blocks reached for node node-a") == claim(
        snapshot(held=2, limit=2, probes=free), POOL, NODE
    )
    refused = claim(snapshot(auto_allocate=False, probes=free), POOL, NODE)
    assert isinstance(refused, Refused)
    assert "auto_allocate_blocks" in refused.reason
