"""Routes that are alike are encoded by one template: the same bytes as one by one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgpd.adapters.netlink import alike, encode
from bgpd.model.forwarding import GroupKey, KernelKey, KernelRoute, KernelValue, RouteKey, RouteKind
from bgpd.model.prefix import Address, Family, Prefix

pytestmark = pytest.mark.core

VALUES = (
    KernelRoute(RouteKind.UNICAST, GroupKey("node")),
    KernelRoute(RouteKind.UNICAST, GroupKey("node"), mtu_bytes=1400),
    KernelRoute(RouteKind.BLACKHOLE),
    None,
)


def prefixes(family: Family, least: int = 1) -> st.SearchStrategy[Prefix]:
    base = Address.parse("0.0.0.0" if family is Family.IPV4 else "::")
    numbers = st.integers(0, 2**family.bits - 1)
    return st.builds(
        lambda number, length: Prefix.of(Address(base + number), length), numbers, st.integers(least, family.bits)
    )


def message(key: RouteKey, value: KernelRoute | None, flags: int) -> bytes:
    if value is None:
        return encode.remove_route(key, 179)
    return encode.put_route(key, value, 0x62670001, 179, flags)


@given(st.data())
def test_a_template_is_what_each_would_be(data: st.DataObject) -> None:
    """For any prefixes of a family, values, tables and metrics the template gives the messages of the single encoder."""
    family = data.draw(st.sampled_from(Family))
    value = data.draw(st.sampled_from(VALUES))
    flags = data.draw(st.sampled_from([encode.CREATE, encode.REPLACE]))
    table, metric = data.draw(st.sampled_from([254, 1000])), data.draw(st.sampled_from([0, 7]))
    keys = [RouteKey(prefix, table, metric) for prefix in data.draw(st.lists(prefixes(family), min_size=1))]
    single = [message(key, value, flags) for key in keys]

    if len(set(map(len, single))) == 1:  # IPv4 0.0.0.0/n is written in another form
        assert b"".join(single) == alike.spread(single[0], keys)


def test_what_is_not_alike_has_no_template() -> None:
    """A default route has no field for its network, and two families have fields of two sizes."""
    one, six = RouteKey(Prefix.parse("10.0.0.0/8")), RouteKey(Prefix.parse("fd00::/8"))

    for other in (six, RouteKey(Prefix.parse("0.0.0.0/0"))):
        assert alike.spread(message(one, VALUES[2], encode.CREATE), [one, other]) is None
    for other in (one, RouteKey(Prefix.parse("::/0"))):
        assert alike.spread(message(six, VALUES[2], encode.CREATE), [six, other]) is None


@given(
    st.lists(st.tuples(st.integers(0, 60), st.sampled_from(VALUES)), unique_by=lambda pair: pair[0]), st.integers(1, 50)
)
def test_pieces_keep_every_change_and_the_order(pairs: list[tuple[int, KernelRoute | None]], most: int) -> None:
    """No change is lost or doubled; others keep their place between routes, and what is wanted stays before what is not."""
    changes: list[tuple[KernelKey, KernelValue | None]] = [
        (GroupKey(str(number)) if number % 20 == 0 else RouteKey(Prefix.of(Address(number << 8), 24)), value)
        for number, value in pairs
    ]
    split: list[tuple[KernelKey, KernelValue | None]] = []
    for piece in alike.pieces(changes, most):
        split += piece if isinstance(piece, list) else [(key, piece[1]) for key in piece[0]]

    assert sorted(map(repr, changes)) == sorted(map(repr, split))
    marks = [(type(key), value is None) for key, value in changes]
    assert marks == [(type(key), value is None) for key, value in split]
