"""Which block a node takes."""

from __future__ import annotations

import msgspec
import pytest

from bgpd.core.ipam.allocate import Claimed, Owned, Probe, Searched, Snapshot, claim, reclaim
from bgpd.core.ipam.block import BlockRecord, Refused, new_block
from bgpd.core.ipam.reserve import Reservation, Reserved
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


def reserving(*cidrs: str) -> Reserved:
    return Reserved([Reservation("r", tuple(map(Prefix.parse, cidrs)))])


def test_a_wholly_reserved_block_is_no_block() -> None:
    """Neither a candidate nor an own block does whose addresses are all reserved, by one reservation or by several together."""
    reserved = reserving("10.65.0.0/27", "10.65.0.32/27", "10.65.0.64/28")
    owned = (Owned(A, AffinityState.CONFIRMED, block(A)),)

    found = claim(snapshot(owned=owned, reserved=reserved, probes=(Probe(A, None), Probe(B, None))), POOL, NODE)

    assert isinstance(found, Claimed)
    assert B == found.cidr


def test_room_is_room_that_is_not_reserved() -> None:
    """An own block whose free addresses are all reserved is full for who needs one."""
    rest = msgspec.structs.replace(block(A), unallocated=(5, 6))
    owned = (Owned(A, AffinityState.CONFIRMED, rest),)

    assert Searched() == claim(snapshot(owned=owned, room=True, reserved=reserving("10.65.0.4/30")), POOL, NODE)
    assert Claimed(cidr=A) == claim(snapshot(owned=owned, room=True, reserved=reserving("10.65.0.5/32")), POOL, NODE)


def test_nobodys_empty_block_is_taken() -> None:
    """A block without affinity that is empty (left by an interrupted release) becomes the node's."""
    left = msgspec.structs.replace(block(B), affinity=None, affinity_claim_time=None)
    found = claim(snapshot(probes=(Probe(B, left),)), POOL, NODE)

    assert isinstance(found, Claimed)
    assert found.block is not None
    assert (B, "host:node-a", 8, True) == (
        found.cidr,
        found.block.affinity,
        found.block.sequence_number,
        found.confirm,
    )


def test_an_affinity_of_another_size_without_block_is_taken_back() -> None:
    """What is left of a pool that was made anew with another block size is not made into a block of it."""
    odd = Prefix.parse("10.65.0.0/28")
    found = claim(snapshot(owned=(Owned(odd, AffinityState.PENDING, None),), probes=(Probe(B, None),)), POOL, NODE)

    assert isinstance(found, Claimed)
    assert (B, (odd,)) == (found.cidr, found.stale)


def test_stale_affinities_do_not_count_against_the_limit() -> None:
    """A node at its limit that loses one affinity along with the claim may take another block."""
    owned = (Owned(B, AffinityState.PENDING, block(B, "node-b")),)

    found = claim(snapshot(owned=owned, held=1, limit=1, probes=(Probe(A, None),)), POOL, NODE)

    assert isinstance(found, Claimed)
    assert A == found.cidr


def test_only_an_old_empty_block_of_another_node_is_reclaimed() -> None:
    """A minute after its claim an empty block of another node may be taken, together with that node's affinity."""
    used = Probe(A, block(A, "node-b", free=False))
    young = Probe(B, msgspec.structs.replace(block(B, "node-b"), affinity_claim_time="2026-08-22T10:00:00Z"))
    virtual = Probe(B, msgspec.structs.replace(block(B), affinity="virtual:load-balancer"))
    old = Probe(C, msgspec.structs.replace(block(C, "node-b"), affinity_claim_time="2026-08-22T09:59:00Z"))

    found = reclaim(snapshot(), [used, young, virtual, old], POOL, NODE)

    assert reclaim(snapshot(), [used, young, virtual], POOL, NODE) is None
    assert reclaim(snapshot(reserved=reserving("10.65.0.128/26")), [old], POOL, NODE) is None
    assert found is not None
    assert found.block is not None
    assert (C, "node-b", "host:node-a", "2026-08-22T10:00:00Z", True) == (
        found.cidr,
        found.taken_from,
        found.block.affinity,
        found.block.affinity_claim_time,
        found.confirm,
    )
