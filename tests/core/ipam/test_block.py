"""Addresses of a block: Calico's invariants, under any sequence of assignments, releases and rests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgpd.core.ipam.block import (
    Attribute,
    BlockRecord,
    HandleRecord,
    Refused,
    assigned,
    assigned_at,
    defects,
    freed,
    new_block,
    rested,
    touched,
    without_affinity,
    write_time,
)
from bgpd.model.prefix import Address, Prefix

pytestmark = pytest.mark.core

CIDR = Prefix.parse("10.65.0.4/30")
NODE = "node-a"
NOW = datetime(2026, 8, 22, 10, 0, tzinfo=UTC)


def empty(cidr: Prefix = CIDR) -> BlockRecord:
    return new_block(cidr, NODE, 1000, "2026-08-22T10:00:00Z")


def holder(name: str, **attrs: str) -> Attribute:
    return Attribute(handle_id=name, secondary={**attrs, "node": NODE})


def one(block: BlockRecord, name: str) -> tuple[BlockRecord, Address]:
    after, (address,) = assigned(block, holder(name), 1, lambda _: False)
    return after, address


def test_ordinals_begin_at_zero() -> None:
    """A new block hands out its addresses from its first on, the network address included; a full one gives none."""
    block, found = assigned(empty(), holder("a"), 9, lambda _: False)

    assert ["10.65.0.4", "10.65.0.5", "10.65.0.6", "10.65.0.7"] == [str(address) for address in found]
    assert (block, ()) == assigned(block, holder("b"), 1, lambda _: False)


def test_an_address_rests_until_the_block_went_round() -> None:
    """The fifth allocation of a /30 equals the first, though each was released at once."""
    block, found = empty(), []
    for name in "abcde":
        after, address = one(block, name)
        block = freed(after, [address], None)
        found.append(address)

    assert 4 == len(set(found))
    assert found[0] == found[4]


def test_reserved_addresses_are_passed_over() -> None:
    """What is reserved stays in its place among the free ones, and the next is given."""
    reserved = {CIDR.address(0), CIDR.address(2)}

    block, found = assigned(empty(), holder("a"), 3, reserved.__contains__)

    assert (CIDR.address(1), CIDR.address(3)) == found
    assert (0, 2) == block.unallocated


def test_an_explicit_address_is_given_or_its_holder_named() -> None:
    """An address asked for by itself is taken out of its place in the queue; who has it already is named."""
    block = assigned_at(empty(), holder("a", pod="p", namespace="ns"), CIDR.address(2))
    assert isinstance(block, BlockRecord)

    assert (0, 1, 3) == block.unallocated
    assert Refused("address 10.65.0.6 is in use by handle a (pod ns/p, node node-a)") == assigned_at(
        block, holder("b"), CIDR.address(2)
    )


@pytest.mark.parametrize(("stored", "after_two", "after_none"), [(0, 2, 0), (1, 3, 1), (7, 9, 7)])
def test_a_handle_counts_what_it_gained_and_lost(stored: int, after_two: int, after_none: int) -> None:
    """A count goes up and down by what changed in the block, from where it was; one of nothing is not mentioned."""
    block, _ = assigned(empty(), holder("a"), 2, lambda _: False)
    handle = HandleRecord(handle_id="a", block={"10.9.0.0/26": 1, str(CIDR): stored})

    two = handle.counting(empty(), block)
    none = two.counting(block, empty())

    assert {"10.9.0.0/26": 1, str(CIDR): after_two} == two.block
    assert {"10.9.0.0/26": 1, **({str(CIDR): after_none} if after_none else {})} == none.block


def test_a_handle_never_counts_less_than_it_has() -> None:
    """A handle that lost count has it right after the next change of the block."""
    block, _ = assigned(empty(), holder("a"), 2, lambda _: False)
    more, _ = assigned(block, holder("a"), 1, lambda _: False)

    assert {str(CIDR): 3} == HandleRecord(handle_id="a").counting(block, more).block


def test_sequence_numbers_tell_tenants_apart() -> None:
    """An ordinal keeps the number that the block had when it was allocated, and each change adds one to the block's."""
    block, first = one(empty(), "a")
    block, second = one(block, "b")

    assert (1002, 1000, 1001) == (block.sequence_number, block.sequence(first), block.sequence(second))
    assert block.sequence(CIDR.address(3)) is None
    assert {"1": 1001} == freed(block, [first], None).sequence_number_for_allocation


def test_a_resting_address_is_neither_in_use_nor_free() -> None:
    """With a cool-down a released address points to releasedAt alone: not in use, not handed out, and the block is not empty."""
    block, address = one(empty(), "a")
    block = freed(block, [address], write_time(NOW))

    assert (Attribute(handle_id=None, extra={"releasedAt": "2026-08-22T10:00:00Z"}),) == block.attributes
    assert (0, False, ()) == (block.in_use, block.is_empty, defects(block))
    assert CIDR.address(1) == one(block, "b")[1]
    refused = assigned_at(block, holder("b"), address)
    assert Refused("address 10.65.0.4 is in use by nobody: it rests since 2026-08-22T10:00:00Z") == refused


@pytest.mark.parametrize(
    ("released_at", "over"),
    [
        ("2026-08-22T09:59:00Z", True),
        ("2026-08-22T09:59:01Z", False),
        ("2026-08-22T10:05:00Z", False),
        ("2026-08-22T11:00:00Z", True),
        ("2026-08-22T11:59:00+02:00", True),
        ("yesterday", True),
        (None, True),
    ],
)
def test_a_rest_ends(released_at: str | None, over: bool) -> None:
    """A rest of 60 s is over then, and where its begin is unreadable or beyond any clock's error: no address is lost for ever."""
    block, address = one(empty(), "a")
    block = freed(block, [address], "X")
    block = msgspec.structs.replace(block, attributes=(Attribute(handle_id=None, extra={"releasedAt": released_at}),))

    after = rested(block, 60, NOW)

    assert over == after.is_empty
    assert ((1, 2, 3, 0) if over else (1, 2, 3)) == after.unallocated
    assert rested(block, 0, NOW + timedelta(hours=1)).is_empty


def test_a_block_changes_hands_with_its_next_number() -> None:
    """Touching it, and giving up its affinity, are changes that others see."""
    assert 1001 == touched(empty()).sequence_number
    gone = without_affinity(empty())
    assert (None, None, None, 1001) == (gone.affinity, gone.affinity_claim_time, gone.node, gone.sequence_number)


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
def test_a_broken_record_names_its_defect(change: dict[str, object], defect: str) -> None:
    """Each broken invariant has a name of its own."""
    assert defect in defects(msgspec.structs.replace(empty(), **change))


@given(
    st.lists(st.tuples(st.sampled_from(("take", "free", "rest", "wake")), st.integers(0, 9)), max_size=60),
    st.integers(28, 32),
)
def test_invariants_hold_under_any_use(steps: list[tuple[str, int]], length: int) -> None:
    """Whatever is assigned, released and rests: slots, free list and attributes agree, no address has two holders, none is lost."""
    cidr = Prefix.of(Address.parse("10.65.0.0"), length)
    block = empty(cidr)
    held: dict[str, list[Address]] = {}
    for verb, number in steps:
        name = f"h{number}"
        if verb == "take":
            block, given = assigned(block, holder(name), 1 + number % 3, lambda address: address % 7 == 3)
            held.setdefault(name, []).extend(given)
        elif verb == "wake":
            block = rested(block, 0, NOW)
        else:
            block = freed(block, held.pop(name, ()), write_time(NOW) if verb == "rest" else None)

        assert () == defects(block)
        every = [address for addresses in held.values() for address in addresses]
        assert len(every) == block.in_use == len(set(every))
        assert all(sorted(addresses) == sorted(block.held_by(name)) for name, addresses in held.items())
        resting = sum(slot is not None for slot in block.allocations) - block.in_use
        assert cidr.size == block.in_use + resting + len(block.unallocated)
        assert set(range(len(block.attributes))) == {slot for slot in block.allocations if slot is not None}
