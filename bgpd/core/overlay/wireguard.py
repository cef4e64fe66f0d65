"""WireGuard (wireguard.com/protocol): one device, one peer for each node that names a public key, its blocks as allowed IPs.

A packet that a route brings to the device goes to the peer that its destination is allowed for, and one that comes in must be from
an address allowed for its peer: blocks, what the node borrows, and its own addresses, from which its host speaks. So a block that moves
is refused from its old owner. Outer packets are IPv4 where both nodes have an address of it, else IPv6; both families go inside.

No pool asks for it: FelixConfiguration's ``wireguardEnabled`` does, for all pools of a family (calico.md 3.5), or a fallback.
"""

from __future__ import annotations

from bgpd.core.overlay.kind import Here, Kind, There, Way, families, underlay
from bgpd.model.felix import WIREGUARD_PORT, FelixConfiguration
from bgpd.model.forwarding import (
    WIREGUARD_DEVICE,
    DeviceValue,
    KernelKey,
    KernelValue,
    Leg,
    Present,
    WireguardDevice,
    WireguardPeer,
    WireguardPeerKey,
)
from bgpd.model.node import Node
from bgpd.model.pool import Fallback, Mode
from bgpd.model.prefix import Family, Prefix

OVERHEAD_BYTES = 60
"""Outer IPv4 and UDP headers, WireGuard's header and its authentication tag."""
OVERHEAD_V6_BYTES = 80
"""The same with an outer IPv6 header."""


def make(here: Here) -> dict[str, DeviceValue]:
    """Return the device this node needs; none as long as it has no key or no address."""
    local = here.me.ipv4_address
    if (local is None and here.me.ipv6_address is None) or here.me.wireguard_key is None:
        return {}
    overhead_bytes = OVERHEAD_BYTES if local is not None else OVERHEAD_V6_BYTES
    device = WireguardDevice(
        local=local,
        public_key=here.me.wireguard_key,
        port=_port(here.felix),
        mtu_bytes=here.mtu_bytes(overhead_bytes, here.felix.wireguard_mtu_bytes),
    )
    return {WIREGUARD_DEVICE: device}


def lacks(me: Node, node: Node, _: Family) -> str:
    """Say what keeps *node* from receiving WireGuard."""
    if node.wireguard_key is None or node.wireguard_key == me.wireguard_key:
        return "the node has no WireGuard key of its own"
    family = underlay(me, node, Family.IPV4)
    return "" if family is not None else "this node and that one have no address of the same family"


def way(me: Node, node: Node, inner: Family) -> Way:
    """Return the way to *node*. The peer is found by the destination; a gateway names the node, where IPv4 allows one (see vxlan.py)."""
    family = underlay(me, node, Family.IPV4)
    assert family is not None
    outer = node.address(family)
    assert outer is not None
    gateway = node.ipv4_address if inner is Family.IPV4 else None
    return Way(Leg(WIREGUARD_DEVICE, gateway, onlink=gateway is not None), outer)


def towards(me: Node, there: There) -> dict[KernelKey, KernelValue]:
    """Return the kernel objects that must stand before traffic can go to a node; empty if it has no key."""
    node, inner = there.node, families(there.prefixes)
    if lacks(me, node, Family.IPV4) or not inner:
        return {}
    assert node.wireguard_key is not None
    own = [Prefix.of(address, family.bits) for family in Family if (address := node.address(family)) is not None]
    found: dict[KernelKey, KernelValue] = {
        WireguardPeerKey(node.wireguard_key): WireguardPeer(
            endpoint=way(me, node, Family.IPV4).outer,
            port=_port(there.felix),
            allowed=tuple(sorted({*there.prefixes, *own})),
            keepalive_s=there.felix.wireguard_keepalive_s or 0,
        )
    }
    return found | {way(me, node, family).leg: Present() for family in inner}


def enabled(felix: FelixConfiguration, family: Family) -> bool:
    """Whether all pools of a family are to use it where it can be used."""
    return bool(felix.wireguard_enabled if family is Family.IPV4 else felix.wireguard_enabled_v6)


def _port(felix: FelixConfiguration) -> int:
    return felix.wireguard_port or WIREGUARD_PORT


KIND = Kind(
    name=Fallback.WIREGUARD,
    devices=(WIREGUARD_DEVICE,),
    mode=lambda _: Mode.NEVER,
    make=make,
    lacks=lacks,
    way=way,
    towards=towards,
)
