"""Nodes of the cluster (Calico: libcalico-go/lib/apis/internalapi/node.go)."""

from __future__ import annotations

import msgspec

from bgpd.model.prefix import Address, Prefix


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A node as others see it."""

    name: str
    asn: int | None = None
    ipv4_address: Address | None = None
    """The address by which other nodes reach it; outer address of tunnels."""
    ipv4_subnet: Prefix | None = None
    """The subnet of that address: CrossSubnet and the direct path compare it."""
    ipv6_address: Address | None = None
    ipv6_subnet: Prefix | None = None
    vtep_mac: str | None = None
    """MAC address of its VXLAN device; None: it has none, so no VXLAN reaches it."""
