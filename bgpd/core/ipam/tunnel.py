"""Tunnel addresses: one address of a node for each encapsulation (Calico: node/pkg/allocateip/allocateip.go, calico.md 1.3, 1.5).

Each has a handle id that its node's name decides, and the kind of encapsulation as its type; both are Calico's.
"""

from __future__ import annotations

from enum import StrEnum

from bgpd.model.prefix import Family


class TunnelKind(StrEnum):
    """What the address is for; the value is the attribute ``type`` of its allocation."""

    IPIP = "ipipTunnelAddress"
    VXLAN = "vxlanTunnelAddress"
    VXLAN_V6 = "vxlanV6TunnelAddress"
    WIREGUARD = "wireguardTunnelAddress"
    WIREGUARD_V6 = "wireguardV6TunnelAddress"

    @property
    def family(self) -> Family:
        return Family.IPV6 if self in {TunnelKind.VXLAN_V6, TunnelKind.WIREGUARD_V6} else Family.IPV4

    def handle(self, node: str) -> str:
        """Return the id of the handle that holds *node*'s address."""
        return _HANDLES[self] + node

    @classmethod
    def of(cls, type_: str | None) -> TunnelKind | None:
        """Return the kind that an allocation's attribute ``type`` names; None for what is no tunnel's."""
        return next((kind for kind in cls if kind.value == type_), None)


_HANDLES = {
    TunnelKind.IPIP: "ipip-tunnel-addr-",
    TunnelKind.VXLAN: "vxlan-tunnel-addr-",
    TunnelKind.VXLAN_V6: "vxlan-v6-tunnel-addr-",
    TunnelKind.WIREGUARD: "wireguard-tunnel-addr-",
    TunnelKind.WIREGUARD_V6: "wireguard-v6-tunnel-addr-",
}
