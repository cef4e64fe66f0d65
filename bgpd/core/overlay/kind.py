"""What a kind of tunnel is to the rest: one value, made in a file of its own, and one place in ``kinds.KINDS``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bgpd.model.event import Options
from bgpd.model.forwarding import DeviceValue, KernelKey, KernelValue, Leg
from bgpd.model.node import Node
from bgpd.model.pool import Fallback, Mode, Pool


@dataclass(frozen=True, slots=True)
class Kind:
    """Functions of facts; a kind holds no state."""

    name: Fallback
    device: str
    """The one device of this kind on a node, through which all its tunnels go."""
    overhead_bytes: int
    """What it adds to a packet."""
    mode: Callable[[Pool], Mode]
    """When a pool wants its traffic in it."""
    make: Callable[[Node, Options, int], DeviceValue | None]
    """The device that this node needs, for uplinks of such an MTU (bytes); None if it lacks an address for it."""
    lacks: Callable[[Node], str]
    """What a node lacks to be reached by it; empty if nothing."""
    towards: Callable[[Node], dict[KernelKey, KernelValue]]
    """The kernel objects that must stand before traffic can go to a node; empty if it cannot."""

    def leg(self, node: Node) -> Leg:
        """The leg to a node that lacks nothing: its own address is the gateway, on-link on the device."""
        return Leg(self.device, node.ipv4_address, onlink=True)
