"""What we program into the kernel: keys and values of the kernel table.

A key says *which* object, a value *how* it is to be. Ranks (who must exist before whom) are in core/reconcile/order.py.
A route points to a group, a group has legs, a leg is one kernel nexthop. Ids of nexthops and groups are no part of the desired state:
the netlink adapter adopts those that the kernel holds, and allocates the others.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from bgpd.model.prefix import Address, Family, Prefix

PROTOCOL = 179
"""Route and nexthop protocol number that marks an object as ours (rt_protos has no entry by that number)."""
NEXTHOP_ID_FIRST = 0x62670000
NEXTHOP_ID_LAST = 0x6267FFFF
VXLAN_DEVICE = "vxlan.bgpd"
VXLAN_V6_DEVICE = "vxlan-v6.bgpd"
IPIP_DEVICE = "ipip.bgpd"
WIREGUARD_DEVICE = "wireguard.bgpd"
VXLAN_DEVICES = (VXLAN_DEVICE, VXLAN_V6_DEVICE)
TUNNEL_DEVICES = (*VXLAN_DEVICES, IPIP_DEVICE, WIREGUARD_DEVICE)
"""What is named so is ours; no outer route of a tunnel may lead through one of them."""
DEVICE_SUFFIX = ".bgpd"
"""What the names of our own devices end with."""
MAIN_TABLE = 254
DEFAULT_METRIC = {Family.IPV4: 0, Family.IPV6: 1024}
"""The metric of a route that is made without one: it is part of the kernel's key."""


class DeviceKey(msgspec.Struct, frozen=True, cache_hash=True):
    name: str


class VxlanDevice(msgspec.Struct, frozen=True, kw_only=True):
    """A VXLAN device (RFC 7348) in Calico's wire format: learning off, one VNI, FDB entries by us."""

    vni: int
    port: int
    """UDP destination port."""
    local: Address
    """Outer source address."""
    mac: str
    mtu_bytes: int


class IpipDevice(msgspec.Struct, frozen=True, kw_only=True):
    """A device for IPv4 in IPv4 (RFC 2003) to any remote address: a packet goes to the gateway of its route, as in Calico."""

    local: Address
    """Outer source address."""
    mtu_bytes: int


class WireguardDevice(msgspec.Struct, frozen=True, kw_only=True):
    """A WireGuard device; its private key is a matter of the adapter's, which finds it by the public one."""

    local: Address | None
    """The IPv4 address that it borrows; outer packets are sent from whatever the kernel chooses."""
    public_key: str
    """Base64 of 32 bytes, as WireGuard's tools and Calico's Node write it."""
    port: int
    """UDP port that it listens on."""
    mtu_bytes: int


class WireguardPeerKey(msgspec.Struct, frozen=True, cache_hash=True):
    """A peer of our WireGuard device."""

    public_key: str


class WireguardPeer(msgspec.Struct, frozen=True, kw_only=True):
    """What may come from a peer, and is sent to it. The kernel gives a prefix to one peer at a time: the last that asks for it."""

    endpoint: Address
    port: int
    allowed: tuple[Prefix, ...]
    """Sorted: destinations sent to it, sources accepted from it."""
    keepalive_s: int = 0
    """0: it is silent where there is nothing to send."""


class NeighbourKey(msgspec.Struct, frozen=True, cache_hash=True):
    device: str
    address: Address


class Neighbour(msgspec.Struct, frozen=True):
    """A permanent neighbour entry."""

    mac: str


class FdbKey(msgspec.Struct, frozen=True, cache_hash=True):
    device: str
    mac: str


class Fdb(msgspec.Struct, frozen=True):
    """A permanent forwarding entry of a VXLAN device: frames to that MAC go to that outer address."""

    address: Address


class Leg(msgspec.Struct, frozen=True, cache_hash=True, order=True):
    """One nexthop: a gateway on a device. It is its own key."""

    device: str
    gateway: Address | None = None
    onlink: bool = False
    """The gateway is on the link whatever the addresses say."""

    @property
    def via(self) -> str:
        """In words, as ``ip route`` has them after *via*: ``10.1.11.0 dev eth1``."""
        return f"{self.gateway} dev {self.device}" if self.gateway is not None else f"dev {self.device}"


class Present(msgspec.Struct, frozen=True):
    """Value of a key that says everything itself."""


class GroupKey(msgspec.Struct, frozen=True, cache_hash=True):
    """A nexthop group. The name says what it stands for, such as a remote node."""

    name: str


class Group(msgspec.Struct, frozen=True):
    """Equal-cost legs, sorted."""

    legs: tuple[Leg, ...]
    weights: tuple[int, ...] = ()
    """One for each leg, 1 to 256; empty where all are equal (see :func:`weighted`)."""


def weighted(shares: dict[Leg, int]) -> Group:
    """Make a group of legs with their weights; equal ones are left out, so that the same group is the same value."""
    legs = tuple(sorted(shares, key=leg_order))
    weights = tuple(shares[leg] for leg in legs)
    return Group(legs, weights if len(set(weights)) > 1 else ())


def leg_order(leg: Leg) -> tuple[str, int, bool]:
    """Sort legs, also those without a gateway."""
    return leg.device, -1 if leg.gateway is None else leg.gateway, leg.onlink


class RouteKind(StrEnum):
    UNICAST = "unicast"
    BLACKHOLE = "blackhole"
    UNREACHABLE = "unreachable"
    PROHIBIT = "prohibit"


class RouteKey(msgspec.Struct, frozen=True, cache_hash=True):
    prefix: Prefix
    table: int = MAIN_TABLE
    metric: int = 0
    """Part of the kernel's key. 0: the kernel's default for the family (DEFAULT_METRIC)."""


class KernelRoute(msgspec.Struct, frozen=True):
    """A route of ours; *group*, *source* and *mtu_bytes* are for unicast only."""

    kind: RouteKind
    group: GroupKey | None = None
    source: Address | None = None
    """Address of ours that packets of this host get (RTA_PREFSRC); None: the kernel's choice."""
    mtu_bytes: int = 0
    """Path MTU of the route (RTAX_MTU); 0: that of its link."""


class RuleKey(msgspec.Struct, frozen=True, cache_hash=True):
    """A rule of policy routing: what it selects goes by *table*. It is its own key, since the kernel changes no rule in place.

    One with *mask* selects packets whose firewall mark has *mark* in those bits; *inverted*, all others. Without, it selects all.
    """

    family: Family
    priority: int
    """Position, lowest first: 0 is the kernel's rule for local addresses, 32766 that for the main table."""
    table: int
    mark: int = 0
    mask: int = 0
    inverted: bool = False

    def __str__(self) -> str:
        """Write it as ``ip rule`` takes it."""
        mark = f"{'not ' if self.inverted else ''}fwmark {self.mark:#x}/{self.mask:#x} " if self.mask else ""
        return f"{self.family} priority {self.priority} {mark}table {self.table}"


class RouteSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How this node's routes are written, all alike."""

    table: int = MAIN_TABLE
    rule_priority: int = 0
    """Of the rules that lead to *table*, one a family; 0: none."""
    metric: int = 0
    source_ipv4: Address | None = None
    source_ipv6: Address | None = None
    mtu_bytes: int = 0

    def key(self, prefix: Prefix) -> RouteKey:
        """Return the place of *prefix* in the kernel."""
        metric = 0 if self.metric == DEFAULT_METRIC[prefix.family] else self.metric
        return RouteKey(prefix, self.table, metric)

    def rules(self) -> tuple[RuleKey, ...]:
        """Return the rules that lead to the table."""
        return tuple(RuleKey(family, self.rule_priority, self.table) for family in Family if self.rule_priority)

    def unicast(self, family: Family, group: GroupKey, mtu_bytes: int = 0) -> KernelRoute:
        """Return a route to *group*; *mtu_bytes* where no MTU is set for all."""
        source = self.source_ipv4 if family is Family.IPV4 else self.source_ipv6
        return KernelRoute(RouteKind.UNICAST, group, source, self.mtu_bytes or mtu_bytes)


KernelKey = DeviceKey | NeighbourKey | FdbKey | WireguardPeerKey | Leg | GroupKey | RouteKey | RuleKey
DeviceValue = VxlanDevice | IpipDevice | WireguardDevice
KernelValue = DeviceValue | Neighbour | Fdb | WireguardPeer | Present | Group | KernelRoute
