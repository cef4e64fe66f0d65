"""Nodes of the cluster (Calico: libcalico-go/lib/apis/internalapi/node.go)."""

from __future__ import annotations

import re
from enum import StrEnum

import msgspec

from bgpd.model.prefix import Address, Family, Prefix


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
    vtep_mac_v6: str | None = None
    """The same of its device whose outer packets are IPv6."""
    wireguard_key: str | None = None
    """Public key of its WireGuard device, base64; None: it has none, so no WireGuard reaches it."""
    labels: tuple[tuple[str, str], ...] = ()
    """Of its resource, sorted by name: selectors look at these."""
    cluster_id: Address | None = None
    """routeReflectorClusterID: it reflects routes (RFC 4456), and has no part in the mesh."""

    def address(self, family: Family) -> Address | None:
        """Return its address of a family."""
        return self.ipv4_address if family is Family.IPV4 else self.ipv6_address


class FindBy(StrEnum):
    """How a node finds its own address (Calico: node/pkg/lifecycle/startup, IP_AUTODETECTION_METHOD)."""

    FIRST_FOUND = "first-found"
    INTERFACE = "interface"
    CAN_REACH = "can-reach"
    CIDR = "cidr"


class AddressMethod(msgspec.Struct, frozen=True):
    """A method and its arguments, as in ``cidr=10.0.0.0/8,192.168.0.0/16``."""

    by: FindBy
    arguments: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> AddressMethod | None:
        """Read a method; None for anything that does not begin with the name of one. Raises ValueError for bad arguments."""
        name, _, rest = text.partition("=")
        if name not in list(FindBy):
            return None
        method = cls(FindBy(name), tuple(part.strip() for part in rest.split(",")) if rest else ())
        if (method.by is FindBy.FIRST_FOUND) == bool(method.arguments):
            raise ValueError(
                f"{name} takes {'no argument' if method.arguments else 'an argument: ' + _EXAMPLES[method.by]}"
            )
        if method.by is FindBy.CAN_REACH and len(method.arguments) != 1:
            raise ValueError(f"can-reach takes one address: {_EXAMPLES[method.by]}")
        for argument in method.arguments:
            if method.by is FindBy.CIDR:
                Prefix.parse(argument)
            elif method.by is FindBy.CAN_REACH:
                Address.parse(argument)
            else:
                _regex(argument)
        return method

    def __str__(self) -> str:
        return f"{self.by}={','.join(self.arguments)}" if self.arguments else self.by.value


_EXAMPLES = {
    FindBy.INTERFACE: "interface=eth.*",
    FindBy.CAN_REACH: "can-reach=192.0.2.1",
    FindBy.CIDR: "cidr=10.0.0.0/8",
}


def _regex(text: str) -> None:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is no pattern of an interface name: {error}") from error
