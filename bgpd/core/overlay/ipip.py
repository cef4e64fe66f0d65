"""IP in IP (RFC 2003): IPv4 in IPv4, protocol 4, as Calico's ``tunl0`` sends and receives it (calico.md 3.2).

One device to any remote address. A packet goes to the gateway of its route, which is the remote node's own address and on-link on the
device: nothing else need stand in the kernel for a node, and a Calico node at the other end needs to know nothing of ours.
"""

from __future__ import annotations

from bgpd.core.overlay.kind import Here, Kind, There, Way, families
from bgpd.model.forwarding import IPIP_DEVICE, DeviceValue, IpipDevice, KernelKey, KernelValue, Leg, Present
from bgpd.model.node import Node
from bgpd.model.pool import Fallback
from bgpd.model.prefix import Family

OVERHEAD_BYTES = 20
"""The outer IPv4 header."""


def make(here: Here) -> dict[str, DeviceValue]:
    """Return the device this node needs; none if it has no IPv4 address."""
    if here.me.ipv4_address is None:
        return {}
    mtu_bytes = here.mtu_bytes(OVERHEAD_BYTES, here.felix.ipip_mtu_bytes)
    return {IPIP_DEVICE: IpipDevice(local=here.me.ipv4_address, mtu_bytes=mtu_bytes)}


def lacks(me: Node, node: Node, inner: Family) -> str:
    """Say what keeps *node* from receiving IPIP."""
    if inner is not Family.IPV4:
        return "IPIP carries no IPv6"
    if me.ipv4_address is None:
        return "this node has no IPv4 address"
    return "" if node.ipv4_address is not None else "the node's IPv4 address is not known"


def way(_: Node, node: Node, __: Family) -> Way:
    """Return the way to *node*: its own address is the gateway, on-link on the device."""
    assert node.ipv4_address is not None
    return Way(Leg(IPIP_DEVICE, node.ipv4_address, onlink=True), node.ipv4_address)


def towards(me: Node, there: There) -> dict[KernelKey, KernelValue]:
    """Return the kernel objects that must stand before traffic can go to a node."""
    usable = [family for family in families(there.prefixes) if not lacks(me, there.node, family)]
    return {way(me, there.node, family).leg: Present() for family in usable}


KIND = Kind(
    name=Fallback.IPIP,
    devices=(IPIP_DEVICE,),
    mode=lambda pool: pool.ipip_mode,
    make=make,
    lacks=lacks,
    way=way,
    towards=towards,
)
