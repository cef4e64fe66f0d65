"""VXLAN (RFC 7348): its devices, the entries towards a remote node, and whether the node can be reached by it.

Calico's wire format: one VNI, permanent FDB and neighbour entries, VTEP MAC from the node's name; outer IPv4 by one device, outer
IPv6 by another with a MAC of its own. Outer packets are of the inner family where both nodes have an address of it, as in Calico,
else of the other. The neighbour that an IPv4 route goes through is the remote node's own IPv4 address, on-link on the device, so that no
tunnel address is needed. IPv6 takes no gateway that a route leads to by another link (net/ipv6/route.c: ip6_route_check_nh_onlink),
so there it is a link-local address made of the VTEP's MAC (RFC 4291 appendix A).
"""

from __future__ import annotations

from bgpd.core.overlay.kind import Here, Kind, There, Way, families, underlay
from bgpd.model.forwarding import (
    VXLAN_DEVICE,
    VXLAN_DEVICES,
    VXLAN_V6_DEVICE,
    DeviceValue,
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
from bgpd.model.pool import Fallback
from bgpd.model.prefix import Address, Family

OVERHEAD_BYTES = 50
"""Outer IPv4, UDP, VXLAN and inner Ethernet headers."""
OVERHEAD_V6_BYTES = 70
"""The same with an outer IPv6 header."""
_NAMES = {Family.IPV4: VXLAN_DEVICE, Family.IPV6: VXLAN_V6_DEVICE}


def make(here: Here) -> dict[str, DeviceValue]:
    """Return the devices that this node needs: one for each family that it has an address and a MAC for."""
    mtus = {
        Family.IPV4: here.mtu_bytes(OVERHEAD_BYTES, here.felix.vxlan_mtu_bytes),
        Family.IPV6: here.mtu_bytes(OVERHEAD_V6_BYTES, here.felix.vxlan_mtu_v6_bytes),
    }
    found: dict[str, DeviceValue] = {}
    for family, name in _NAMES.items():
        local, mac = here.me.address(family), _mac(here.me, family)
        if local is not None and mac is not None:
            found[name] = VxlanDevice(
                vni=here.options.vxlan_vni,
                port=here.options.vxlan_port,
                local=local,
                mac=mac,
                mtu_bytes=mtus[family],
            )
    return found


def lacks(me: Node, node: Node, inner: Family) -> str:
    """Say what keeps *node* from receiving VXLAN."""
    if node.ipv4_address is None and node.ipv6_address is None:
        return "the node's address is not known"
    family = underlay(me, node, inner)
    if family is None:
        return "this node and that one have no address of the same family"
    return "" if _mac(node, family) is not None else "the node has no VXLAN device"


def way(me: Node, node: Node, inner: Family) -> Way:
    """Return the way to *node*."""
    family = underlay(me, node, inner)
    assert family is not None
    outer, mac = node.address(family), _mac(node, family)
    assert outer is not None
    assert mac is not None
    plain = inner is Family.IPV4 and family is Family.IPV4
    return Way(Leg(_NAMES[family], outer if plain else link_local(mac), onlink=plain), outer)


def towards(me: Node, there: There) -> dict[KernelKey, KernelValue]:
    """Return the kernel objects that must stand before traffic can go to a node; empty if it has no VTEP."""
    found: dict[KernelKey, KernelValue] = {}
    for inner in families(there.prefixes):
        if lacks(me, there.node, inner):
            continue
        one = way(me, there.node, inner)
        mac = _mac(there.node, one.outer.family)
        assert mac is not None
        assert one.leg.gateway is not None
        found[NeighbourKey(one.leg.device, one.leg.gateway)] = Neighbour(mac)
        found[FdbKey(one.leg.device, mac)] = Fdb(one.outer)
        found[one.leg] = Present()
    return found


def link_local(mac: str) -> Address:
    """Return the link-local address of a MAC (modified EUI-64)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    identifier = bytes((octets[0] ^ 2, *octets[1:3], 0xFF, 0xFE, *octets[3:]))
    return Address.from_packed(bytes((0xFE, 0x80, 0, 0, 0, 0, 0, 0)) + identifier)


def _mac(node: Node, family: Family) -> str | None:
    return node.vtep_mac if family is Family.IPV4 else node.vtep_mac_v6


KIND = Kind(
    name=Fallback.VXLAN,
    devices=VXLAN_DEVICES,
    mode=lambda pool: pool.vxlan_mode,
    make=make,
    lacks=lacks,
    way=way,
    towards=towards,
)
