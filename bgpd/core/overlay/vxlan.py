"""VXLAN: its device, the entries towards a remote node, and whether the node can be reached by it (RFC 7348).

Calico's wire format: one VNI, permanent FDB and neighbour entries, VTEP MAC from the node's name. The neighbour that a route goes
through is the remote node's own address, on-link on the device, so that no tunnel address is needed.
"""

from __future__ import annotations

from collections.abc import Iterable

from bgpd.model.event import LinkChanged, Options
from bgpd.model.forwarding import (
    VXLAN_DEVICE,
    Fdb,
    FdbKey,
    KernelKey,
    KernelValue,
    Leg,
    Neighbour,
    NeighbourKey,
    Present,
    VxlanDevice,
)
from bgpd.model.node import Node
from bgpd.model.prefix import Address

OVERHEAD_BYTES = 50
"""Outer IPv4, UDP, VXLAN and inner Ethernet headers."""
DEFAULT_MTU_BYTES = 1500
_NOT_AN_UPLINK = ("lo", VXLAN_DEVICE)
_WORKLOAD_PREFIX = "cali"


def device(me: Node, options: Options, links: Iterable[LinkChanged]) -> VxlanDevice | None:
    """Return the device this node needs; None if it has no IPv4 address or no MAC for it.

    Its MTU leaves room for the overhead on the smallest uplink, whether that is up or not, so that it does not move with carrier.
    """
    if me.ipv4_address is None or me.vtep_mac is None:
        return None
    uplinks = [
        link.mtu_bytes
        for link in links
        if link.name not in _NOT_AN_UPLINK and not link.name.startswith(_WORKLOAD_PREFIX)
    ]
    mtu = min(uplinks, default=DEFAULT_MTU_BYTES) - OVERHEAD_BYTES
    return VxlanDevice(
        vni=options.vxlan_vni, port=options.vxlan_port, local=me.ipv4_address, mac=me.vtep_mac, mtu_bytes=mtu
    )


def leg(address: Address) -> Leg:
    """The leg through the tunnel to the node at *address*."""
    return Leg(VXLAN_DEVICE, address, onlink=True)


def towards(node: Node) -> dict[KernelKey, KernelValue]:
    """Return the kernel objects that must stand before traffic can go to *node*; empty if it has no VTEP."""
    if node.ipv4_address is None or node.vtep_mac is None:
        return {}
    return {
        NeighbourKey(VXLAN_DEVICE, node.ipv4_address): Neighbour(node.vtep_mac),
        FdbKey(VXLAN_DEVICE, node.vtep_mac): Fdb(node.ipv4_address),
        leg(node.ipv4_address): Present(),
    }
