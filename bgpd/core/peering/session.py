"""A session with another node, and the parts that sessions of all sources share."""

from __future__ import annotations

import math
from collections.abc import Container

import msgspec

from bgpd.core.peering import reflector
from bgpd.core.peering.world import UNSPECIFIED, World
from bgpd.model.bgp import BgpPeer
from bgpd.model.node import Node
from bgpd.model.peer import NextHopMode, Peer, PeerKind, PeerPolicy
from bgpd.model.prefix import Address, Family

MULTIHOP_TTL = 255
"""Calico's peers are all ``multihop``: other nodes, and routers named by resources, may be any number of hops away."""
HOLD_MIN_S = 3
"""Least hold time there is (RFC 4271 section 4.2)."""


def with_node(world: World, node: Node, family: Family, kind: PeerKind, name: str) -> Peer | None:
    """Return a session of this node with *node*; None where either has no address of that family, or both are one."""
    mine, theirs = world.me.address(family), node.address(family)
    if mine is None or theirs is None or mine == theirs:
        return None
    both = node.ipv4_address is not None and node.ipv6_address is not None
    return Peer(
        name=f"{name}-{family}" if both and family is Family.IPV6 else name,
        address=theirs,
        asn=world.asn(node),
        local_address=mine,
        local_asn=world.asn(world.me),
        port=world.listen_port(node.name),
        listen_port=world.listen_port(world.me.name),
        families=(family,),
        passive=is_passive(mine, theirs),
        multihop_ttl=MULTIHOP_TTL,
        policy=PeerPolicy(kind=kind),
    )


def is_passive(mine: Address, theirs: Address) -> bool:
    """Whether we wait for a node to connect: Calico compares the addresses as text, and the larger one connects."""
    return str(theirs) > str(mine)


def described(world: World, peer: Peer, by: BgpPeer, other: Node | None) -> Peer:
    """Give a session what a BGPPeer says of it; *other* is the node at the far end, if it is one."""
    external = (by.asn or peer.asn) != peer.local_asn
    keep = by.keep_original_next_hop and external
    hold = by.hold_time_s
    if hold is None:
        keepalive = by.keepalive_s
        hold = max(HOLD_MIN_S, math.ceil(3 * keepalive)) if keepalive else peer.hold_time_s
    local, reason = _local(world, peer, by)
    hidden = bool(world.configuration(world.me.name).node_ip_only) and local != world.me.address(local.family)
    described_one = msgspec.structs.replace(
        peer,
        local_address=local,
        listen_port=0 if hidden else peer.listen_port,
        hold_time_s=min(hold, 65_535),
        graceful_restart_s=peer.graceful_restart_s if by.restart_s is None else by.restart_s,
        ttl_security=by.ttl_security,
        multihop_ttl=0 if by.ttl_security else peer.multihop_ttl,
        password=by.password,
        add_path_receive=by.add_path,
        extended_next_hop=by.extended_next_hop and peer.address.family is Family.IPV6,
        role=by.role,
        role_strict=by.role_strict,
        families=_families(peer, by),
        policy=msgspec.structs.replace(
            peer.policy,
            filters=by.filters,
            next_hop_mode=NextHopMode.KEEP if keep else by.next_hop_mode,
            allowed_own_asns=by.allowed_own_asns,
            max_prefix=by.max_prefix,
            bfd=by.bfd,
            hold_reason=reason,
        ),
    )
    return reflector.client(world, described_one, other)


def missing(peer: Peer, filters: Container[str]) -> list[str]:
    """Return the filters that a peer names and that do not exist."""
    return [name for name in peer.policy.filters if name not in filters]


def held(peer: Peer, filters: Container[str]) -> Peer:
    """Say why there must be no session with a peer whose filters are missing (law 7)."""
    names = missing(peer, filters)
    if not names:
        return peer
    reason = f"BGPFilter {', '.join(names)} does not exist"
    return msgspec.structs.replace(peer, policy=msgspec.structs.replace(peer.policy, hold_reason=reason))


def _families(peer: Peer, by: BgpPeer) -> tuple[Family, ...]:
    """A session carries the family of its addresses (Calico runs a daemon for each); IPv4 as well where IPv6 next hops may carry it."""
    family = peer.address.family
    return (Family.IPV4, Family.IPV6) if by.extended_next_hop and family is Family.IPV6 else (family,)


def _local(world: World, peer: Peer, by: BgpPeer) -> tuple[Address, str]:
    """Return our address of the session, and why there is none."""
    family = peer.address.family
    if by.workload_selector:
        return _towards_workload(world, family)
    if by.interface and peer.address.is_link_local:
        found = world.link_local(by.interface)
        reason = "" if found is not None else f"link {by.interface} has no link-local address"
    elif by.use_node_ip:
        found = world.me.address(family)
        reason = "" if found is not None else f"this node has no {family!s} address"
    else:
        found = world.source(peer.address)
        reason = "" if found is not None else f"no {family!s} address of ours leads to it"
    return (UNSPECIFIED[family] if found is None else found), reason


def _towards_workload(world: World, family: Family) -> tuple[Address, str]:
    """Return our address towards workloads: the one that BGPConfiguration says, which somebody else puts on their links, or the node's."""
    settings = world.configuration(world.me.name)
    wanted = settings.workload_v4 if family is Family.IPV4 else settings.workload_v6
    if wanted is None:
        found = world.me.address(family)
        return (UNSPECIFIED[family], f"this node has no {family!s} address") if found is None else (found, "")
    reason = (
        ""
        if world.has_address(wanted)
        else f"{wanted} (localWorkloadPeering{str(family).replace('ip', 'IP').replace('v', 'V')}) is on no link"
    )
    return wanted, reason
