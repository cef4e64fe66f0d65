"""What sessions are worked out from, as one node sees it. The daemon keeps one; ``bgpd plan`` makes one for each node."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import msgspec

from bgpd.core import selector
from bgpd.model.bgp import DEFAULT_ASN, DEFAULT_CONFIGURATION, NODE_CONFIGURATION, BgpConfiguration, BgpPeer, Workload
from bgpd.model.node import Node
from bgpd.model.peer import Peer
from bgpd.model.prefix import Address, Family, Prefix

LISTEN_PORT = 179
SELECTORS_MAX = 4096
"""Selectors kept parsed: each BGPPeer has two at most, and a node that changes is judged by all of them."""
UNSPECIFIED = {Family.IPV4: Address.parse("0.0.0.0"), Family.IPV6: Address.parse("::")}
"""Local address of a peer that is held because we have none."""
_NONE = BgpConfiguration(name="")


@dataclass(slots=True)
class World:
    """Owns nothing: the facts fill it in, the functions of this package read it."""

    me: Node = field(default_factory=lambda: Node(name=""))
    """With labels and cluster id of its resource."""
    mesh: bool | None = None
    """The node's file says so, whatever the cluster says; None: it says nothing."""
    configured: dict[Address, Peer] = field(default_factory=dict)
    """Peers of the node's file."""
    nodes: dict[str, Node] = field(default_factory=dict)
    peers: dict[str, BgpPeer] = field(default_factory=dict)
    configurations: dict[str, BgpConfiguration] = field(default_factory=dict)
    links: dict[str, dict[Address, Prefix]] = field(default_factory=dict)
    """Our addresses and their subnets, by link."""
    workloads: dict[str, Workload] = field(default_factory=dict)
    """Those of this node."""
    found: dict[str, Address] = field(default_factory=dict)
    """The neighbor that was found on a link (unnumbered)."""

    def configuration(self, node: str) -> BgpConfiguration:
        """Return what holds on a node: its own BGPConfiguration over the cluster's, field by field."""
        default = self.configurations.get(DEFAULT_CONFIGURATION, _NONE)
        own = self.configurations.get(NODE_CONFIGURATION + node)
        if own is None:
            return default
        given = {name: value for name, value in msgspec.structs.asdict(own).items() if value is not None}
        return msgspec.structs.replace(default, **given)

    def asn(self, node: Node) -> int:
        """AS number of a node: its own, else the cluster's, else Calico's default."""
        if node.asn is not None:
            return node.asn
        return self.configurations.get(DEFAULT_CONFIGURATION, _NONE).asn or DEFAULT_ASN

    def listen_port(self, node: str) -> int:
        return self.configuration(node).listen_port or LISTEN_PORT

    @property
    def has_mesh(self) -> bool:
        """Whether nodes without a cluster id speak with each other.

        As in Calico where there is a BGPConfiguration; without one there is no mesh, so that nodes which have their peers
        in their files do not come by sessions that nobody asked for. The node's file decides where it says anything.
        """
        if self.mesh is not None:
            return self.mesh
        default = self.configurations.get(DEFAULT_CONFIGURATION)
        return default is not None and default.mesh is not False

    def source(self, towards: Address) -> Address | None:
        """Return our address on the link that *towards* is on, the most specific one; else the node's own of its family."""
        best: tuple[int, Address] | None = None
        for addresses in self.links.values():
            for address, subnet in addresses.items():
                if subnet.family is towards.family and subnet.holds(towards.plain) and not address.is_link_local:
                    best = max(best or (-1, address), (subnet.length, address))
        return best[1] if best is not None else self.me.address(towards.family)

    def has_address(self, address: Address) -> bool:
        """Whether *address* is on a link of this host."""
        return any(address in addresses for addresses in self.links.values())

    def link_local(self, link: str) -> Address | None:
        """Return our link-local IPv6 address on *link*."""
        addresses = self.links.get(link, {})
        return min((one for one in addresses if one.family is Family.IPV6 and one.is_link_local), default=None)


def selects(text: str, one: Node | Workload) -> bool:
    """Whether a selector chooses a node or workload by its labels; one that cannot be read chooses none."""
    parsed = _parsed(text)
    return parsed is not None and selector.matches(parsed, dict(one.labels))


@lru_cache(maxsize=SELECTORS_MAX)
def _parsed(text: str) -> selector.Selector | None:
    try:
        return selector.parse(text)
    except selector.SelectorError:
        return None


def chosen(peer: BgpPeer, node: Node) -> bool:
    """Whether *node* is one of those whose session *peer* describes."""
    if peer.node:
        return peer.node == node.name
    return not peer.node_selector or selects(peer.node_selector, node)
