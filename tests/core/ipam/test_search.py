"""In which order a node looks for a block, and what is listed where little is free."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgpd.core.ipam.search import (
    UNIT_BLOCKS,
    Unit,
    block_at,
    block_count,
    common_text,
    first_free,
    search_order,
    units,
)
from bgpd.model.pool import Pool
from bgpd.model.prefix import Address, Prefix

pytestmark = pytest.mark.core

NODE = "node-a"


def pool_of(text: str, size: int) -> Pool:
    return Pool(name="p", cidr=Prefix.parse(text), block_size=size)


@given(st.text(min_size=1, max_size=20), st.integers(16, 32), st.integers(20, 32))
def test_the_search_visits_each_block_once(node: str, length: int, block_size: int) -> None:
    """The order holds every block of the pool once, and none where the pool is smaller than a block."""
    pool = Pool(name="p", cidr=Prefix.of(Address.parse("10.64.0.0"), length), block_size=block_size)
    count = block_count(pool)
    order = list(islice(search_order(pool, node), 2000))

    assert min(count, 2000) == len(order) == len(set(order))
    assert all(pool.cidr.covers(cidr) and cidr.length == block_size for cidr in order)


def test_the_search_of_a_huge_pool_begins_at_once() -> None:
    """The order of an IPv6 pool of 2^58 blocks is not made before it is asked for, and reaches all of the pool."""
    order = list(islice(search_order(pool_of("fd00::/64", 122), NODE), 3))

    assert 3 == len(set(order))
    assert max(order).network - min(order).network > 1 << 60


def test_nodes_of_consecutive_names_begin_apart() -> None:
    """Nodes whose names differ in their last digit do not begin at the same block."""
    firsts = {next(search_order(pool_of("10.0.0.0/16", 26), f"node-{number}")) for number in range(8)}

    assert 8 == len(firsts)


def test_a_part_that_is_taken_without_gaps_is_left_at_once() -> None:
    """Where half of a pool is taken in one piece, none of a hundred nodes looks at more than a few dozen blocks (a walk: thousands)."""
    pool = pool_of("10.0.0.0/12", 26)
    taken = Prefix.parse("10.0.0.0/13")
    steps = [
        next(step for step, cidr in enumerate(search_order(pool, f"n{number}")) if not taken.covers(cidr))
        for number in range(100)
    ]

    assert max(steps) < 40
    assert sum(steps) < 200


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.65.0.0/16", "10.65."),
        ("10.64.0.0/12", "10."),
        ("0.0.0.0/0", ""),
        ("10.65.1.2/32", "10.65.1.2"),
        ("fd00:10::/64", "fd00:10:"),
        ("fd00::/120", "fd00:"),
        ("2001:db8:1:2:3:4:5:0/112", "2001:db8:1:2:3:4:5:"),
        ("::/64", ""),
        ("fd00::5/128", "fd00::5"),
    ],
)
def test_the_common_text_of_a_range(text: str, expected: str) -> None:
    """The text that all addresses of a range begin with is as long as zeros that are left out allow."""
    assert expected == common_text(Prefix.parse(text))


@given(st.integers(0, 2**128 - 1), st.integers(0, 128), st.integers(0, 2**128 - 1), st.booleans())
def test_every_address_of_a_range_begins_with_its_common_text(value: int, length: int, host: int, v6: bool) -> None:
    """Whatever the range and the address in it, the written address begins with the range's text."""
    bits = 128 if v6 else 32
    address = Address(value % (1 << bits) | (1 << 128 if v6 else 0))
    cidr = Prefix.of(address, min(length, bits))

    assert str(cidr.address(host % cidr.size)).startswith(common_text(cidr))


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("10.0.0.0/8", 26), ("10.0.0.0/8", 20), ("10.0.0.0/10", 32), ("10.1.0.0/18", 28), ("10.1.1.1/32", 32),
        ("fd00::/104", 122),
    ],
)  # fmt: skip
def test_units_are_the_pool_in_pages(text: str, size: int) -> None:
    """The units of a pool are apart, are the whole pool, and hold no more blocks than a page where their keys are a range."""
    pool = pool_of(text, size)
    found = list(islice(units(pool, NODE), 70_000))

    assert pool.cidr.size == sum(unit.cidr.size for unit in found)
    assert len(found) == len({unit.cidr for unit in found})
    assert all(pool.cidr.covers(unit.cidr) for unit in found)
    if "." in text:
        assert all(1 << size - unit.cidr.length <= UNIT_BLOCKS for unit in found)


def test_a_pool_too_large_to_list_has_no_units() -> None:
    """An IPv6 pool of 2^58 blocks is not listed."""
    assert [] == list(units(pool_of("fd00::/64", 122), NODE))


@given(st.integers(0, 8), st.sets(st.integers(0, 255)))
def test_the_free_block_of_a_unit_is_found(bits: int, taken: set[int]) -> None:
    """Whatever is taken, a free block of the unit is found, or none where there is none."""
    unit = Unit(Prefix.of(Address.parse("10.65.0.0"), 26 - bits), "")
    every = [block_at(unit.cidr, 26, index) for index in range(1 << bits)]
    used = [every[index] for index in taken if index < len(every)]
    elsewhere = [Prefix.parse("10.99.0.0/26"), Prefix.parse("10.65.0.0/28")]

    found = first_free(unit, 26, [*used, *elsewhere], NODE)

    assert (found is None) == (len(used) == len(every))
    assert found is None or (found in every and found not in used)
