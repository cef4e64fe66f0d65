"""Tunnel addresses: one address of a node for each encapsulation (Calico: node/pkg/allocateip/allocateip.go, calico.md 1.3, 1.5).

Each has a handle id that its node's name decides, and the kind of encapsulation as its type; both are Calico's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

from bgpd.core.ipam.qualify import selects
from bgpd.model.pool import Mode, Pool, Use
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


def pools_for(
    kind: TunnelKind, pools: Sequence[Pool], node_labels: Mapping[str, str], *, wireguard: Mapping[Family, bool]
) -> tuple[Pool, ...]:
    """Return the pools that need and serve a node's tunnel address of *kind*, in order of names; none: it needs no address.

    Those of its family that are enabled, select the node, allow tunnels, and have its encapsulation; with WireGuard on
    (*wireguard*, by family) every such pool. Whether they are assigned automatically does not matter, as in Calico. What
    falls back to VXLAN needs none: its neighbours are the nodes' own addresses.
    """
    return tuple(
        pool
        for pool in sorted(pools, key=lambda pool: pool.name)
        if pool.cidr.family is kind.family
        and not pool.disabled
        and Use.TUNNEL in pool.allowed_uses
        and _encapsulates(kind, pool, wireguard)
        and selects(pool, node_labels)
    )


def _encapsulates(kind: TunnelKind, pool: Pool, wireguard: Mapping[Family, bool]) -> bool:
    if kind is TunnelKind.IPIP:
        return pool.ipip_mode is not Mode.NEVER
    if kind in {TunnelKind.VXLAN, TunnelKind.VXLAN_V6}:
        return pool.vxlan_mode is not Mode.NEVER
    return wireguard.get(kind.family, False)
