"""What is taken of what peers send, and what they are sent: Calico's order (calico.md 2.5), and the guard against leaks (law 8).

Import: LOCAL_PREF of eBGP counts for nothing (RFC 4271 section 5.1.5), roles (RFC 9234), the peer's BGPFilters, then everything
is taken. Export: :func:`export`, step by step. Both judge stored routes, so a change of policy asks no peer anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import msgspec

from bgpd.core.rib import reflect, role
from bgpd.core.rib.community import GRACEFUL_SHUTDOWN, withheld
from bgpd.core.rib.filter import Accepted, Asked, Compiled, Rejected, judge, with_communities
from bgpd.model.bgp import DEFAULT_PRIORITY, PRIORITY_BASE, Advertisement
from bgpd.model.drain import Stage
from bgpd.model.peer import NextHopMode, Peer
from bgpd.model.prefix import Address, Family, Prefix
from bgpd.model.route import DEFAULT_LOCAL_PREF, Announcement, Attributes, Origin

_NO_ADDRESS: Final = Address(0)
OWN_ATTRIBUTES: Final = Attributes(next_hop=_NO_ADDRESS, origin=Origin.IGP)
"""Of what this node originates; the session's local address becomes the next hop."""

DRAINED: Final = "this node is drained: `bgpd undrain` announces again"


class Source(StrEnum):
    """Where a route that could be announced comes from."""

    BLOCK = "block"
    """An own confirmed block."""
    BORROWED = "borrowed"
    """An address of ours in another node's block."""
    SERVICE = "service"
    """A range of BGPConfiguration."""
    STATIC = "static"
    """The node's file."""
    LEARNED = "learned"


class Exportable(msgspec.Struct, frozen=True, kw_only=True):
    """A route that could be announced."""

    prefix: Prefix
    source: Source
    attributes: Attributes = OWN_ATTRIBUTES
    blackhole: bool = False
    """What has no more specific route is dropped here, not sent back to where it came from."""
    peer: Peer | None = None
    """Who a learned route comes from, its router id, and the links that it leads to."""
    router_id: Address = _NO_ADDRESS
    devices: tuple[str, ...] = ()


@dataclass(slots=True)
class Ground:
    """What export rests on besides route and peer."""

    filters: Mapping[str, Compiled]
    hidden: Callable[[Prefix], str]
    """Name of the pool that holds a prefix and has disableBGPExport; empty if none."""
    in_pool: Callable[[Prefix], bool]
    in_own_block: Callable[[Prefix], bool]
    advertisements: tuple[Advertisement, ...] = ()
    priority: Callable[[Family], int] = lambda _family: DEFAULT_PRIORITY
    encoded: bool = False
    """LOCAL_PREF of own routes is their priority's, as Calico's nodes have it; else what iBGP takes where none is given."""
    drain: Stage = Stage.OFF
    drain_keeps_blocks: bool = False
    cluster: Address | None = None


# ------------------------------------------------------------------ import


def admitted(attributes: Attributes, peer: Peer) -> Attributes | Rejected:
    """Return a received route's attributes as filters see them, whatever its prefix; or why it is a leak (RFC 9234)."""
    if peer.is_external and attributes.local_pref is not None:
        attributes = msgspec.structs.replace(attributes, local_pref=None)
    judged = role.received(attributes, peer)
    return Rejected(judged) if isinstance(judged, str) else judged


def filtered(
    prefix: Prefix, attributes: Attributes, peer: Peer, filters: Mapping[str, Compiled], devices: tuple[str, ...]
) -> Attributes | Rejected:
    """Return the attributes that an admitted route is taken with, or the rule that refuses it; what no rule matches is taken."""
    asked = Asked(prefix, attributes, peer.is_external, remote=True, devices=devices)
    verdict = judge(peer.policy.filters, filters, "import", asked)
    if isinstance(verdict, Rejected):
        return verdict
    return attributes if verdict is None else verdict.attributes


# ------------------------------------------------------------------ export


def export(route: Exportable, peer: Peer, ground: Ground) -> Announcement | Rejected:
    """Decide what *peer* is told of *route*: Calico's export filter in its order, with a reason for each refusal.

    (4) and (5) of that order keep routes of Calico's own devices in; none of ours leads there.
    """
    learned = route.source is Source.LEARNED
    if refused := _leaves(route, peer) or _drained(route, ground):
        return Rejected(refused)
    asked = Asked(  # 1. LOCAL_PREF and priority are one
        route.prefix,
        route.attributes,
        peer.is_external,
        remote=learned,
        devices=route.devices,
        priority=None if learned else ground.priority(route.prefix.family),
    )
    verdict = judge(peer.policy.filters, ground.filters, "export", asked)  # 2. BGPFilters; what accepts ends the order
    if isinstance(verdict, Rejected):
        return verdict
    if isinstance(verdict, Accepted) and (not learned or verdict.explicit_remote or _reflects(route, peer, ground)):
        return _announcement(route, verdict.attributes, peer, ground)
    if pool := ground.hidden(route.prefix):  # 3.
        return Rejected(f"IPPool {pool} has disableBGPExport")
    attributes = route.attributes
    for one in ground.advertisements:  # 6. communities of prefixAdvertisements
        if one.cidr.covers(route.prefix):
            attributes = with_communities(attributes, one.communities)
    if route.source is not Source.BLOCK and ground.in_own_block(route.prefix):  # 7. blocks are announced as a whole
        return Rejected("it is inside a block of ours, which is announced as a whole")
    if route.source in (Source.BLOCK, Source.SERVICE, Source.STATIC):  # 7., 8.
        return _announcement(route, attributes, peer, ground)
    if learned and _reflects(route, peer, ground):  # 9. a reflector passes on; RFC 4456, not ranges, says what
        return _announcement(route, attributes, peer, ground)
    if route.source is Source.BORROWED and ground.in_pool(route.prefix):  # 10.
        return _announcement(route, attributes, peer, ground)
    if isinstance(verdict, Accepted):
        return Rejected(f"{verdict.rule} accepts it, but does not say source: RemotePeers; learned routes stay here")
    return Rejected("it is learned, and this node carries no transit" if learned else "it is in no pool")  # 11.


def _leaves(route: Exportable, peer: Peer) -> str:
    """Say why a route cannot go to a peer whatever policy says (RFC 4271 section 9.2, RFC 1997)."""
    if route.prefix.family not in peer.families:
        return f"the session carries no {route.prefix.family}"
    source = route.peer
    if source is None:
        return ""
    if source.address == peer.address:
        return "it comes from this peer"
    if reason := withheld(route.attributes.communities, peer.is_external):
        return reason
    if not source.is_external and not peer.is_external:
        return reflect.refused(source, peer)
    return ""


def _drained(route: Exportable, ground: Ground) -> str:
    """Say that nothing is announced, where the node is drained; its workloads' addresses may be excepted."""
    kept = ground.drain_keeps_blocks and route.source in (Source.BLOCK, Source.BORROWED)
    return "" if ground.drain is not Stage.DRAINED or kept else DRAINED


def _reflects(route: Exportable, peer: Peer, ground: Ground) -> bool:
    """Whether a learned route is passed on by reflection: between iBGP peers; :func:`_leaves` has looked at clients."""
    internal = route.peer is not None and not route.peer.is_external and not peer.is_external
    return internal and ground.cluster is not None


def _announcement(route: Exportable, attributes: Attributes, peer: Peer, ground: Ground) -> Announcement | Rejected:
    """Write down what is sent, as the kind of session demands (RFC 4271 section 5.1)."""
    judged = role.sent(attributes, peer)
    if isinstance(judged, str):
        return Rejected(judged)
    attributes = judged
    learned = route.source is Source.LEARNED
    if ground.drain is not Stage.OFF:
        attributes = with_communities(attributes, (GRACEFUL_SHUTDOWN,))
    if _reflects(route, peer, ground):
        assert ground.cluster is not None
        attributes = reflect.reflected(attributes, route.router_id, ground.cluster)
    return Announcement(
        origin=attributes.origin,
        med=attributes.med if not learned or not peer.is_external else None,
        communities=attributes.communities,
        large_communities=attributes.large_communities,
        next_hop=_next_hop(attributes, peer) if learned else None,
        as_path=attributes.as_path,
        local_pref=None if peer.is_external else _local_pref(route, attributes, ground),
        extended_communities=attributes.extended_communities,
        originator_id=None if peer.is_external else attributes.originator_id,
        cluster_list=() if peer.is_external else attributes.cluster_list,
        atomic_aggregate=attributes.atomic_aggregate,
        aggregator=attributes.aggregator,
        unknown=attributes.unknown,
    )


def _next_hop(attributes: Attributes, peer: Peer) -> Address | None:
    """Next hop of a learned route: ours towards eBGP, its own towards iBGP, unless the peer says otherwise; None is ours."""
    match peer.policy.next_hop_mode:
        case NextHopMode.SELF:
            return None
        case NextHopMode.KEEP:
            return attributes.next_hop
        case NextHopMode.AUTO:
            return None if peer.is_external else attributes.next_hop


def _local_pref(route: Exportable, attributes: Attributes, ground: Ground) -> int | None:
    if ground.drain is not Stage.OFF:
        return 0
    if attributes.local_pref is not None:
        return attributes.local_pref
    if route.source is Source.LEARNED:
        return DEFAULT_LOCAL_PREF
    return PRIORITY_BASE - ground.priority(route.prefix.family) if ground.encoded else None
