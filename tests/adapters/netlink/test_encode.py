from __future__ import annotations

import socket

import pytest
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from bgpd.adapters.netlink import encode
from bgpd.adapters.netlink.socket import Refusal, split
from bgpd.model.forwarding import GroupKey, KernelRoute, Leg, RouteKey, RouteKind
from bgpd.model.prefix import Address, Prefix

pytestmark = pytest.mark.core

A, P = Address.parse, Prefix.parse
VIA = KernelRoute(RouteKind.UNICAST, GroupKey("node"))


def payload(message: bytes) -> tuple[bytes, int, int]:
    ((_, _, _, _, start, end),) = split(message)
    assert end == len(message)
    assert len(message) % 4 == 0
    return message, start, end


@pytest.mark.parametrize(
    ("prefix", "kind", "table"),
    [
        ("10.65.1.0/26", RouteKind.BLACKHOLE, 254),
        ("10.65.1.0/26", RouteKind.UNREACHABLE, 1000),
        ("0.0.0.0/0", RouteKind.BLACKHOLE, 254),
        ("fd65:1::/64", RouteKind.BLACKHOLE, 254),
        ("::/0", RouteKind.UNREACHABLE, 70000),
    ],
)
def test_route_equals_pyroute2(prefix: str, kind: RouteKind, table: int) -> None:
    """A route is encoded to the bytes that pyroute2 makes."""
    parsed = P(prefix)
    theirs = rtmsg()
    theirs["header"]["type"] = encode.RTM_NEWROUTE
    theirs["header"]["flags"] = encode.CREATE
    theirs["header"]["sequence_number"] = theirs["header"]["pid"] = 0
    theirs["family"] = socket.AF_INET if parsed.family == 4 else socket.AF_INET6
    theirs["dst_len"] = parsed.length
    theirs["table"] = table if table < 256 else 0
    theirs["proto"] = 179
    theirs["type"] = encode.TYPE_OF_KIND[kind]
    attributes = [("RTA_TABLE", table)]
    theirs["attrs"] = [*attributes, ("RTA_DST", str(parsed.network))] if parsed.length else attributes
    theirs.encode()

    ours = encode.put_route(RouteKey(parsed, table), KernelRoute(kind), 0, 179, encode.CREATE)

    assert bytes(theirs.data) == ours


def test_fdb_entry_equals_pyroute2() -> None:
    """An FDB entry is encoded to the bytes that pyroute2 makes."""
    theirs = ndmsg()
    theirs["header"]["type"] = encode.RTM_NEWNEIGH
    theirs["header"]["flags"] = encode.PUT
    theirs["header"]["sequence_number"] = theirs["header"]["pid"] = 0
    theirs["family"], theirs["ifindex"], theirs["state"], theirs["flags"] = encode.AF_BRIDGE, 7, 0x80, 2
    theirs["attrs"] = [("NDA_LLADDR", "66:00:00:00:00:02"), ("NDA_DST", "192.0.2.2")]
    theirs.encode()

    assert bytes(theirs.data) == encode.put_fdb(7, "66:00:00:00:00:02", A("192.0.2.2"))


@pytest.mark.parametrize(
    "prefix", ["10.65.1.0/26", "0.0.0.0/0", "128.0.0.0/1", "255.255.255.255/32", "fd65::/64", "::/0"]
)
@pytest.mark.parametrize("table", [254, 100_000])
def test_unicast_route_survives_both_ways(prefix: str, table: int) -> None:
    """What is encoded for a unicast route, short form or long, is decoded to the same."""
    message = encode.put_route(RouteKey(P(prefix), table), VIA, 0x62670001, 179, encode.REPLACE)

    assert encode.decode_route(*payload(message)) == encode.RouteEntry(P(prefix), table, 179, 1, 0, 0, 0x62670001, ())

    removal = encode.remove_route(RouteKey(P(prefix), table), 179)
    metric = 1024 if ":" in prefix else 0  # for IPv6 it is said, or one of any metric would go
    assert encode.decode_route(*payload(removal)) == encode.RouteEntry(P(prefix), table, 179, 0, metric, 0, 0, ())


@pytest.mark.parametrize(("prefix", "source"), [("10.65.1.0/26", "10.1.0.1"), ("fd65::/64", "fd01::1")])
def test_metric_source_and_mtu_survive_both_ways(prefix: str, source: str) -> None:
    """A route's metric, source address and MTU are decoded to what was encoded."""
    value = KernelRoute(RouteKind.UNICAST, GroupKey("node"), A(source), 1400)

    message = encode.put_route(RouteKey(P(prefix), 254, 512), value, 7, 179, encode.CREATE)

    wanted = encode.RouteEntry(P(prefix), 254, 179, 1, 512, 0, 7, (), (), A(source), 1400)
    assert encode.decode_route(*payload(message)) == wanted


def test_hops_without_objects_survive_both_ways() -> None:
    """Written-out hops keep gateway, interface, flags and weights; a gateway of the other family is an RTA_VIA (RFC 8950)."""
    key, legs = RouteKey(P("10.65.1.0/26")), (Leg("up0", A("10.1.0.2"), onlink=True), Leg("up1", A("fe80::2")))

    one = encode.put_route(key, VIA, 0, 179, encode.CREATE, [(3, legs[1], 1)])
    two = encode.put_route(key, VIA, 0, 179, encode.CREATE, [(3, legs[0], 2), (4, legs[1], 5)])

    entry = encode.decode_route(*payload(one))
    assert entry is not None
    assert entry.hops == ((3, A("fe80::2"), 0),)
    entry = encode.decode_route(*payload(two))
    assert entry is not None
    assert (entry.hops, entry.weights) == (((3, A("10.1.0.2"), 4), (4, A("fe80::2"), 0)), (2, 5))


@pytest.mark.parametrize("resilience", [None, encode.Resilience(buckets=64, idle_s=1.5)])
def test_weights_and_kind_of_a_group_survive_both_ways(resilience: encode.Resilience | None) -> None:
    """A group's weights, and whether it is resilient, are decoded to what was encoded; equal weights are left out."""
    weighted = encode.put_group(8, (7, 9), 179, encode.PUT, weights=(1, 256), resilience=resilience)
    equal = encode.put_group(8, (7, 9), 179, encode.PUT, weights=(3, 3))

    resilient = resilience is not None
    read = encode.decode_nexthop(*payload(weighted))
    assert read == encode.NexthopEntry(8, 179, members=(7, 9), weights=(1, 256), resilient=resilient)
    assert encode.decode_nexthop(*payload(equal)) == encode.NexthopEntry(8, 179, members=(7, 9))


@pytest.mark.parametrize("gateway", [A("10.1.0.2"), A("fe80::2"), None])
@pytest.mark.parametrize("onlink", [True, False])
def test_nexthops_survive_both_ways(gateway: Address | None, onlink: bool) -> None:
    """Legs and groups are decoded to what was encoded."""
    leg = encode.put_leg(7, Leg("up0", gateway, onlink), 3, 179, encode.CREATE)
    group = encode.put_group(8, (7, 9), 179, encode.PUT)

    assert encode.decode_nexthop(*payload(leg)) == encode.NexthopEntry(7, 179, 3, gateway, onlink)
    assert encode.decode_nexthop(*payload(group)) == encode.NexthopEntry(8, 179, members=(7, 9))


def test_neighbours_survive_both_ways() -> None:
    """A neighbour is told from a forwarding entry, in both families."""
    for address in (A("10.65.1.0"), A("fd65::1")):
        neighbour = encode.put_neighbour(4, address, "66:00:00:00:00:02")
        fdb = encode.put_fdb(4, "66:00:00:00:00:02", address)

        for message, is_fdb in ((neighbour, False), (fdb, True)):
            read = encode.decode_neighbour(*payload(message))
            assert read == encode.NeighbourEntry(4, is_fdb, address, "66:00:00:00:00:02", permanent=True)


def test_refusal_reads_well() -> None:
    """A refusal says the name of the error, its text, and what the kernel adds."""
    assert str(Refusal(101)) == "ENETUNREACH: Network is unreachable"
    assert str(Refusal(22, "Nexthop id does not exist")) == "EINVAL: Invalid argument (Nexthop id does not exist)"


def test_cut_off_messages_end_the_reading() -> None:
    """A datagram that is cut off, or claims a length below a header's, ends quietly."""
    message = encode.put_group(8, (7, 9), 179, encode.PUT)
    assert list(split(message[:10])) == []
    assert list(split(bytes(32))) == []
    assert len(list(split(message + message[:4]))) == 1
