"""Who wins where several sources name the same far end, and what a change concerns.

A *source* is the smallest thing that can be worked out anew: the node's file; the mesh with one node; a BGPPeer's far end by
address; a BGPPeer and one node; a BGPPeer and one workload of this node. Each offers at most one peer an address, and among the
offers for an address one wins: the node's file, then global BGPPeers, then those of nodes, then workloads, then reverse peerings,
then the mesh: what is explicit stands before what is automatic (calico.md 2.5). Among equals the first name wins.

A change marks the sources that it concerns, so it costs those and the addresses that they name; only what holds for all
sessions (the node itself, a BGPConfiguration) marks all.
"""

from __future__ import annotations

from collections.abc import Iterable

from bgpd.core.peering import mesh, static
from bgpd.core.peering.reflector import client
from bgpd.core.peering.world import World
from bgpd.model.bgp import BgpPeer
from bgpd.model.node import Node
from bgpd.model.peer import Peer, PeerKind
from bgpd.model.prefix import Address

Source = tuple[str, str]
"""(BGPPeer, node); both empty: the node's file; no BGPPeer: the mesh; no node: the far end by address; NAMESPACE/NAME in the place of a
node: a workload, since no node's name has a slash."""
FILE: Source = ("", "")

_RANK = {
    kind: rank
    for rank, kind in enumerate(
        (
            PeerKind.CONFIGURED,
            PeerKind.GLOBAL,
            PeerKind.NODE,
            PeerKind.WORKLOAD,
            PeerKind.REVERSE,
            PeerKind.MESH,
        )
    )
}


class Sessions:
    """Owns what each source offers, which sources are stale, and which addresses have changed since last asked."""

    def __init__(self, world: World, nodes_at: dict[Address, set[str]] | None = None) -> None:
        """*nodes_at* says which nodes have an address, where that is known already: several that look at the same nodes share it."""
        self.world = world
        self.file_only = False
        """Only the node's file is looked at: the resources were not read yet."""
        self._stale: dict[Source, None] = {}
        self._touched: dict[Address, None] = {}
        self._offers: dict[Source, dict[Address, Peer]] = {}
        self._at: dict[Address, dict[Source, Peer]] = {}
        self._named: dict[Address, set[str]] = {}
        """BGPPeers by the address that they name."""
        self._address_of: dict[str, Address] = {}
        self._nodes_at: dict[Address, set[str]] = {} if nodes_at is None else nodes_at
        self._addresses_of: dict[str, tuple[Address, ...]] = {}
        self._by_link: set[str] = set()
        """BGPPeers whose local address depends on our links."""
        self._with_nodes: set[str] = set()
        """BGPPeers whose far ends are nodes, or this one."""
        self._with_workloads: set[str] = set()
        """BGPPeers whose far ends are workloads."""

    def __bool__(self) -> bool:
        """Whether sources are stale."""
        return bool(self._stale)

    # -------------------------------------------------------------- what a change concerns

    def everything_changed(self) -> None:
        """The node itself, its file, the cluster's settings or the node's own changed."""
        self._stale.update(dict.fromkeys(self._offers))
        self._stale[FILE] = None
        if self.world.has_mesh:
            self._stale.update((("", name), None) for name in self.world.nodes)
        for name in self.world.peers:
            self.peer_changed(name)

    def node_changed(self, name: str) -> None:
        """Another node came, changed or went. O(BGPPeers that concern nodes)."""
        node = self.world.nodes.get(name)
        now = _addresses(node)
        before = self._addresses_of.pop(name, ())
        for address in before:
            self._nodes_at[address].discard(name)
        for address in now:
            self._nodes_at.setdefault(address, set()).add(name)
        if now:
            self._addresses_of[name] = now
        self._stale["", name] = None
        for address in {*before, *now}:
            self._stale.update(dict.fromkeys((peer, "") for peer in self._named.get(address, ())))
        self._stale.update(dict.fromkeys((peer, name) for peer in self._with_nodes))

    def peer_changed(self, name: str) -> None:
        """A BGPPeer came, changed or went. O(sources) for one whose far ends are nodes, or this one, else O(1)."""
        peer = self.world.peers.get(name)
        before = self._address_of.pop(name, None)
        if before is not None:
            self._named[before].discard(name)
        if peer is not None and peer.address is not None:
            self._address_of[name] = peer.address
            self._named.setdefault(peer.address, set()).add(name)
        depends = peer is not None and (bool(peer.interface) or not peer.use_node_ip)
        (self._by_link.add if depends else self._by_link.discard)(name)
        self._stale[name, ""] = None
        self._touched.update(dict.fromkeys(one for one in (before, self._address_of.get(name)) if one is not None))
        concerns = peer is not None and (bool(peer.peer_selector) or peer.address in _addresses(self.world.me))
        if concerns or name in self._with_nodes:
            self._stale.update(dict.fromkeys((name, other) for other in self.world.nodes))
            self._stale.update(dict.fromkeys(source for source in self._offers if source[0] == name))
        (self._with_nodes.add if concerns else self._with_nodes.discard)(name)
        self._workloads_of(name, peer)

    def _workloads_of(self, name: str, peer: BgpPeer | None) -> None:
        selects = peer is not None and bool(peer.workload_selector)
        if selects or name in self._with_workloads:
            self._stale.update(dict.fromkeys((name, workload) for workload in self.world.workloads))
            self._stale.update(dict.fromkeys(source for source in self._offers if source[0] == name))
        (self._with_workloads.add if selects else self._with_workloads.discard)(name)

    def workload_changed(self, name: str) -> None:
        """A workload of this node came, changed or went. O(BGPPeers that select workloads)."""
        self._stale.update(dict.fromkeys((peer, name) for peer in self._with_workloads))

    def links_changed(self) -> None:
        """Our addresses, or the neighbors found on links, changed."""
        self._stale.update(dict.fromkeys((name, "") for name in self._by_link))
        if self._by_link & self._with_nodes:
            self._stale.update(dict.fromkeys(source for source in self._offers if source[0] in self._by_link))
        if self._with_workloads:  # their local address is on a workload's link
            self._stale.update(dict.fromkeys(source for source in self._offers if source[0] in self._with_workloads))

    # -------------------------------------------------------------- the outcome

    def settle(self, budget: int) -> int:
        """Work out at most *budget* stale sources; returns what is left of the budget."""
        while budget > 0 and self._stale:
            source = next(iter(self._stale))
            del self._stale[source]
            self._work_out(source)
            budget -= 1
        return budget

    def touched(self) -> list[Address]:
        """Return the addresses whose offers changed since the last call."""
        touched, self._touched = self._touched, {}
        return list(touched)

    def winner(self, address: Address) -> tuple[Peer, Address | None] | None:
        """Return the peer at *address*, and the gateway that it is said to be reached by; None if nobody names it."""
        offers = self._at.get(address)
        if not offers:
            return None
        source, peer = min(offers.items(), key=lambda item: (_RANK[item[1].policy.kind], item[0]))
        resource = self.world.peers.get(source[0])
        found = static.gateway(self.world, resource) if resource is not None and not source[1] else None
        return peer, found[1] if found is not None and found[0] == address else None

    def _work_out(self, source: Source) -> None:
        offers: dict[Address, Peer] = {}
        for peer in self._peers(source):
            known = offers.get(peer.address)
            if known is None or _RANK[peer.policy.kind] < _RANK[known.policy.kind]:
                offers[peer.address] = peer
        before = self._offers.get(source, {})
        for address in {**before, **offers}:
            if before.get(address) != offers.get(address):
                self._offer(address, source, offers.get(address))
        if offers:
            self._offers[source] = offers
        else:
            self._offers.pop(source, None)

    def _offer(self, address: Address, source: Source, peer: Peer | None) -> None:
        self._touched[address] = None
        if peer is not None:
            self._at.setdefault(address, {})[source] = peer
            return
        del self._at[address][source]
        if not self._at[address]:
            del self._at[address]

    def _peers(self, source: Source) -> Iterable[Peer]:
        world = self.world
        name, other = source
        if source == FILE:
            return [client(world, peer, self._node_at(peer.address)) for peer in world.configured.values()]
        if self.file_only:
            return ()
        node = world.nodes.get(other)
        if not name:
            return mesh.sessions(world, node) if node is not None else ()
        peer = world.peers.get(name)
        if peer is None:
            return ()
        if "/" in other:
            workload = world.workloads.get(other)
            return static.by_workload(world, peer, workload) if workload is not None else ()
        if not other:
            return static.by_address(world, peer, self._node_at(peer.address))
        return static.by_node(world, peer, node) if node is not None else ()

    def _node_at(self, address: Address | None) -> Node | None:
        """Return the node that has *address*; the first by name where several claim it."""
        names = self._nodes_at.get(address, ()) if address is not None else ()
        return self.world.nodes.get(min(names)) if names else None


def nodes_by_address(nodes: Iterable[Node]) -> dict[Address, set[str]]:
    """Return which nodes have each address."""
    found: dict[Address, set[str]] = {}
    for node in nodes:
        for address in _addresses(node):
            found.setdefault(address, set()).add(node.name)
    return found


def _addresses(node: Node | None) -> tuple[Address, ...]:
    if node is None:
        return ()
    return tuple(address for address in (node.ipv4_address, node.ipv6_address) if address is not None)
