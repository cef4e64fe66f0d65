"""Addresses of a block: Calico's invariants, under any sequence of assignments and releases."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgpd.core.ipam.block import Assigned, Attribute, BlockRecord, HandleRecord, Refused, assign, defects, new_block
from bgpd.model.prefix import Address, Prefix

pytestmark = pytest.mark.core

CIDR = Prefix.parse("10.65.0.4/30")
NODE = "node-a"


def empty(cidr: Prefix = CIDR) -> BlockRecord:
    return new_block(cidr, NODE, 1000, "2026-08-22T10:00:00Z")


def assigned(block: BlockRecord, handle: HandleRecord, **attrs: str) -> Assigned:
    result = assign(block, handle, attrs, NODE)
    assert isinstance(result, Assigned), result
    return result


def freed(block: BlockRecord, address: Address) -> BlockRecord:
    """Give an address back as Calico does: to the tail, with attributes that nobody refers to any more removed."""
    ordinal = address - block.cidr.network
    allocations = [None if index == ordinal else slot for index, slot in enumerate(block.allocations)]
    kept = sorted({slot for slot in allocations if slot is not None})
    return msgspec.structs.replace(
        block,
        allocations=tuple(None if slot is None else kept.index(slot) for slot in allocations),
        attributes=tuple(block.attributes[slot] for slot in kept),
        unallocated=(*block.unallocated, ordinal),
        sequence_number=block.sequence_number + 1,
        sequence_number_for_allocation={
            key: number for key, number in block.sequence_number_for_allocation.items() if key != str(ordinal)
        },
    )


def test_ordinals_begin_at_zero():
    """A new block hands out its addresses from its first on, the network address included."""
    block, found = empty(), []
    for name in "abcd":
        result = assigned(block, HandleRecord(handle_id=name))
        block = result.block
        found.append(str(result.address))

    assert found == ["10.65.0.4", "10.65.0.5", "10.65.0.6", "10.65.0.7"]
    assert Refused("block 10.65.0.4/30 is full") == assign(block, HandleRecord(handle_id="e"), {}, NODE)


def test_an_address_rests_until_the_block_went_round():
    """The fifth allocation of a /30 equals the first, though each was released at once."""
    block, found = empty(), []
    for name in "abcde":
        result = assigned(block, HandleRecord(handle_id=name))
        block = freed(result.block, result.address)
        found.append(result.address)

    assert len(set(found)) == 4
    assert found[0] == found[4]


def test_the_same_handle_gets_the_same_address():
    """Assigning again for a handle changes neither record and returns the address that it has."""
    first = assigned(empty(), HandleRecord(handle_id="a"), pod="p")

    again = assigned(first.block, first.handle, pod="other")

    assert first == again


def test_a_handle_that_lost_count_is_mended():
    """A handle that does not count its address in the block counts it after it was found there."""
    first = assigned(empty(), HandleRecord(handle_id="a"))

    again = assigned(first.block, HandleRecord(handle_id="a", block={"10.9.0.0/26": 1}))

    assert again.handle.block == {"10.9.0.0/26": 1, "10.65.0.4/30": 1}
    assert first.block is again.block


def test_another_nodes_block_is_refused():
    """A block that is not affine to the node gives it no address."""
    for affinity in ("host:node-b", "virtual:load-balancer", None):
        block = msgspec.structs.replace(empty(), affinity=affinity)
        assert isinstance(assign(block, HandleRecord(handle_id="a"), {}, NODE), Refused)


def test_sequence_numbers_tell_tenants_apart():
    """An ordinal keeps the number that the block had when it was allocated, and each change adds one to the block's."""
    first = assigned(empty(), HandleRecord(handle_id="a"))
    second = assigned(first.block, HandleRecord(handle_id="b"))

    assert (
        second.block.sequence_number,
        second.block.sequence_number_for_allocation,
    ) == (1002, {"0": 1000, "1": 1001})


def test_the_node_is_an_attribute_of_the_holder():
    """A holder's attributes name its node, by which Calico tells a borrowed address."""
    result = assigned(empty(), HandleRecord(handle_id="a"), pod="p", namespace="n")

    assert (
        Attribute(handle_id="a", secondary={"pod": "p", "namespace": "n", "node": NODE}),
    ) == result.block.attributes


def test_a_resting_address_is_neither_in_use_nor_free():
    """An ordinal that points to releasedAt alone is not counted as in use, and is not handed out."""
    block = msgspec.structs.replace(
        empty(),
        allocations=(0, None, None, None),
        attributes=(Attribute(handle_id=None, extra={"releasedAt": "2026-08-22T10:00:00Z"}),),
        unallocated=(1, 2, 3),
    )

    assert defects(block) == ()
    assert block.in_use == 0
    assert str(assigned(block, HandleRecord(handle_id="a")).address) == "10.65.0.5"


@pytest.mark.parametrize(
    ("change", "defect"),
    [
        ({"unallocated": (0, 1, 2, 3, 3)}, "an ordinal is in unallocated more than once"),
        ({"unallocated": (0, 1, 2, 9)}, "an unallocated ordinal is outside the block"),
        ({"unallocated": (0, 1, 2)}, "ordinal 3 is neither allocated nor unallocated"),
        ({"allocations": (0, None, None, None)}, "ordinal 0 is both allocated and unallocated"),
        ({"allocations": (0, None, None, None)}, "an allocation points to no attribute"),
        ({"allocations": (None, None)}, "2 allocations for 4 addresses"),
    ],
)
def test_a_broken_record_names_its_defect(change, defect):
    """Each broken invariant has a name of its own."""
    assert defect in defects(msgspec.structs.replace(empty(), **change))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=60), st.integers(28, 32))
def test_invariants_hold_under_any_use(steps, length):
    """Whatever is assigned and released: slots, free list and attributes agree, no address has two holders, none is lost."""
    cidr = Prefix.of(Address.parse("10.65.0.0"), length)
    block = empty(cidr)
    held: dict[str, Address] = {}
    for take, number in steps:
        name = f"h{number}"
        if take:
            result = assign(block, HandleRecord(handle_id=name), {}, NODE)
            if isinstance(result, Refused):
                assert len(held) == cidr.size
                continue
            assert held.get(name, result.address) == result.address
            assert {str(cidr): 1} == result.handle.block
            held[name] = result.address
            block = result.block
        elif name in held:
            block = freed(block, held.pop(name))

        assert defects(block) == ()
        assert len(held) == block.in_use == len(set(held.values()))
        assert cidr.size == block.in_use + len(block.unallocated)
        assert set(range(len(block.attributes))) == {slot for slot in block.allocations if slot is not None}
