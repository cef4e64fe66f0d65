"""What a census adds up to: exact, and in order."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgpd.core.ipam.block import Attribute, new_block
from bgpd.core.ipam.census import (
    Census,
    PoolIndex,
    StoredAffinity,
    StoredBlock,
    Usage,
    borrowed,
    holdings,
    usage,
)
from bgpd.core.ipam.ranges import Ranges
from bgpd.core.ipam.tunnel import TunnelKind
from bgpd.model.pool import AffinityState, Pool
from bgpd.model.prefix import Address, Prefix

pytestmark = pytest.mark.core

POOL = Pool(name="p", cidr=Prefix.parse("10.65.0.0/24"))
SIX = Pool(name="six", cidr=Prefix.parse("2001:db8::/48"), block_size=122)


def block(text, *handles: str, node="n", at="n", secondary=None):
    """A block of *node* in which each of *handles* has an address on the node *at*."""
    made = new_block(Prefix.parse(text), node, 100 + len(handles), "2026-01-01T00:00:00Z")
    count = len(handles)
    return msgspec.structs.replace(
        made,
        allocations=(*range(count), *made.allocations[count:]),
        unallocated=made.unallocated[count:],
        attributes=tuple(Attribute(handle_id=one, secondary={"node": at, **(secondary or {})}) for one in handles),
        sequence_number_for_allocation={str(ordinal): 100 + ordinal for ordinal in range(count)},
    )


def resting(record, ordinal):
    """The block with one more address that rests."""
    attributes = (*record.attributes, Attribute(handle_id=None, extra={"releasedAt": "2026-01-01T00:00:00Z"}))
    allocations = list(record.allocations)
    allocations[ordinal] = len(attributes) - 1
    free = tuple(one for one in record.unallocated if one != ordinal)
    return msgspec.structs.replace(record, attributes=attributes, allocations=tuple(allocations), unallocated=free)


def stored(record):
    return StoredBlock(record.cidr, record)


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(24, 32)), max_size=8), st.integers(24, 32))
def test_ranges_are_the_set_of_their_addresses(parts, length):
    """A union counts each address once, whatever overlaps, and holds exactly what its prefixes hold."""
    prefixes = [Prefix.of(Address.parse(f"10.0.0.{last}"), size) for last, size in parts]
    ranges = Ranges(prefixes)
    asked = Prefix.of(Address.parse("10.0.0.128"), length)
    expected = {number for prefix in prefixes for number in range(prefix.network, prefix.network + prefix.size)}

    within = range(asked.network, asked.network + asked.size)
    assert sum(number in expected for number in within) == ranges.count(asked)
    assert [number in expected for number in within] == [ranges.holds(Address(number)) for number in within]
    assert bool(expected) == bool(ranges)


def test_a_pool_adds_up():
    """Total is in use, resting, reserved and free together; a reserved address that is held counts as in use only."""
    full = block("10.65.0.0/26", "a", "b")
    census = Census(
        pools=(POOL, SIX),
        reservations=(Prefix.parse("10.65.0.0/31"), Prefix.parse("10.65.0.0/30"), Prefix.parse("10.65.0.255/32")),
        blocks=(stored(resting(full, 2)), stored(block("10.65.0.64/26", node="m"))),
        affinities=(StoredAffinity(full.cidr, "host:n", AffinityState.CONFIRMED),),
    )
    first, six = usage(census)

    # .0 and .1 are held, .2 rests; of the reserved .0 to .3 only .3 is left, and .255 beyond every block.
    assert Usage(total=256, in_use=2, cooling=1, reserved=2, free=251) == first.usage
    assert [(64, 2, 1, 1, 60), (64, 0, 0, 0, 64)] == [msgspec.structs.astuple(one.usage) for one in first.blocks]
    assert [("host:n", "n", "confirmed"), ("host:m", "m", "none")] == [
        (one.owner, one.node, one.affinity) for one in first.blocks
    ]
    assert (2**80, 2**80) == (six.usage.total, six.usage.free)


def test_a_malformed_block_has_nothing_free():
    """A block that cannot be read keeps its place, and none of its addresses counts as free."""
    cidr = Prefix.parse("10.65.0.0/26")
    (pool,) = usage(Census(pools=(POOL,), blocks=(StoredBlock(cidr, None, "broken"),)))

    assert (64, 192) == (pool.usage.reserved, pool.usage.free)
    assert [("broken", 0)] == [(one.defect, one.usage.free) for one in pool.blocks]


def test_blocks_of_no_pool_are_shown_apart():
    """A block that no pool covers stands under a pool without a name, last."""
    found = usage(Census(pools=(POOL,), blocks=(stored(block("192.0.2.0/26", "a")),)))

    assert [("p", 0), ("", 1)] == [(pool.name, len(pool.blocks)) for pool in found]
    assert (64, 1, 63) == (found[1].usage.total, found[1].usage.in_use, found[1].usage.free)


def test_the_most_specific_pool_has_the_block():
    """Where pools overlap a block belongs to the most specific one."""
    inner = Pool(name="inner", cidr=Prefix.parse("10.65.0.0/25"))
    index = PoolIndex((POOL, inner, SIX))

    assert inner == index.of(Address.parse("10.65.0.1"), 26)
    assert POOL == index.of(Address.parse("10.65.0.129"), 26)
    assert POOL == index.of(Address.parse("10.65.0.0"), 24)
    assert None is index.of(Address.parse("10.66.0.0"), 26)
    assert SIX == index.of(Address.parse("2001:db8::1"), 128)


def test_borrowed_is_what_another_node_uses():
    """An address is borrowed where its node is not the block's, and where the block has none."""
    own = block("10.65.0.0/26", "a")
    lent = block("10.65.0.64/26", "b", "c", at="other")
    nobodys = msgspec.structs.replace(block("10.65.0.128/26", "d"), affinity=None)

    assert [] == list(borrowed(own))
    assert [("b", "other"), ("c", "other")] == [(one.handle, one.node) for one in borrowed(lent)]
    assert [("d", "n")] == [(one.handle, one.node) for one in borrowed(nobodys)]
    (pool,) = usage(Census(pools=(POOL,), blocks=(stored(own), stored(lent), stored(nobodys))))
    assert [0, 2, 1] == [one.borrowed for one in pool.blocks]


def test_a_holding_names_its_holder():
    """A holding has its sequence number, and its pod where known, else its handle."""
    (pod,) = holdings(block("10.65.0.0/26", "h", secondary={"pod": "web", "namespace": "shop"}))
    (tunnel,) = holdings(resting(block("10.65.0.0/26", "t", secondary={"type": "vxlanTunnelAddress"}), 5))

    assert ("shop/web", "pod", 100, None) == (pod.allocated_to, pod.type, pod.sequence, pod.tunnel)
    assert ("t", "vxlanTunnelAddress", 100) == (tunnel.allocated_to, tunnel.type, tunnel.sequence)
    assert TunnelKind.VXLAN is tunnel.tunnel
