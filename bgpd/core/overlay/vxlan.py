"""VXLAN (RFC 7348): its device, the entries towards a remote node, and whether the node can be reached by it.

Calico's wire format: one VNI, permanent FDB and neighbour entries, VTEP MAC from the node's name. The neighbour that a route goes
through is the remote node's own address, on-link on the device, so that no tunnel address is needed.
"""

from __future__ import annotations

from bgpd.core.overlay.kind import Kind
from bgpd.model.event import Options
from bgpd.model.forwarding import (
    VXLAN_DEVICE,
    Fdb,
    FdbKey,
    KernelKey,
    KernelValue,
    Neighbour,
    NeighbourKey,
    Present,
    VxlanDevice,
)
from bgpd.model.node import Node
from bgpd.model.pool import Fallback

OVERHEAD_BYTES = 50
"""Outer IPv4, UDP, VXLAN and inner Ethernet headers."""


def make(me: Node, options: Options, uplink_mtu_bytes: int) -> VxlanDevice | None:
    """Return the device this node needs; None if it has no IPv4 address or no MAC for it."""
    if me.ipv4_address is None or me.vtep_mac is None:
        return None
    return VxlanDevice(
        vni=options.vxlan_vni,
        port=options.vxlan_port,
        local=me.ipv4_address,
        mac=me.vtep_mac,
        mtu_bytes=uplink_mtu_bytes - OVERHEAD_BYTES,
    )


def lacks(node: Node) -> str:
    """Say what keeps *node* from receiving VXLAN."""
    if node.ipv4_address is None:
        return "the node's address is not known"
    return "" if node.vtep_mac is not None else "the node has no VXLAN device"


def towards(node: Node) -> dict[KernelKey, KernelValue]:
    """Return the kernel objects that must stand before traffic can go to *node*; empty if it has no VTEP."""
    if node.ipv4_address is None or node.vtep_mac is None:
        return {}
    return {
        NeighbourKey(VXLAN_DEVICE, node.ipv4_address): Neighbour(node.vtep_mac),
        FdbKey(VXLAN_DEVICE, node.vtep_mac): Fdb(node.ipv4_address),
        KIND.leg(node): Present(),
    }


KIND = Kind(
    name=Fallback.VXLAN,
    device=VXLAN_DEVICE,
    overhead_bytes=OVERHEAD_BYTES,
    mode=lambda pool: pool.vxlan_mode,
    make=make,
    lacks=lacks,
    towards=towards,
)
