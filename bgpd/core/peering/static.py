"""Sessions that BGPPeers describe: on the nodes that they choose, and the reverse ones on far ends that are nodes (calico.md 2.5).

A BGPPeer is looked at in parts: its far end by address, and each node as far end or as the one whose far end we are. So a
node that changes costs a look at each BGPPeer, and a BGPPeer that changes costs what it can concern.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from bgpd.core.peering.session import MULTIHOP_TTL, described, is_passive, with_node
from bgpd.core.peering.world import LISTEN_PORT, UNSPECIFIED, World, chosen, selects
from bgpd.model.bgp import BgpPeer, Workload
from bgpd.model.node import Node
from bgpd.model.peer import Peer, PeerKind, PeerPolicy, Role
from bgpd.model.prefix import Address, Family

_OPPOSITE = {
    Role.PROVIDER: Role.CUSTOMER,
    Role.CUSTOMER: Role.PROVIDER,
    Role.RS: Role.RS_CLIENT,
    Role.RS_CLIENT: Role.RS,
    Role.PEER: Role.PEER,
}


def by_address(world: World, peer: BgpPeer, other: Node | None) -> Iterator[Peer]:
    """Yield the session with the address that *peer* names, or that was found on its link; *other* is the node of that address."""
    address = peer.address
    if address is None and peer.interface:
        address = world.found.get(peer.interface)
    if address is not None:
        address = address.on(peer.interface)
    ours = {world.me.ipv4_address, world.me.ipv6_address}
    if address is None or peer.asn is None or address in ours or not chosen(peer, world.me):
        return
    port = peer.port or (world.listen_port(other.name) if other is not None else LISTEN_PORT)
    mine = world.me.address(address.family)
    base = Peer(
        name=peer.name,
        address=address,
        asn=peer.asn,
        local_address=UNSPECIFIED[address.family],
        local_asn=peer.local_asn or world.asn(world.me),
        port=port,
        listen_port=world.listen_port(world.me.name),
        families=(address.family,),
        passive=other is not None and mine is not None and is_passive(mine, address),
        multihop_ttl=0 if peer.interface else MULTIHOP_TTL,
        interface=peer.interface,
        policy=PeerPolicy(kind=_kind(peer)),
    )
    yield described(world, base, peer, other)


def by_node(world: World, peer: BgpPeer, other: Node) -> Iterator[Peer]:
    """Yield the sessions with the node *other* that *peer* asks for: on this node, or on the other one, which makes ours the reverse."""
    me = world.me
    if other.name == me.name:
        return
    if peer.peer_selector and chosen(peer, me) and selects(peer.peer_selector, other):
        for family in Family:
            base = with_node(world, other, family, _kind(peer), f"{peer.name}-{other.name}")
            if base is not None:
                base = msgspec.structs.replace(base, local_asn=peer.local_asn or base.local_asn)
                yield described(world, base, peer, other)
    if peer.reverse and chosen(peer, other) and (families := _reached(world, peer)):
        for family in families:
            base = with_node(world, other, family, PeerKind.REVERSE, f"{peer.name}-{other.name}")
            if base is not None:
                base = msgspec.structs.replace(base, asn=peer.local_asn or base.asn)
                yield described(world, base, _mirrored(peer), other)


def by_workload(world: World, peer: BgpPeer, workload: Workload) -> Iterator[Peer]:
    """Yield the sessions with a workload of this node that *peer* selects, one for each of its addresses (calico.md 2.5, item 4)."""
    if peer.asn is None or not chosen(peer, world.me) or not selects(peer.workload_selector, workload):
        return
    for number, address in enumerate(workload.addresses):
        base = Peer(
            name=f"{peer.name}-{workload.name}" if number == 0 else f"{peer.name}-{workload.name}-{number}",
            address=address,
            asn=peer.asn,
            local_address=UNSPECIFIED[address.family],
            local_asn=peer.local_asn or world.asn(world.me),
            port=peer.port or LISTEN_PORT,
            listen_port=world.listen_port(world.me.name),
            families=(address.family,),
            multihop_ttl=MULTIHOP_TTL,
            policy=PeerPolicy(kind=PeerKind.WORKLOAD),
        )
        made = described(world, base, peer, None)
        yield msgspec.structs.replace(made, passive=is_passive(made.local_address, address))


def _kind(peer: BgpPeer) -> PeerKind:
    return PeerKind.GLOBAL if peer.is_global else PeerKind.NODE


def _reached(world: World, peer: BgpPeer) -> tuple[Family, ...]:
    """Return the families in which this node is a far end of *peer*."""
    me = world.me
    if peer.peer_selector:
        return tuple(Family) if selects(peer.peer_selector, me) else ()
    address = peer.address
    if address is None or address != me.address(address.family) or peer.asn != world.asn(me):
        return ()
    port = peer.port or world.listen_port(me.name)
    return (address.family,) if port == world.listen_port(me.name) else ()


def _mirrored(peer: BgpPeer) -> BgpPeer:
    """Return what a BGPPeer says of the session as its far end has it."""
    role = _OPPOSITE[peer.role] if peer.role is not None else None
    return msgspec.structs.replace(peer, role=role, local_asn=None, asn=None, reachable_by=None, interface="")


def gateway(world: World, peer: BgpPeer) -> tuple[Address, Address] | None:
    """Return (far end, gateway) where a BGPPeer of this node says by which gateway its far end is reached."""
    if peer.reachable_by is None or peer.address is None or not chosen(peer, world.me):
        return None
    return peer.address, peer.reachable_by
