"""Which sessions are with clients of this route reflector (RFC 4456; calico.md 2.5, "RR")."""

from __future__ import annotations

import msgspec

from bgpd.core.peering.world import World
from bgpd.model.node import Node
from bgpd.model.peer import Peer


def client(world: World, peer: Peer, other: Node | None) -> Peer:
    """Make the peer our client where the session is iBGP, this node has a cluster id, and the far end none or another."""
    mine = world.me.cluster_id
    theirs = other.cluster_id if other is not None else None
    if mine is None or peer.is_external or theirs == mine:
        return peer
    return msgspec.structs.replace(peer, policy=msgspec.structs.replace(peer.policy, reflector_cluster=mine))
