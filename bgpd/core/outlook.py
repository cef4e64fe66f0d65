"""What a node would do with given contents of the store: a pipeline of its own is fed with them, so it is the daemon's own decision.

Theory of operation. A store tells everything of a node but its links, its configuration file and what its peers announce. Those are
supposed: every link is up, the file is another's unless it is given, and every peer announces what it could: a node its own blocks, any
other router the blocks of all nodes. Once more with all sessions down the outlook tells what BGP's loss would mean.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from bgpd.core.overlay.choose import How
from bgpd.core.pipeline import Pipeline
from bgpd.core.resource.plan import RESETS, changed_words
from bgpd.core.rib.filter import Rejected
from bgpd.model import event as ev
from bgpd.model.forwarding import TUNNEL_DEVICES
from bgpd.model.node import Node
from bgpd.model.peer import Peer, SessionOpen
from bgpd.model.prefix import Address, Family, Prefix
from bgpd.model.route import Announcement, AsSegment, Attributes, Origin, SegmentKind, community_text

UPLINK: Final = "uplink"
"""The link that everything outside is supposed to be behind."""
GATEWAYS: Final = {Family.IPV4: Address.parse("192.0.2.254"), Family.IPV6: Address.parse("2001:db8::fe")}
MTU_BYTES: Final = 1500
BUDGET: Final = 10_000
LONG_AFTER_S: Final = 1e6
"""When every quiet time is over."""
LINES_MAX: Final = 50
"""Lines of one sort told of a node; more are counted."""


class Way(msgspec.Struct, frozen=True):
    """How a remote prefix is reached."""

    how: How
    node: str
    reason: str


class Outlook(msgspec.Struct, frozen=True):
    """What one node would do."""

    peers: dict[Address, Peer]
    """The held ones, too, with their reason."""
    told: dict[Prefix, dict[str, Announcement | Rejected]]
    """What each peer (by name) is told of each own prefix."""
    claims: frozenset[str]
    """Pools of which the node would claim a block."""
    releases: frozenset[Prefix]
    """Own empty blocks that it would give back."""
    ways: dict[Prefix, Way]
    without_bgp: dict[Prefix, Way]


class NodePlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a change means to one node, in sentences."""

    node: str
    sessions: tuple[str, ...]
    announcements: tuple[str, ...]
    blocks: tuple[str, ...]
    paths: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.sessions or self.announcements or self.blocks or self.paths)


def outlook(configured: ev.Configured, stored: Iterable[ev.Event]) -> Outlook:
    """Work out what the node of *configured* would do with a store of these contents. O(contents + own prefixes x peers)."""
    pipeline = running(configured, stored)
    state = pipeline.state
    told = {
        prefix: {peer.name: pipeline.exporter.outcome(address, prefix) for address, peer in state.facts.peers.items()}
        for prefix in sorted(state.originated)
    }
    ways = _ways(pipeline)
    _feed(pipeline, [ev.PeerDown(peer, "supposed") for peer in state.facts.peers], LONG_AFTER_S)
    return Outlook(
        peers=dict(state.facts.peers),
        told=told,
        claims=frozenset(pool for pool, _ in pipeline.tables.claims.items()),
        releases=frozenset(cidr for cidr, _ in pipeline.tables.releases.items()),
        ways=ways,
        without_bgp=_ways(pipeline),
    )


def running(configured: ev.Configured, stored: Iterable[ev.Event]) -> Pipeline:
    """Return a pipeline of the node that has heard the store and every peer that the store and its file name."""
    pipeline = Pipeline()
    _feed(pipeline, [configured, *_links(configured.node), *stored, ev.StoreSynced(), ev.KernelSynced()], 0.0)
    facts = pipeline.state.facts
    neighbors = [peer for _, peer in pipeline.tables.neighbors.items()]
    hosts = [Prefix.of(peer.address, peer.address.family.bits) for peer in neighbors if not peer.interface]
    onto = ((UPLINK, None),)
    _feed(pipeline, [ev.ForeignRouteChanged(prefix=host, metric=0, hops=onto) for host in hosts], 0.0)
    at = {address: name for name, node in facts.nodes.items() for address in (node.ipv4_address, node.ipv6_address)}
    for peer in neighbors:
        remote = [name for name in facts.holders() if name != facts.me.name and at.get(peer.address, name) == name]
        _feed(pipeline, _session(peer, [block for name in remote for block in facts.blocks_of.get(name, ())]), 0.0)
    _feed(pipeline, [ev.Tick()], LONG_AFTER_S)
    return pipeline


def _feed(pipeline: Pipeline, events: Iterable[ev.Event], now: float) -> None:
    for event in events:
        pipeline.handle(event, now)
    while pipeline.settle(BUDGET):
        pass


def _links(node: Node) -> Iterator[ev.Event]:
    """A host as the outlook supposes it: one link to everywhere, and the devices of all tunnels."""
    for index, name in enumerate((UPLINK, *TUNNEL_DEVICES), 1):
        yield ev.LinkChanged(name=name, index=index, up=True, mtu_bytes=MTU_BYTES)
    for address, subnet in ((node.ipv4_address, node.ipv4_subnet), (node.ipv6_address, node.ipv6_subnet)):
        if address is None:
            continue
        yield ev.AddressAdded(UPLINK, address, subnet or Prefix.of(address, address.family.bits))
        if subnet is not None and not subnet.is_host:
            yield ev.ForeignRouteChanged(prefix=subnet, metric=0, hops=((UPLINK, None),))
    for family, gateway in GATEWAYS.items():
        whole = Prefix.of(Address.parse("0.0.0.0" if family is Family.IPV4 else "::"), 0)
        yield ev.ForeignRouteChanged(prefix=whole, metric=0, hops=((UPLINK, gateway),))


def _session(peer: Peer, blocks: Sequence[Prefix]) -> Iterator[ev.Event]:
    """A session that is up, and that has brought *blocks* of the families that its address can be a next hop of."""
    yield ev.PeerUp(
        peer.address,
        SessionOpen(asn=peer.asn, router_id=GATEWAYS[Family.IPV4], hold_time_s=90, families=peer.families),
    )
    external = peer.asn != peer.local_asn
    attributes = Attributes(
        next_hop=peer.address,
        origin=Origin.IGP,
        as_path=(AsSegment(SegmentKind.SEQUENCE, (peer.asn,)),) if external else (),
    )
    for family in peer.families:
        fit = tuple(sorted(block for block in blocks if block.family is family and peer.address.family is family))
        if fit:
            yield ev.RoutesLearned(peer=peer.address, announced=fit, attributes=attributes)
        yield ev.EndOfRib(peer.address, family)


def _ways(pipeline: Pipeline) -> dict[Prefix, Way]:
    return {
        prefix: Way(reached.how, reached.node, reached.reason)
        for prefix, reached in pipeline.forwarder.reached.items()
        if reached.how is not How.OWN
    }


# ------------------------------------------------------------------ differences


def compare(node: str, before: Outlook, after: Outlook) -> NodePlan:
    """Say what a change from *before* to *after* means to the node."""
    lost = ((prefix, before.without_bgp.get(prefix), way) for prefix, way in after.without_bgp.items())
    return NodePlan(
        node=node,
        sessions=_bounded(_sessions(before, after)),
        announcements=_bounded(_announcements(before, after)),
        blocks=_bounded(_blocks(before, after)),
        paths=_bounded(
            [
                *_paths((prefix, before.ways.get(prefix), way) for prefix, way in after.ways.items()),
                *(f"{line}, should BGP be lost" for line in _paths(lost)),
            ]
        ),
    )


def _bounded(lines: Iterable[str]) -> tuple[str, ...]:
    found = tuple(lines)
    if len(found) <= LINES_MAX:
        return found
    return (*found[:LINES_MAX], f"… and {len(found) - LINES_MAX} more of this sort")


def _sessions(before: Outlook, after: Outlook) -> Iterator[str]:
    for address in sorted(before.peers.keys() | after.peers.keys()):
        was, will = before.peers.get(address), after.peers.get(address)
        if will is None:
            yield f"session with {before.peers[address].name} {address}: would be removed"
            continue
        title = f"session with {will.name} {address}"
        if will.policy.hold_reason and (was is None or not was.policy.hold_reason):
            yield f"{title}: would be held ({will.policy.hold_reason})"
        elif was is None or (was.policy.hold_reason and not will.policy.hold_reason):
            yield f"{title}: would be {'added' if was is None else 'made'}"
        elif fields := changed_words(was, will, RESETS):
            yield f"{title}: would be reset ({', '.join(fields)})"


def _announcements(before: Outlook, after: Outlook) -> Iterator[str]:
    for prefix in sorted(before.told.keys() | after.told.keys()):
        old, new = before.told.get(prefix, {}), after.told.get(prefix, {})
        groups: dict[str, list[str]] = {}
        for peer in sorted(old.keys() | new.keys()):
            if text := _told(old.get(peer), new.get(peer)):
                groups.setdefault(text, []).append(peer)
        for text, peers in groups.items():
            yield f"{prefix} to {', '.join(peers)}: {text}"


def _told(was: Announcement | Rejected | None, will: Announcement | Rejected | None) -> str:
    if isinstance(will, Announcement):
        if not isinstance(was, Announcement):
            return "would be announced"
        if was == will:
            return ""
        fields = [field for field in Announcement.__struct_fields__ if getattr(was, field) != getattr(will, field)]
        shown = [f"{field} {_value(field, will)}" for field in fields]
        return f"would be announced with {', '.join(shown)}"
    if not isinstance(was, Announcement):
        return ""
    return f"would be withdrawn ({will.rule})" if will is not None else "would be withdrawn"


def _value(field: str, announcement: Announcement) -> str:
    value = getattr(announcement, field)
    if field == "communities":
        return " ".join(map(community_text, value)) or "none"
    return msgspec.json.encode(value).decode()


def _blocks(before: Outlook, after: Outlook) -> Iterator[str]:
    for pool in sorted(after.claims - before.claims):
        yield f"would claim a block of pool {pool}"
    for cidr in sorted(after.releases - before.releases):
        yield f"would give back its empty block {cidr}"


def _paths(changes: Iterable[tuple[Prefix, Way | None, Way]]) -> Iterator[str]:
    groups: Counter[tuple[str, str]] = Counter()
    for _, was, will in changes:
        if was is None or was.how is not will.how:
            old = was.how.value if was is not None else "none"
            owner = f"of {will.node}" if will.node else "of no node"
            groups[owner, f"{old} -> {will.how.value} ({will.reason})"] += 1
    for (owner, text), count in sorted(groups.items()):
        yield f"{count} block{'s' if count > 1 else ''} {owner}: {text}"
