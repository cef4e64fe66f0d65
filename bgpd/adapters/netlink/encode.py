"""rtnetlink messages as bytes, both ways: routes, nexthops, neighbours, FDB entries; links and addresses are only read.

Requests are whole messages whose sequence number and port are zero: socket.py stamps them. All are multiples of four bytes long.
Decoders get a buffer with the bounds of a payload, and return a frozen value, or None for what nobody here asks for.

Sources: include/uapi/linux/{rtnetlink,nexthop,neighbour,if_link,if_addr}.h.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from typing import Final

import msgspec

from bgpd.adapters.netlink.socket import HEADER, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST
from bgpd.model.forwarding import DEFAULT_METRIC, KernelRoute, Leg, RouteKey, RouteKind, RuleKey
from bgpd.model.prefix import Address, Family, Prefix

RTM_NEWLINK: Final = 16
RTM_DELLINK: Final = 17
RTM_GETLINK: Final = 18
RTM_NEWADDR: Final = 20
RTM_DELADDR: Final = 21
RTM_GETADDR: Final = 22
RTM_NEWROUTE: Final = 24
RTM_DELROUTE: Final = 25
RTM_GETROUTE: Final = 26
RTM_NEWNEIGH: Final = 28
RTM_DELNEIGH: Final = 29
RTM_GETNEIGH: Final = 30
RTM_NEWRULE: Final = 32
RTM_DELRULE: Final = 33
RTM_GETRULE: Final = 34
RTM_NEWNEXTHOP: Final = 104
RTM_DELNEXTHOP: Final = 105
RTM_GETNEXTHOP: Final = 106

CREATE: Final = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL
"""Make a new one; EEXIST if there is one, whoever made it."""
REPLACE: Final = NLM_F_REQUEST | NLM_F_REPLACE
"""Change one; ENOENT if there is none."""
PUT: Final = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_REPLACE
"""Make or change; only where the key itself is ours."""
REMOVE: Final = NLM_F_REQUEST

LENGTH_OFFSET: Final = 17
NETWORK_OFFSET: Final = 40
"""Where the message of a route with a prefix other than the default has its length and its network (alike.py)."""

AF_BRIDGE: Final = 7
TYPE_OF_KIND: Final = {
    RouteKind.UNICAST: 1,
    RouteKind.BLACKHOLE: 6,
    RouteKind.UNREACHABLE: 7,
    RouteKind.PROHIBIT: 8,
}
KIND_OF_TYPE: Final = {number: kind for kind, number in TYPE_OF_KIND.items()}
NUD_PERMANENT: Final = 0x80
_NUD_INCOMPLETE: Final = 0x01
_NUD_FAILED: Final = 0x20
RTNH_F_DEAD: Final = 1

_RTNH_F_ONLINK: Final = 4
_NTF_SELF: Final = 2
_SCOPE_LINK: Final = 253
_SCOPE_NOWHERE: Final = 255
_IFF_UP: Final = 1
_IFF_RUNNING: Final = 0x40
_IFF_LOWER_UP: Final = 0x10000
_IFA_F_TENTATIVE: Final = 0x40
_IFA_F_DADFAILED: Final = 0x08
_IFA_F_OPTIMISTIC: Final = 0x04

_RTM: Final = struct.Struct("=BBBBBBBBI")  # family, dst_len, src_len, tos, table, protocol, scope, type, flags
_NHM: Final = struct.Struct("=BBBBI")  # family, scope, protocol, reserved, flags
_NDM: Final = struct.Struct("=BBHiHBB")  # family, pad, pad, ifindex, state, flags, type
_IFI: Final = struct.Struct("=BBHiII")  # family, pad, type, index, flags, change
_IFA: Final = struct.Struct("=BBBBI")  # family, prefixlen, flags, scope, index
_RTNH: Final = struct.Struct("=HBBi")  # length, flags, weight - 1, ifindex
_GROUP: Final = struct.Struct("=IBBH")  # id, weight - 1, weight high, reserved
_U16: Final = struct.Struct("=H")
_ATTRIBUTE: Final = struct.Struct("=HH")
_U8: Final = struct.Struct("=B")
_U32: Final = struct.Struct("=I")
_U16_NETWORK: Final = struct.Struct("!H")
_PUT_ROUTE_V4: Final = struct.Struct("=IHHII BBBBBBBBI HHI HHI HHI")
"""A whole IPv4 unicast route: header, rtmsg, RTA_TABLE, RTA_DST, RTA_NH_ID. One pack call is a third of the cost of five."""
_REMOVE_ROUTE_V4: Final = struct.Struct("=IHHII BBBBBBBBI HHI HHI")
_PLAIN_ROUTE_V4: Final = struct.Struct("=BBBBBBBBI 2xHI 2xHI 2xHI")
"""rtmsg, RTA_TABLE, RTA_DST, RTA_NH_ID, without the lengths of the attributes: an IPv4 route that has nothing else before its nexthop."""
_LAST_V4: Final = 0xFFFFFFFF
_INET: Final = int(socket.AF_INET)
_htonl = socket.htonl
_ntohl = socket.ntohl

_RTA_DST: Final = 1
_RTA_OIF: Final = 4
_RTA_GATEWAY: Final = 5
_RTA_PRIORITY: Final = 6
_RTA_PREFSRC: Final = 7
_RTA_METRICS: Final = 8
_RTAX_MTU: Final = 2
_RTA_MULTIPATH: Final = 9
_RTA_TABLE: Final = 15
_RTA_VIA: Final = 18
_RTA_NH_ID: Final = 30
_FRA_PRIORITY: Final = 6
_FRA_FWMARK: Final = 10
_FRA_SUPPRESS_PREFIXLEN: Final = 14
_FRA_TABLE: Final = 15
_FRA_FWMASK: Final = 16
_FRA_PROTOCOL: Final = 21
_OTHER_SELECTORS: Final = frozenset({1, 2, 3, 4, 5, 11, 12, 13, 17, 19, 20, 22, 23, 24})
"""FRA_ DST, SRC, IIFNAME, GOTO, UNUSED2, FLOW, TUN_ID, SUPPRESS_IFGROUP, OIFNAME, L3MDEV, UID_RANGE, IP_PROTO, SPORT_RANGE, DPORT_RANGE."""
_FR_ACT_TO_TBL: Final = 1
_FIB_RULE_INVERT: Final = 2
_NO_LENGTH: Final = 0xFFFFFFFF
_NHA_ID: Final = 1
_NHA_GROUP: Final = 2
_NHA_GROUP_TYPE: Final = 3
_NHA_OIF: Final = 5
_NHA_GATEWAY: Final = 6
_NHA_RES_GROUP: Final = 12
_NHA_RES_GROUP_BUCKETS: Final = 1
_NHA_RES_GROUP_IDLE_TIMER: Final = 2
_NHA_RES_GROUP_UNBALANCED_TIMER: Final = 3
_GROUP_RESILIENT: Final = 1
_USER_HZ: Final = 100
"""Timers of resilient groups are in clock ticks of this many a second, whatever the kernel's own (linux/nexthop.h)."""
_NLA_F_NESTED: Final = 0x8000
_NDA_DST: Final = 1
_NDA_LLADDR: Final = 2
_NDA_IFINDEX: Final = 8
_IFLA_ADDRESS: Final = 1
_IFLA_IFNAME: Final = 3
_IFLA_MTU: Final = 4
_IFLA_LINKINFO: Final = 18
_IFLA_INFO_KIND: Final = 1
_IFLA_INFO_DATA: Final = 2
_IFLA_VRF_TABLE: Final = 1
_IFLA_VXLAN_ID: Final = 1
_IFLA_VXLAN_LOCAL: Final = 4
_IFLA_VXLAN_LEARNING: Final = 7
_IFLA_VXLAN_PORT: Final = 15
_IFLA_VXLAN_LOCAL6: Final = 17
_IFLA_IPTUN_LOCAL: Final = 2
_IFLA_IPTUN_REMOTE: Final = 3
_IFA_ADDRESS: Final = 1
_IFA_LOCAL: Final = 2
_IFA_FLAGS: Final = 8

Hop = tuple[int, Address | None, int]
"""Interface index, gateway, RTNH_F_ flags."""


class RouteEntry(msgspec.Struct, frozen=True):
    """A route as the kernel tells it."""

    prefix: Prefix
    table: int
    protocol: int
    type: int
    """RTN_…: 1 is unicast."""
    metric: int
    tos: int
    nexthop_id: int
    """0: none, look at *hops*."""
    hops: tuple[Hop, ...]
    weights: tuple[int, ...] = ()
    """One for each of *hops*; empty where all are equal."""
    source: Address | None = None
    mtu_bytes: int = 0


class NexthopEntry(msgspec.Struct, frozen=True):
    """A nexthop object: a leg if it has an ifindex, a group if it has members, else a kind that we do not use."""

    id: int
    protocol: int
    ifindex: int = 0
    gateway: Address | None = None
    onlink: bool = False
    members: tuple[int, ...] = ()
    weights: tuple[int, ...] = ()
    """One for each of *members*; empty where all are equal."""
    resilient: bool = False


class Resilience(msgspec.Struct, frozen=True, kw_only=True):
    """How a resilient group spreads flows (Documentation/networking/nexthop-group-resilient.rst)."""

    buckets: int
    """Hash buckets of a group: at least as many as it has legs."""
    idle_s: float = 120.0
    """A bucket moves to another leg only after so long without traffic."""
    unbalanced_s: float = 0.0
    """Move buckets by force once the group is out of balance for so long; 0: never."""


class RuleEntry(msgspec.Struct, frozen=True):
    """A rule of policy routing."""

    priority: int
    table: int
    protocol: int
    key: RuleKey | None = None
    """None: it selects by more than we do."""


class LinkEntry(msgspec.Struct, frozen=True):
    index: int
    name: str
    up: bool
    """Administratively up and with carrier."""
    enabled: bool
    """Administratively up."""
    settled: bool
    """Operationally up: follows the carrier, together with what the kernel does to routes (net/core/link_watch.c)."""
    mtu_bytes: int
    mac: str
    kind: str = ""
    vni: int = 0
    port: int = 0
    local: Address | None = None
    remote: Address | None = None
    """The one remote end of an IPIP tunnel; None: any."""
    learning: bool = True
    table: int = 0
    """Routing table of a VRF device; 0 for any other."""


class AddressEntry(msgspec.Struct, frozen=True):
    index: int
    address: Address
    subnet: Prefix
    usable: bool
    """False while duplicate address detection runs, or after it failed."""


class NeighbourEntry(msgspec.Struct, frozen=True):
    index: int
    fdb: bool
    """A forwarding entry (frames to *mac* go to *address*), not a neighbour (*address* has *mac*)."""
    address: Address | None
    mac: str
    permanent: bool
    failed: bool = False
    """Nobody answers for the address."""
    asking: bool = False
    """An answer is waited for."""


# ------------------------------------------------------------------ requests


def put_route(  # noqa: PLR0917 - on the way of every route: keywords cost a tenth of it
    key: RouteKey,
    value: KernelRoute,
    nexthop_id: int,
    protocol: int,
    flags: int,
    hops: Sequence[tuple[int, Leg, int]] = (),
    *,
    metrics: bool = False,
) -> bytes:
    """A route by nexthop id or by *hops* (interface index, leg, weight), or one that drops.

    *flags*: CREATE or REPLACE, never PUT: the key may be another's. *metrics*: say the MTU even if it is 0. Without, the kernel takes
    whatever route it finds with the same nexthop id as a model, with that one's MTU (net/ipv4/fib_semantics.c: fib_find_info_nh).
    """
    network = key.prefix >> 8
    special = hops or metrics or key.metric or value.mtu_bytes or value.source is not None
    if not special and value.kind is RouteKind.UNICAST and 0 < network <= _LAST_V4:
        # fmt: off
        return _PUT_ROUTE_V4.pack(
            52, RTM_NEWROUTE, flags, 0, 0,
            _INET, key.prefix & 255, 0, 0, key.table if key.table < 256 else 0, protocol, 0, 1, 0,
            8, _RTA_TABLE, key.table, 8, _RTA_DST, _htonl(network), 8, _RTA_NH_ID, nexthop_id,
        )
        # fmt: on
    attributes = _route_key(key)
    scope = route_flags = 0
    if value.source is not None:
        attributes += _attribute(_RTA_PREFSRC, value.source.packed)
    if hops:
        if all(leg.gateway is None for _, leg, _ in hops) and key.prefix.family is Family.IPV4:
            scope = _SCOPE_LINK
        route_flags = _onlink(hops[0][1]) if len(hops) == 1 else 0
        attributes += _hops(hops, key.prefix.family)
    elif value.kind is RouteKind.UNICAST:
        attributes += _u32(_RTA_NH_ID, nexthop_id)
    if value.mtu_bytes or metrics:
        attributes += _attribute(_RTA_METRICS, _u32(_RTAX_MTU, value.mtu_bytes))
    kind = TYPE_OF_KIND[value.kind]
    return _route(
        RTM_NEWROUTE, key, attributes, flags, protocol=protocol, scope=scope, route_type=kind, route_flags=route_flags
    )


def _hops(hops: Sequence[tuple[int, Leg, int]], family: Family) -> bytes:
    """Write next hops without objects: one by attributes of the route, more than one by RTA_MULTIPATH."""
    if len(hops) == 1:
        index, leg, _ = hops[0]
        return _gateway_of(leg, family) + _u32(_RTA_OIF, index)
    packed = b""
    for index, leg, weight in hops:
        gateway = _gateway_of(leg, family)
        packed += _RTNH.pack(8 + len(gateway), _onlink(leg), weight - 1, index) + gateway
    return _attribute(_RTA_MULTIPATH, packed)


def _gateway_of(leg: Leg, family: Family) -> bytes:
    if leg.gateway is None:
        return b""
    if leg.gateway.family is family:
        return _attribute(_RTA_GATEWAY, leg.gateway.packed)
    return _attribute(_RTA_VIA, _U16.pack(_family(leg.gateway)) + leg.gateway.packed)  # RFC 8950


def _onlink(leg: Leg) -> int:
    return _RTNH_F_ONLINK if leg.onlink else 0


def remove_route(key: RouteKey, protocol: int) -> bytes:
    """Remove a route of that protocol, of any type and scope; ESRCH if there is none."""
    network = key.prefix >> 8
    if 0 < network <= _LAST_V4 and not key.metric:
        # fmt: off
        return _REMOVE_ROUTE_V4.pack(
            44, RTM_DELROUTE, REMOVE, 0, 0,
            _INET, key.prefix & 255, 0, 0, key.table if key.table < 256 else 0, protocol, _SCOPE_NOWHERE, 0, 0,
            8, _RTA_TABLE, key.table, 8, _RTA_DST, _htonl(network),
        )
        # fmt: on
    attributes = _route_key(key)
    if not key.metric and key.prefix.family is Family.IPV6:
        attributes += _u32(_RTA_PRIORITY, DEFAULT_METRIC[Family.IPV6])  # without it, one of any metric is removed
    return _route(RTM_DELROUTE, key, attributes, REMOVE, protocol=protocol, scope=_SCOPE_NOWHERE, route_type=0)


def remove_entry(entry: RouteEntry) -> bytes:
    """Remove just this route, of whatever TOS and type; ESRCH if it is gone."""
    key = RouteKey(entry.prefix, entry.table, entry.metric)
    message = bytearray(
        _route(
            RTM_DELROUTE,
            key,
            _route_key(key),
            REMOVE,
            protocol=entry.protocol,
            scope=_SCOPE_NOWHERE,
            route_type=entry.type,
        )
    )
    message[HEADER.size + 3] = entry.tos
    return bytes(message)


def put_rule(key: RuleKey, protocol: int) -> bytes:
    """Make a rule; EEXIST if there is one like it, whoever made it."""
    return _message(RTM_NEWRULE, CREATE, _rule(key, protocol))


def remove_rule(key: RuleKey, protocol: int) -> bytes:
    """Remove a rule of that protocol; ENOENT if there is none."""
    return _message(RTM_DELRULE, REMOVE, _rule(key, protocol))


def remove_rule_told(rule: bytes) -> bytes:
    """Remove a rule of whatever form, told by what the kernel said of it."""
    return _message(RTM_DELRULE, REMOVE, rule)


def _rule(key: RuleKey, protocol: int) -> bytes:
    family = socket.AF_INET6 if key.family is Family.IPV6 else socket.AF_INET
    table = key.table if key.table < 256 else 0
    attributes = _u32(_FRA_PRIORITY, key.priority) + _u32(_FRA_TABLE, key.table)
    attributes += _attribute(_FRA_PROTOCOL, _U8.pack(protocol))
    if key.mask:
        attributes += _u32(_FRA_FWMARK, key.mark) + _u32(_FRA_FWMASK, key.mask)
    flags = _FIB_RULE_INVERT if key.inverted else 0
    return _RTM.pack(family, 0, 0, 0, table, 0, 0, _FR_ACT_TO_TBL, flags) + attributes


def make_link(name: str, kind: str) -> bytes:
    """A device of *kind* without anything more: enough to see whether the kernel knows it."""
    attributes = _attribute(_IFLA_IFNAME, name.encode() + b"\0")
    attributes += _attribute(_IFLA_LINKINFO | _NLA_F_NESTED, _attribute(_IFLA_INFO_KIND, kind.encode()))
    return _message(RTM_NEWLINK, CREATE, bytes(_IFI.size) + attributes)


def remove_link(index: int) -> bytes:
    """Remove a device; ENODEV if there is none."""
    return _message(RTM_DELLINK, REMOVE, _IFI.pack(0, 0, 0, index, 0, 0))


def put_leg(nexthop_id: int, leg: Leg, ifindex: int, protocol: int, flags: int, *, ipv6: bool = True) -> bytes:
    """A nexthop object; *flags*: CREATE or PUT. Its family is its gateway's.

    Without a gateway it is an IPv6 one, which IPv4 routes take as well; not where the device has no IPv6 (*ipv6* false).
    """
    family = _family(leg.gateway) if leg.gateway is not None else socket.AF_INET6 if ipv6 else socket.AF_INET
    attributes = _u32(_NHA_ID, nexthop_id) + _u32(_NHA_OIF, ifindex)
    if leg.gateway is not None:
        attributes += _attribute(_NHA_GATEWAY, leg.gateway.packed)
    return _message(RTM_NEWNEXTHOP, flags, _NHM.pack(family, 0, protocol, 0, _onlink(leg)) + attributes)


def put_group(
    nexthop_id: int,
    members: tuple[int, ...],
    protocol: int,
    flags: int,
    *,
    weights: tuple[int, ...] = (),
    resilience: Resilience | None = None,
) -> bytes:
    """A group: made (CREATE), or all its members replaced at once (PUT). Without *weights* all are equal."""
    packed = b"".join(
        _GROUP.pack(member, weight - 1, 0, 0)
        for member, weight in zip(members, weights or (1,) * len(members), strict=True)
    )
    attributes = _u32(_NHA_ID, nexthop_id) + _attribute(_NHA_GROUP, packed)
    if resilience is not None:
        attributes += _attribute(_NHA_GROUP_TYPE, _U16.pack(_GROUP_RESILIENT))
        attributes += _attribute(
            _NHA_RES_GROUP | _NLA_F_NESTED,
            _attribute(_NHA_RES_GROUP_BUCKETS, _U16.pack(resilience.buckets))
            + _u32(_NHA_RES_GROUP_IDLE_TIMER, round(resilience.idle_s * _USER_HZ))
            + _u32(_NHA_RES_GROUP_UNBALANCED_TIMER, round(resilience.unbalanced_s * _USER_HZ)),
        )
    return _message(RTM_NEWNEXTHOP, flags, _NHM.pack(socket.AF_UNSPEC, 0, protocol, 0, 0) + attributes)


def remove_nexthop(nexthop_id: int) -> bytes:
    """Remove a leg or a group; ENOENT if there is none. The kernel removes what points to it, too."""
    return _message(RTM_DELNEXTHOP, REMOVE, bytes(_NHM.size) + _u32(_NHA_ID, nexthop_id))


def put_neighbour(ifindex: int, address: Address, mac: str) -> bytes:
    """A permanent neighbour entry."""
    head = _NDM.pack(_family(address), 0, 0, ifindex, NUD_PERMANENT, 0, 0)
    return _message(RTM_NEWNEIGH, PUT, head + _attribute(_NDA_DST, address.packed) + _attribute(_NDA_LLADDR, _mac(mac)))


def remove_neighbour(ifindex: int, address: Address) -> bytes:
    head = _NDM.pack(_family(address), 0, 0, ifindex, 0, 0, 0)
    return _message(RTM_DELNEIGH, REMOVE, head + _attribute(_NDA_DST, address.packed))


def put_fdb(ifindex: int, mac: str, address: Address) -> bytes:
    """A permanent forwarding entry in the VXLAN device's own table."""
    head = _NDM.pack(AF_BRIDGE, 0, 0, ifindex, NUD_PERMANENT, _NTF_SELF, 0)
    return _message(RTM_NEWNEIGH, PUT, head + _attribute(_NDA_LLADDR, _mac(mac)) + _attribute(_NDA_DST, address.packed))


def remove_fdb(ifindex: int, mac: str) -> bytes:
    head = _NDM.pack(AF_BRIDGE, 0, 0, ifindex, NUD_PERMANENT, _NTF_SELF, 0)
    return _message(RTM_DELNEIGH, REMOVE, head + _attribute(_NDA_LLADDR, _mac(mac)))


def dump_links() -> bytes:
    return _message(RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, bytes(_IFI.size))


def dump_addresses() -> bytes:
    return _message(RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP, bytes(_IFA.size))


def dump_nexthops() -> bytes:
    return _message(RTM_GETNEXTHOP, NLM_F_REQUEST | NLM_F_DUMP, bytes(_NHM.size))


def dump_routes(family: Family, protocol: int = 0) -> bytes:
    """Every table, since ours may be in any; with *protocol* only the routes of that (the kernel filters)."""
    number = socket.AF_INET if family is Family.IPV4 else socket.AF_INET6
    return _message(RTM_GETROUTE, NLM_F_REQUEST | NLM_F_DUMP, _RTM.pack(number, 0, 0, 0, 0, protocol, 0, 0, 0))


def dump_rules(family: Family) -> bytes:
    number = socket.AF_INET if family is Family.IPV4 else socket.AF_INET6
    return _message(RTM_GETRULE, NLM_F_REQUEST | NLM_F_DUMP, _RTM.pack(number, 0, 0, 0, 0, 0, 0, 0, 0))


def dump_neighbours(family: Family, ifindex: int) -> bytes:
    """Neighbours on one device."""
    number = socket.AF_INET if family is Family.IPV4 else socket.AF_INET6
    head = _NDM.pack(number, 0, 0, 0, 0, 0, 0)
    return _message(RTM_GETNEIGH, NLM_F_REQUEST | NLM_F_DUMP, head + _u32(_NDA_IFINDEX, ifindex))


def dump_all_neighbours(family: Family) -> bytes:
    """Neighbours on every device."""
    number = socket.AF_INET if family is Family.IPV4 else socket.AF_INET6
    return _message(RTM_GETNEIGH, NLM_F_REQUEST | NLM_F_DUMP, _NDM.pack(number, 0, 0, 0, 0, 0, 0))


def dump_fdb(ifindex: int) -> bytes:
    """Forwarding entries of one device."""
    head = _NDM.pack(AF_BRIDGE, 0, 0, ifindex, 0, 0, 0)
    return _message(RTM_GETNEIGH, NLM_F_REQUEST | NLM_F_DUMP, head)


def _message(kind: int, flags: int, payload: bytes) -> bytes:
    return HEADER.pack(16 + len(payload), kind, flags, 0, 0) + payload


def _route(
    kind: int,
    key: RouteKey,
    attributes: bytes,
    flags: int,
    *,
    protocol: int,
    scope: int,
    route_type: int,
    route_flags: int = 0,
) -> bytes:
    family = socket.AF_INET6 if key.prefix.family is Family.IPV6 else socket.AF_INET
    table = key.table if key.table < 256 else 0
    head = _RTM.pack(family, key.prefix.length, 0, 0, table, protocol, scope, route_type, route_flags)
    return _message(kind, flags, head + attributes)


def _route_key(key: RouteKey) -> bytes:
    attributes = _u32(_RTA_TABLE, key.table)
    if key.prefix.length:
        attributes += _attribute(_RTA_DST, key.prefix.network.packed)
    return attributes + _u32(_RTA_PRIORITY, key.metric) if key.metric else attributes


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


def _u32(kind: int, value: int) -> bytes:
    return _ATTRIBUTE.pack(8, kind) + _U32.pack(value)


def _family(address: Address) -> int:
    return socket.AF_INET6 if address.family is Family.IPV6 else socket.AF_INET


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


# ------------------------------------------------------------------ answers and notifications


def _attributes(data: bytes, start: int, end: int) -> dict[int, bytes]:
    """Split attributes; of one that is repeated the last counts. Flags in the type (nested, byte order) are dropped."""
    found: dict[int, bytes] = {}
    while start + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, start)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[start + 4 : start + length]
        start += length + 3 & ~3
    return found


def decode_route(data: bytes, start: int, end: int) -> RouteEntry | None:
    if (
        end - start >= _PLAIN_ROUTE_V4.size
    ):  # ours, by the hundred thousand: told by the order in which the kernel writes
        found = _PLAIN_ROUTE_V4.unpack_from(data, start)
        if found[0] == _INET and found[9] == _RTA_TABLE and found[11] == _RTA_DST and found[13] == _RTA_NH_ID:
            prefix = Prefix(_ntohl(found[12]) << 8 | found[1])
            return RouteEntry(prefix, found[10], found[5], found[7], 0, found[3], found[14], ())
    return _decode_any_route(data, start, end)


def _decode_any_route(data: bytes, start: int, end: int) -> RouteEntry | None:
    family, length, _, tos, table, protocol, _, kind, flags = _RTM.unpack_from(data, start)
    if family not in {socket.AF_INET, socket.AF_INET6}:
        return None
    found = _attributes(data, start + 12, end)
    if _RTA_TABLE in found:
        table = _U32.unpack(found[_RTA_TABLE])[0]
    packed = found.get(_RTA_DST) or bytes(4 if family == socket.AF_INET else 16)
    prefix = Prefix.of(Address.from_packed(packed), length)
    metric = _U32.unpack(found[_RTA_PRIORITY])[0] if _RTA_PRIORITY in found else 0
    nexthop_id = _U32.unpack(found[_RTA_NH_ID])[0] if _RTA_NH_ID in found else 0
    hops: tuple[Hop, ...] = ()
    weights: tuple[int, ...] = ()
    if not nexthop_id and _RTA_MULTIPATH in found:
        hops, weights = _multipath(found[_RTA_MULTIPATH])
    elif not nexthop_id:
        hops = _single_hop(found, flags)
    source = Address.from_packed(found[_RTA_PREFSRC]) if _RTA_PREFSRC in found else None
    mtu_bytes = _mtu(found[_RTA_METRICS]) if _RTA_METRICS in found else 0
    return RouteEntry(prefix, table, protocol, kind, metric, tos, nexthop_id, hops, weights, source, mtu_bytes)


def _mtu(metrics: bytes) -> int:
    found = _attributes(metrics, 0, len(metrics))
    return int(_U32.unpack(found[_RTAX_MTU])[0]) if _RTAX_MTU in found else 0


def _single_hop(found: dict[int, bytes], flags: int) -> tuple[Hop, ...]:
    if _RTA_OIF not in found:
        return ()
    return ((_U32.unpack(found[_RTA_OIF])[0], _gateway(found), flags & 0xFF),)


def _multipath(data: bytes) -> tuple[tuple[Hop, ...], tuple[int, ...]]:
    """Return hops and their weights."""
    hops: list[Hop] = []
    weights: list[int] = []
    offset = 0
    while offset + 8 <= len(data):
        length, flags, weight, ifindex = _RTNH.unpack_from(data, offset)
        if length < 8:
            break
        hops.append((ifindex, _gateway(_attributes(data, offset + 8, offset + length)), flags))
        weights.append(weight + 1)
        offset += length + 3 & ~3
    return tuple(hops), _unequal(weights)


def _unequal(weights: Sequence[int]) -> tuple[int, ...]:
    """Leave equal weights out."""
    return tuple(weights) if len(set(weights)) > 1 else ()


def _gateway(found: dict[int, bytes]) -> Address | None:
    if _RTA_GATEWAY in found:
        return Address.from_packed(found[_RTA_GATEWAY])
    if _RTA_VIA in found:  # a gateway of another family (RFC 8950): family in two bytes, then the address
        return Address.from_packed(found[_RTA_VIA][2:])
    return None


def decode_nexthop(data: bytes, start: int, end: int) -> NexthopEntry | None:
    _, _, protocol, _, flags = _NHM.unpack_from(data, start)
    found = _attributes(data, start + 8, end)
    if _NHA_ID not in found:
        return None
    number = _U32.unpack(found[_NHA_ID])[0]
    if _NHA_GROUP in found:
        members = list(_GROUP.iter_unpack(found[_NHA_GROUP]))
        return NexthopEntry(
            number,
            protocol,
            members=tuple(member for member, *_ in members),
            weights=_unequal([weight + 1 + (high << 8) for _, weight, high, _ in members]),
            resilient=_U16.unpack(found.get(_NHA_GROUP_TYPE, b"\0\0"))[0] == _GROUP_RESILIENT,
        )
    ifindex = _U32.unpack(found[_NHA_OIF])[0] if _NHA_OIF in found else 0
    gateway = Address.from_packed(found[_NHA_GATEWAY]) if _NHA_GATEWAY in found else None
    return NexthopEntry(number, protocol, ifindex, gateway, bool(flags & _RTNH_F_ONLINK))


def decode_rule(data: bytes, start: int, end: int) -> RuleEntry | None:
    family, to, by, tos, table, _, _, action, flags = _RTM.unpack_from(data, start)
    if family not in {socket.AF_INET, socket.AF_INET6}:
        return None
    found = _attributes(data, start + 12, end)
    table = _number(found, _FRA_TABLE, table)
    priority = _number(found, _FRA_PRIORITY)
    protocol = found[_FRA_PROTOCOL][0] if found.get(_FRA_PROTOCOL) else 0
    foreign = to or by or tos or found.keys() & _OTHER_SELECTORS or flags & ~_FIB_RULE_INVERT
    if foreign or action != _FR_ACT_TO_TBL or _number(found, _FRA_SUPPRESS_PREFIXLEN, _NO_LENGTH) != _NO_LENGTH:
        return RuleEntry(priority, table, protocol)
    mark, mask = _number(found, _FRA_FWMARK), _number(found, _FRA_FWMASK)
    which = Family.IPV6 if family == socket.AF_INET6 else Family.IPV4
    key = RuleKey(which, priority, table, mark, mask, bool(flags & _FIB_RULE_INVERT))
    return RuleEntry(priority, table, protocol, key)


def _number(found: dict[int, bytes], kind: int, absent: int = 0) -> int:
    return int(_U32.unpack(found[kind])[0]) if kind in found else absent


def decode_link(data: bytes, start: int, end: int) -> LinkEntry | None:
    family, _, _, index, flags, _ = _IFI.unpack_from(data, start)
    if family != socket.AF_UNSPEC:
        return None  # a bridge port's own settings, not the link
    found = _attributes(data, start + 16, end)
    details = _attributes(found.get(_IFLA_LINKINFO, b""), 0, len(found.get(_IFLA_LINKINFO, b"")))
    kind = details.get(_IFLA_INFO_KIND, b"").rstrip(b"\0").decode("ascii", "replace")
    inner = details.get(_IFLA_INFO_DATA, b"")
    vxlan = _attributes(inner, 0, len(inner)) if kind == "vxlan" else {}
    vrf = _attributes(inner, 0, len(inner)) if kind == "vrf" else {}
    ipip = _attributes(inner, 0, len(inner)) if kind == "ipip" else {}
    local = vxlan.get(_IFLA_VXLAN_LOCAL) or vxlan.get(_IFLA_VXLAN_LOCAL6) or ipip.get(_IFLA_IPTUN_LOCAL)
    remote = ipip.get(_IFLA_IPTUN_REMOTE)
    return LinkEntry(
        index=index,
        name=found.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode("utf-8", "replace"),
        up=flags & (_IFF_UP | _IFF_LOWER_UP) == _IFF_UP | _IFF_LOWER_UP,
        enabled=bool(flags & _IFF_UP),
        settled=bool(flags & _IFF_RUNNING),
        mtu_bytes=_U32.unpack(found[_IFLA_MTU])[0] if _IFLA_MTU in found else 0,
        mac=found.get(_IFLA_ADDRESS, b"").hex(":"),
        kind=kind,
        vni=_U32.unpack(vxlan[_IFLA_VXLAN_ID])[0] if _IFLA_VXLAN_ID in vxlan else 0,
        port=_U16_NETWORK.unpack(vxlan[_IFLA_VXLAN_PORT])[0] if _IFLA_VXLAN_PORT in vxlan else 0,
        local=Address.from_packed(local) if local else None,
        remote=Address.from_packed(remote) if remote and any(remote) else None,
        learning=bool(_U8.unpack(vxlan[_IFLA_VXLAN_LEARNING])[0]) if _IFLA_VXLAN_LEARNING in vxlan else True,
        table=_U32.unpack(vrf[_IFLA_VRF_TABLE])[0] if _IFLA_VRF_TABLE in vrf else 0,
    )


def decode_address(data: bytes, start: int, end: int) -> AddressEntry | None:
    family, length, flags, _, index = _IFA.unpack_from(data, start)
    if family not in {socket.AF_INET, socket.AF_INET6}:
        return None
    found = _attributes(data, start + 8, end)
    remote = found.get(_IFA_ADDRESS)
    own = found.get(_IFA_LOCAL) or remote
    if own is None:
        return None
    if _IFA_FLAGS in found:
        flags = _U32.unpack(found[_IFA_FLAGS])[0]
    address = Address.from_packed(own)
    # with a point-to-point address the link's prefix is the other end's
    subnet = Prefix.of(Address.from_packed(remote) if remote else address, length)
    settled = not flags & _IFA_F_TENTATIVE or bool(flags & _IFA_F_OPTIMISTIC)
    return AddressEntry(index, address, subnet, settled and not flags & _IFA_F_DADFAILED)


def decode_neighbour(data: bytes, start: int, end: int) -> NeighbourEntry | None:
    family, _, _, index, state, _, _ = _NDM.unpack_from(data, start)
    if family not in {socket.AF_INET, socket.AF_INET6, AF_BRIDGE}:
        return None
    found = _attributes(data, start + 12, end)
    packed = found.get(_NDA_DST, b"")
    address = Address.from_packed(packed) if len(packed) in {4, 16} else None
    if address is None and family != AF_BRIDGE:
        return None
    mac = found.get(_NDA_LLADDR, b"").hex(":")
    permanent, failed, asking = (bool(state & one) for one in (NUD_PERMANENT, _NUD_FAILED, _NUD_INCOMPLETE))
    return NeighbourEntry(index, family == AF_BRIDGE, address, mac, permanent, failed, asking)
