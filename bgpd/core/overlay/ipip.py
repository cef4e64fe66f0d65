"""IP in IP (RFC 2003): IPv4 in IPv4, protocol 4, as Calico's ``tunl0`` sends and receives it (calico.md 3.2).

One device to any remote address. A packet goes to the gateway of its route, which is the remote node's own address and on-link on the
device: nothing else need stand in the kernel for a node, and a Calico node at the other end needs to know nothing of ours.
"""

from __future__ import annotations

from bgpd.core.overlay.kind import Kind
from bgpd.model.event import Options
from bgpd.model.forwarding import IPIP_DEVICE, IpipDevice, KernelKey, KernelValue, Present
from bgpd.model.node import Node
from bgpd.model.pool import Fallback

OVERHEAD_BYTES = 20
"""The outer IPv4 header."""


def make(me: Node, _: Options, uplink_mtu_bytes: int) -> IpipDevice | None:
    """Return the device this node needs; None if it has no IPv4 address."""
    if me.ipv4_address is None:
        return None
    return IpipDevice(local=me.ipv4_address, mtu_bytes=uplink_mtu_bytes - OVERHEAD_BYTES)


def lacks(node: Node) -> str:
    """Say what keeps *node* from receiving IPIP."""
    return "" if node.ipv4_address is not None else "the node's address is not known"


def towards(node: Node) -> dict[KernelKey, KernelValue]:
    """Return the kernel objects that must stand before traffic can go to *node*."""
    return {} if lacks(node) else {KIND.leg(node): Present()}


KIND = Kind(
    name=Fallback.IPIP,
    device=IPIP_DEVICE,
    overhead_bytes=OVERHEAD_BYTES,
    mode=lambda pool: pool.ipip_mode,
    make=make,
    lacks=lacks,
    towards=towards,
)
