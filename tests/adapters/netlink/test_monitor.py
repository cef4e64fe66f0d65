from __future__ import annotations

import pytest

from bgpd.adapters.netlink.encode import AddressEntry, Hop, LinkEntry, NexthopEntry, RouteEntry
from bgpd.adapters.netlink.monitor import Surroundings
from bgpd.adapters.netlink.socket import NLM_F_APPEND, NLM_F_REPLACE
from bgpd.model.event import (
    AddressAdded,
    AddressRemoved,
    ForeignRouteChanged,
    ForeignRouteRemoved,
    LinkChanged,
    LinkRemoved,
)
from bgpd.model.forwarding import RouteKey
from bgpd.model.prefix import Address, Prefix

pytestmark = pytest.mark.core

A, P = Address.parse, Prefix.parse
PREFIX = P("10.9.0.0/16")
PREFIX6 = P("fd09::/64")
GATE, OTHER = A("10.0.0.2"), A("10.0.0.3")


def link(
    index: int = 1, name: str = "up0", *, up: bool = True, settled: bool = True, mtu_bytes: int = 1500
) -> LinkEntry:
    return LinkEntry(
        index=index, name=name, up=up, enabled=up, settled=settled, mtu_bytes=mtu_bytes, mac="02:00:00:00:00:01"
    )


def route(
    *hops: Hop, prefix: Prefix = PREFIX, nexthop_id: int = 0, kind: int = 1, table: int = 254, tos: int = 0
) -> RouteEntry:
    return RouteEntry(prefix, table, 4, kind, 0, tos, nexthop_id, hops)


def changed(*hops: tuple[str, Address | None], prefix: Prefix = PREFIX) -> ForeignRouteChanged:
    return ForeignRouteChanged(prefix=prefix, metric=0, hops=hops)


REMOVED = ForeignRouteRemoved(prefix=PREFIX, metric=0)


@pytest.fixture
def around() -> Surroundings:
    made = Surroundings()
    made.read_links([link(), link(2, "up1")])
    made.take_events()
    made.unsure = False
    return made


def test_routes_in_a_table_of_our_own_are_told_apart() -> None:
    """Others' routes beside ours take places, and resolve nothing; those of the main table resolve, and take none; others are not told."""
    around = Surroundings(own=1000)
    around.read_links([link()])
    around.take_events()

    hops = (("up0", GATE),)
    for table in (254, 1000, 1001):
        around.route(route((1, GATE, 0), table=table), present=True, flags=0)
    assert around.take_events() == [
        ForeignRouteChanged(prefix=PREFIX, metric=0, hops=hops, beside=False),
        ForeignRouteChanged(prefix=PREFIX, metric=0, hops=hops, resolves=False),
    ]
    assert [around.holds(RouteKey(PREFIX, table)) for table in (254, 1000)] == [True, True]

    around.route(route((1, GATE, 0), table=1000), present=False, flags=0)
    assert around.take_events() == [ForeignRouteRemoved(prefix=PREFIX, metric=0, resolves=False)]
    assert [around.holds(RouteKey(PREFIX, table)) for table in (254, 1000)] == [True, False]


def test_link_is_told_once_per_change() -> None:
    """A link is told when it changes, and not when the message only repeats."""
    around = Surroundings()
    around.link(link())
    around.link(link())
    around.link(link(mtu_bytes=9000))
    assert around.take_events() == [
        LinkChanged(name="up0", index=1, up=True, mtu_bytes=1500, mac="02:00:00:00:00:01"),
        LinkChanged(name="up0", index=1, up=True, mtu_bytes=9000, mac="02:00:00:00:00:01"),
    ]
    assert not around.unsure

    around.link(link(up=False))
    assert around.unsure


def test_addresses_go_before_their_link(around: Surroundings) -> None:
    """An address counts once duplicate detection is over, and is told gone before its link is."""
    entry = AddressEntry(1, A("fd00::1"), P("fd00::/64"), usable=False)
    around.address(entry, present=True)
    assert around.take_events() == []
    around.address(AddressEntry(1, A("fd00::1"), P("fd00::/64"), usable=True), present=True)
    assert around.take_events() == [AddressAdded("up0", A("fd00::1"), P("fd00::/64"))]

    around.link_gone(1)

    assert around.take_events() == [AddressRemoved("up0", A("fd00::1"), P("fd00::/64")), LinkRemoved("up0")]


def test_renamed_link_moves_its_addresses(around: Surroundings) -> None:
    """A link that is renamed is another link to the core; its addresses move along."""
    around.address(AddressEntry(1, A("10.0.0.1"), P("10.0.0.0/24"), usable=True), present=True)
    around.take_events()

    around.link(link(1, "wan"))

    events = around.take_events()
    assert events[:2] == [AddressRemoved("up0", A("10.0.0.1"), P("10.0.0.0/24")), LinkRemoved("up0")]
    assert [type(event) for event in events[2:]] == [LinkChanged, AddressAdded]
    assert around.index("up0") is None
    assert around.index("wan") == 1
    assert around.unsure


def test_multipath_is_told_whole(around: Surroundings) -> None:
    """All living hops are told, sorted; dead ones are not; a repetition is not told."""
    around.route(route((2, OTHER, 0), (1, GATE, 0)), present=True, flags=0)
    around.route(route((1, GATE, 0), (2, OTHER, 0)), present=True, flags=NLM_F_REPLACE)
    around.route(route((1, GATE, 1), (2, OTHER, 0)), present=True, flags=NLM_F_REPLACE)
    around.route(route((1, GATE, 1), (2, OTHER, 1)), present=True, flags=NLM_F_REPLACE)
    assert around.take_events() == [changed(("up0", GATE), ("up1", OTHER)), changed(("up1", OTHER)), REMOVED]


@pytest.mark.parametrize("entry", [route((1, GATE, 0), table=255), route((1, GATE, 0), tos=8), route(kind=6)])
def test_other_routes_are_not_told(around: Surroundings, entry: RouteEntry) -> None:
    """Other tables, routes by type of service, and routes that drop are not told."""
    around.route(entry, present=True, flags=0)
    assert around.take_events() == []


def test_route_that_becomes_a_blackhole_is_gone(around: Surroundings) -> None:
    """A unicast route replaced by one that drops is removed."""
    around.route(route((1, GATE, 0)), present=True, flags=0)
    around.route(route(kind=6), present=True, flags=NLM_F_REPLACE)
    assert around.take_events() == [changed(("up0", GATE)), REMOVED]


def test_nexthop_objects_are_followed(around: Surroundings) -> None:
    """A route by nexthop id is told with the hops of the group, and again when a member changes."""
    around.nexthop(NexthopEntry(10, 4, 1, GATE))
    around.nexthop(NexthopEntry(11, 4, 2, OTHER))
    around.nexthop(NexthopEntry(12, 4, members=(10, 11)))
    around.route(route(nexthop_id=12), present=True, flags=0)
    around.nexthop(NexthopEntry(10, 4, 1, OTHER))
    around.nexthop_gone(10)
    around.nexthop_gone(12)
    assert around.take_events() == [
        changed(("up0", GATE), ("up1", OTHER)),
        changed(("up0", OTHER), ("up1", OTHER)),
        changed(("up1", OTHER)),
        REMOVED,
    ]


def test_ipv4_route_below_another_is_not_told(around: Surroundings) -> None:
    """Of IPv4 routes with one key the first counts; when it goes, the kernel is read again."""
    around.route(route((1, GATE, 0)), present=True, flags=0)
    around.route(route((2, OTHER, 0)), present=True, flags=NLM_F_APPEND)
    around.route(route((2, OTHER, 0)), present=False, flags=0)
    assert around.take_events() == [changed(("up0", GATE))]
    assert not around.unsure

    around.route(route((2, OTHER, 0)), present=True, flags=0)
    around.route(route((2, OTHER, 0)), present=False, flags=0)
    assert around.unsure


def test_ipv6_siblings_add_up(around: Surroundings) -> None:
    """IPv6 hops come and go one by one under one key."""
    first, second = (1, A("fd00::2"), 0), (2, A("fd01::2"), 0)
    around.route(route(first, prefix=PREFIX6), present=True, flags=0)
    around.route(route(first, second, prefix=PREFIX6), present=True, flags=NLM_F_APPEND)
    around.route(route(first, prefix=PREFIX6), present=False, flags=0)
    around.route(route(second, prefix=PREFIX6), present=False, flags=0)
    one, two = ("up0", A("fd00::2")), ("up1", A("fd01::2"))
    assert around.take_events() == [
        changed(one, prefix=PREFIX6),
        changed(one, two, prefix=PREFIX6),
        changed(two, prefix=PREFIX6),
        ForeignRouteRemoved(prefix=PREFIX6, metric=0),
    ]


def test_reading_tells_the_difference(around: Surroundings) -> None:
    """A whole reading tells what differs from what was told, and nothing else."""
    kept, gone, fresh = P("10.7.0.0/16"), P("10.8.0.0/16"), PREFIX
    around.read_routes([route((1, GATE, 0), prefix=kept), route((1, GATE, 0), prefix=gone)])
    around.take_events()

    around.read_routes([route((1, GATE, 0), prefix=kept), route((1, GATE, 0)), route((2, OTHER, 0))])

    assert around.take_events() == [
        changed(("up0", GATE), prefix=fresh),
        ForeignRouteRemoved(prefix=gone, metric=0),
    ]


def test_what_follows_a_lost_carrier_is_read_when_it_has_happened(around: Surroundings) -> None:
    """A reading that finds the carrier gone but the kernel's routes not yet changed is followed by another, at the message."""
    around.read_links([link(up=False), link(2, "up1")])
    around.take_events()
    around.unsure = False  # read

    around.link(link(up=False, settled=False))

    assert around.unsure
    assert around.take_events() == []


def test_unknown_link_makes_unsure(around: Surroundings) -> None:
    """A route over a link not heard of yet asks for another reading."""
    around.route(route((9, GATE, 0)), present=True, flags=0)
    assert around.take_events() == []
    assert around.unsure
