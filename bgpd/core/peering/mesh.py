"""The node-to-node mesh: every node with every other, but for route reflectors (calico.md 2.5, item 1)."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from bgpd.core.peering.session import with_node
from bgpd.core.peering.world import World
from bgpd.model.node import Node
from bgpd.model.peer import Peer, PeerKind
from bgpd.model.prefix import Family


def sessions(world: World, other: Node) -> Iterator[Peer]:
    """Yield the sessions of the mesh with *other*, one a family in which both have an address."""
    if not world.has_mesh or other.name == world.me.name:
        return
    if world.me.cluster_id is not None or other.cluster_id is not None:
        return
    settings = world.configuration(world.me.name)
    for family in Family:
        peer = with_node(world, other, family, PeerKind.MESH, f"mesh-{other.name}")
        if peer is not None:
            restart_s = settings.mesh_restart_s
            yield msgspec.structs.replace(
                peer,
                password=settings.mesh_password,
                graceful_restart_s=peer.graceful_restart_s if restart_s is None else restart_s,
            )
