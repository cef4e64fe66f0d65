"""What a kind of tunnel is to the rest: one value, made in a file of its own, and one place in ``kinds.KINDS``."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import msgspec

from bgpd.model.event import Options
from bgpd.model.felix import FelixConfiguration
from bgpd.model.forwarding import DeviceValue, KernelKey, KernelValue, Leg
from bgpd.model.node import Node
from bgpd.model.pool import Fallback, Mode, Pool
from bgpd.model.prefix import Address, Family, Prefix


class Here(msgspec.Struct, frozen=True):
    """What this node's devices depend on."""

    me: Node
    options: Options
    felix: FelixConfiguration
    uplink_mtu_bytes: int

    def mtu_bytes(self, overhead_bytes: int, said: int | None) -> int:
        """Return a device's MTU: what FelixConfiguration says (0 or None: nothing), but never more than the uplinks leave."""
        room = self.uplink_mtu_bytes - overhead_bytes
        return min(said, room) if said else room


class There(msgspec.Struct, frozen=True):
    """A remote node as the sender sees it."""

    node: Node
    prefixes: Collection[Prefix]
    """Its blocks, and what it borrows."""
    felix: FelixConfiguration
    """As it holds for that node."""


class Way(msgspec.Struct, frozen=True):
    """How packets of a family get into the tunnel to a node, and where the outer ones go."""

    leg: Leg
    outer: Address


@dataclass(frozen=True, slots=True)
class Kind:
    """Functions of facts; a kind holds no state."""

    name: Fallback
    devices: tuple[str, ...]
    """All that a node may have of it, for outer packets of either family; all its tunnels go through one of them."""
    mode: Callable[[Pool], Mode]
    """When a pool wants its traffic in it."""
    make: Callable[[Here], dict[str, DeviceValue]]
    """The devices that this node can have, by name."""
    lacks: Callable[[Node, Node, Family], str]
    """What this node or the other lacks to send packets of a family through it; empty if nothing."""
    way: Callable[[Node, Node, Family], Way]
    """From this node to one that nothing is lacking for."""
    towards: Callable[[Node, There], dict[KernelKey, KernelValue]]
    """The kernel objects that must stand before traffic can go to a node; empty if it cannot."""


def underlay(me: Node, node: Node, inner: Family) -> Family | None:
    """Return the family of outer packets: that of the inner ones if both nodes have an address of it, else the other, else none."""
    other = Family.IPV6 if inner is Family.IPV4 else Family.IPV4
    for family in (inner, other):
        if me.address(family) is not None and node.address(family) is not None:
            return family
    return None


def families(prefixes: Collection[Prefix]) -> list[Family]:
    """Return the families of *prefixes*, in order."""
    return sorted({prefix.family for prefix in prefixes})
