"""What we program into the kernel: keys and values of the kernel table.

A key says *which* object, a value *how* it is to be. Ranks (who must exist before whom) are in core/reconcile/order.py.
A route points to a group, a group has legs, a leg is one kernel nexthop. Ids of nexthops and groups are no part of the desired state:
the netlink adapter adopts those that the kernel holds, and allocates the others.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from bgpd.model.prefix import Address, Prefix

PROTOCOL = 179
"""Route and nexthop protocol number that marks an object as ours (rt_protos has no entry by that number)."""
NEXTHOP_ID_FIRST = 0x62670000
NEXTHOP_ID_LAST = 0x6267FFFF
VXLAN_DEVICE = "vxlan.bgpd"
MAIN_TABLE = 254


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


class Present(msgspec.Struct, frozen=True):
    """Value of a key that says everything itself."""


class GroupKey(msgspec.Struct, frozen=True, cache_hash=True):
    """A nexthop group. The name says what it stands for, such as a remote node."""

    name: str


class Group(msgspec.Struct, frozen=True):
    """Equal-cost legs, sorted."""

    legs: tuple[Leg, ...]


class RouteKind(StrEnum):
    UNICAST = "unicast"
    BLACKHOLE = "blackhole"
    UNREACHABLE = "unreachable"


class RouteKey(msgspec.Struct, frozen=True, cache_hash=True):
    prefix: Prefix
    table: int = MAIN_TABLE


class KernelRoute(msgspec.Struct, frozen=True):
    """A route of ours; *group* is set for unicast only."""

    kind: RouteKind
    group: GroupKey | None = None


KernelKey = DeviceKey | NeighbourKey | FdbKey | Leg | GroupKey | RouteKey
KernelValue = VxlanDevice | Neighbour | Fdb | Present | Group | KernelRoute
