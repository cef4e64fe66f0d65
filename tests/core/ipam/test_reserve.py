"""Reservations count as their union."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgpd.core.ipam.reserve import Reservation, Reserved
from bgpd.model.prefix import Address, Prefix

pytestmark = pytest.mark.core

P, A = Prefix.parse, Address.parse


def test_reservations_that_cover_a_block_together_cover_it() -> None:
    """Two halves, of different reservations, are the whole; a gap of one address is not covered."""
    halves = Reserved([Reservation("a", (P("10.0.0.0/27"),)), Reservation("b", (P("10.0.0.32/27"), P("fd00::/120")))])

    assert halves.covers(P("10.0.0.0/26"))
    assert not halves.covers(P("10.0.0.0/25"))
    assert halves.covers(P("fd00::40/122"))
    assert (True, False) == (halves.holds(A("10.0.0.63")), halves.holds(A("10.0.0.64")))
    assert ("b", None) == (halves.by(A("10.0.0.40")), halves.by(A("10.0.1.0")))
    assert (64, 0) == (halves.count(P("10.0.0.0/16")), halves.count(P("10.1.0.0/16")))
    assert not Reserved()
    assert not Reserved().covers(P("10.0.0.0/32"))


@given(
    st.lists(st.tuples(st.integers(0, 63), st.integers(26, 32)), max_size=8), st.integers(0, 63), st.integers(26, 32)
)
def test_the_union_is_that_of_the_addresses(ranges: list[tuple[int, int]], at: int, length: int) -> None:
    """Whatever is reserved, holding, covering and counting agree with the set of reserved addresses."""
    base = A("10.0.0.0")
    cidrs = [Prefix.of(Address(base + first), size) for first, size in ranges]
    every = {address for cidr in cidrs for address in range(cidr.network, cidr.network + cidr.size)}
    reserved = Reserved(Reservation(f"r{index}", (cidr,)) for index, cidr in enumerate(cidrs))
    asked = Prefix.of(Address(base + at), length)
    inside = set(range(asked.network, asked.network + asked.size))

    assert (inside <= every) == reserved.covers(asked)
    assert len(inside & every) == reserved.count(asked)
    assert (base + at in every) == reserved.holds(Address(base + at))
    assert (base + at in every) == (reserved.by(Address(base + at)) is not None)
