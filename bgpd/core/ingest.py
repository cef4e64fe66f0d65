"""Events into facts: marks stale what depends on the fact, decides nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import msgspec

from bgpd.core.facts import Session
from bgpd.core.health.path import Told
from bgpd.core.resources import Resources
from bgpd.core.state import State
from bgpd.model import event as ev
from bgpd.model.bfd import BfdState, BfdStatus
from bgpd.model.overlay import Path
from bgpd.model.peer import GracefulRestart, Notification
from bgpd.model.pool import Block
from bgpd.model.prefix import Address, Family, Prefix


class Ingest:
    """Writes the facts of *state*; owns nothing."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._resources = Resources(state)

    def event(self, event: ev.Event) -> None:
        """Take note of anything but Tick and Converged."""
        if isinstance(event, ev.Configured):
            self._configured(event)
        elif isinstance(event, ev.PathForced):
            self._forced(event)
        elif isinstance(event, ev.HealthChanged | ev.DrainChanged):
            self._health(event)
        elif isinstance(event, ev.WireguardKeyMade):
            self._key_made(event.public_key)
        elif isinstance(event, _RESOURCE_EVENTS):
            self._resources.event(event)
        elif isinstance(event, _STORE_EVENTS):
            self._store(event)
        elif isinstance(event, _BGP_EVENTS):
            self._bgp(event)
        else:
            self._kernel(event)

    def expire(self, now: float) -> None:
        """Sweep what was kept for peers that did not send it again in time (RFC 4724 section 4.2)."""
        for peer in self._state.adj_in.due(now):
            gone = self._state.adj_in.sweep(peer)
            self._mark(gone)
            if gone:
                self._state.note("routes.swept", peer=str(peer), routes=len(gone), reason="restart time over")

    # -------------------------------------------------------------- ourselves

    def _configured(self, event: ev.Configured) -> None:
        facts = self._state.facts
        facts.me = msgspec.structs.replace(event.node, wireguard_key=facts.wireguard_key)
        facts.options = event.options
        facts.world.configured = {peer.address: peer for peer in event.peers}
        facts.world.mesh = event.mesh
        facts.announce = event.announce
        self._state.sessions.everything_changed()  # a reload may have turned the mesh on or off
        self._resources.ourselves()
        self._mark(list(self._state.adj_in.prefixes()))
        self._state.stale.learned.update(dict.fromkeys(self._state.selections))  # by how many paths, with which weights
        self._state.stale.own = self._state.stale.overlay = True
        self._everybody()

    def _forced(self, event: ev.PathForced) -> None:
        forced = self._state.facts.forced
        if event.path is Path.AUTO:
            forced.pop(event.node, None)
        else:
            forced[event.node] = event.path
        self._state.stale.nodes[event.node] = None

    def _health(self, event: ev.HealthChanged | ev.DrainChanged) -> None:
        facts, stale = self._state.facts, self._state.stale
        if isinstance(event, ev.DrainChanged):
            facts.drain, facts.drain_keeps_blocks = event.stage, event.keep_blocks
            stale.exporters.update(dict.fromkeys(facts.peers))
            return
        if facts.health.get(event.check) is not event.healthy:
            self._state.note(
                "health.passed" if event.healthy else "health.failed", check=event.check, reason=event.reason or None
            )
        facts.health[event.check] = event.healthy
        stale.own = True

    def _key_made(self, public_key: str) -> None:
        facts = self._state.facts
        facts.wireguard_key = public_key
        facts.me = msgspec.structs.replace(facts.me, wireguard_key=public_key)
        self._resources.ourselves()
        self._state.stale.overlay = True
        self._everybody()

    # -------------------------------------------------------------- store

    def _store(self, event: object) -> None:
        facts, stale = self._state.facts, self._state.stale
        match event:
            case ev.StoreSynced():
                self._store_synced()
            case ev.StoreLost(reason=reason):
                if facts.store.lost_reason != reason:
                    self._state.note("store.lost", reason=reason)
                facts.store.lost_reason = reason
                facts.store.since = self._state.now
            case ev.PoolChanged(pool=pool):
                facts.pools[pool.name] = pool
                self._pools()
            case ev.PoolRemoved(name=name):
                facts.pools.pop(name, None)
                self._pools()
            case ev.NodeChanged(node=node):
                stale.nodes.update(dict.fromkeys(facts.hold_key(node.name, node)))
                facts.nodes[node.name] = node
                self._resources.node(node.name)
                stale.own = stale.own or node.name == facts.me.name  # its labels: which pools it draws from
                stale.nodes[node.name] = None
                stale.overlay = True
            case ev.NodeRemoved(name=name):
                stale.nodes.update(dict.fromkeys(facts.hold_key(name, None)))
                facts.nodes.pop(name, None)
                self._resources.node(name)
                stale.own = stale.own or name == facts.me.name
                stale.nodes[name] = None
                stale.overlay = True
            case ev.NodeAlive(name=name):
                facts.alive.add(name)
                stale.nodes[name] = None
            case ev.NodeDead(name=name):
                facts.alive.discard(name)
                stale.nodes[name] = None
                self._state.note("node.died", node=name)
            case ev.FelixConfigurationChanged() | ev.FelixConfigurationRemoved():
                self._felix(event)
            case _:
                self._block(event)

    def _felix(self, event: ev.FelixConfigurationChanged | ev.FelixConfigurationRemoved) -> None:
        facts = self._state.facts
        if isinstance(event, ev.FelixConfigurationChanged):
            facts.felix[event.configuration.name] = event.configuration
        else:
            facts.felix.pop(event.name, None)
        self._state.stale.overlay = True
        self._everybody()

    def _pools(self) -> None:
        self._state.facts.recount()
        stale = self._state.stale
        stale.own = stale.overlay = True
        stale.exporters.update(dict.fromkeys(self._state.facts.peers))
        self._everybody()

    def _store_synced(self) -> None:
        store = self._state.facts.store
        if store.lost_reason:
            self._state.note("store.returned", was=store.lost_reason)
        if not store.synced_once:
            self._state.stale.learned.update(dict.fromkeys(self._state.selections))
            self._state.sessions.file_only = False
            self._state.sessions.everything_changed()
        store.synced_once = True
        store.lost_reason = ""
        store.since = self._state.now
        self._state.stale.own = True

    def _block(self, event: object) -> None:
        facts = self._state.facts
        match event:
            case ev.BlockChanged(block=block):
                cidr = block.cidr
                self._borrowed(facts.blocks.get(cidr), block)
                facts.blocks[cidr] = block
                facts.count(cidr)
            case ev.BlockRemoved(cidr=cidr):
                self._borrowed(facts.blocks.pop(cidr, None), None)
                facts.count(cidr)
            case ev.AffinityChanged(affinity=affinity):
                cidr = affinity.cidr
                facts.affinities[cidr, affinity.node] = affinity
            case ev.AffinityRemoved(cidr=cidr, node=name):
                facts.affinities.pop((cidr, name), None)
            case _:
                raise AssertionError(f"no fact for {event!r}")
        before = facts.owner.get(cidr)
        concerned = facts.reown(cidr)
        if facts.owner.get(cidr) == before:
            return
        for name in concerned:
            self._state.stale.nodes[name] = None
        self._state.stale.learned[cidr] = None
        if facts.me.name in concerned:
            self._tell_block(cidr)
            self._state.stale.own = True
            self._mark(self._state.adj_in.prefixes())

    def _borrowed(self, before: Block | None, after: Block | None) -> None:
        """Note who borrows of a block now: each address is routed to, and announced by, its borrower."""
        facts, stale = self._state.facts, self._state.stale
        was = {prefix: facts.borrower.get(prefix) for prefix in _addresses(before)}
        for prefix in facts.borrow(before, after):
            concerned = {was.get(prefix), facts.borrower.get(prefix)} - {None}
            stale.nodes.update((name, None) for name in concerned if name is not None)
            stale.learned[prefix] = None
            stale.prefixes[prefix] = None  # what BGP says of it may be eligible now, or no longer
            stale.own = stale.own or facts.me.name in concerned
        if facts.me.name in {one.node for one in (before, after) if one is not None}:
            stale.own = True  # an own block that became empty may have to go back

    def _tell_block(self, cidr: Prefix) -> None:
        """Tell that a block became ours, or is so no longer; what the first reading of the store finds is no news."""
        facts = self._state.facts
        if facts.store.synced_once:
            owner = facts.owner.get(cidr)
            name = "block.claimed" if owner == facts.me.name else "block.released"
            self._state.note(name, block=str(cidr), owner=owner)

    # -------------------------------------------------------------- BGP

    def _bgp(self, event: object) -> None:
        facts = self._state.facts
        match event:
            case ev.SpeakerUp():
                facts.speaker_up, facts.speaker_since, facts.speaker_reason = True, self._state.now, ""
            case ev.SpeakerLost(reason=reason):
                self._speaker_lost(reason)
            case ev.PeerUp():
                self._peer_up(event)
            case ev.PeerDown():
                self._peer_down(event)
            case ev.RoutesLearned():
                self._routes(event)
            case ev.RefreshBegun(peer=peer, family=family):
                until = self._state.now + facts.options.peers_learned_ceiling_s
                self._state.adj_in.refresh(peer, family, until)
            case ev.EndOfRib():
                self._end_of_rib(event)
            case ev.UpdateMalformed():
                self._malformed(event)
            case ev.BfdChanged():
                self._bfd(event)
            case ev.LimitLifted(peer=peer):
                if facts.limits.pop(peer, None) is not None:
                    self._state.stale.peers[peer] = None

    def _speaker_lost(self, reason: str) -> None:
        """End every session; what was learned is kept for the restart time that we offer, since the peers have restarted nothing."""
        facts = self._state.facts
        facts.speaker_up, facts.speaker_since, facts.speaker_reason = False, self._state.now, reason
        self._state.note("speaker.lost", reason=reason)
        for peer, session in facts.sessions.items():
            if session.up:
                keep_s = facts.peers[peer].graceful_restart_s if peer in facts.peers else 0
                self._down(peer, session, f"ExaBGP: {reason}", None, keep_s=keep_s, families=tuple(Family), ours=True)

    def _peer_up(self, event: ev.PeerUp) -> None:
        session = self._state.facts.sessions.setdefault(event.peer, Session())
        session.up, session.since, session.open = True, self._state.now, event.open
        session.unreachable_since = None
        session.transitions += 1
        session.learned.clear()
        restart = event.open.graceful_restart
        preserved = restart.preserved if restart is not None else ()
        until = self._state.now + self._state.facts.options.peers_learned_ceiling_s
        self._mark(self._state.adj_in.resume(event.peer, event.open.families, preserved, until))
        if event.peer in self._state.facts.bfd:
            self._mark_peer(event.peer)
        self._state.note(
            "peer.established", peer=str(event.peer), asn=event.open.asn, router_id=str(event.open.router_id)
        )

    def _peer_down(self, event: ev.PeerDown) -> None:
        session = self._state.facts.sessions.get(event.peer)
        if session is None:
            return
        if not session.up:
            session.reason, session.notification = event.reason, event.notification
            if not event.unreachable:
                session.unreachable_since = None
            elif session.unreachable_since is None:
                session.unreachable_since = self._state.now
            return
        restart = session.open.graceful_restart if session.open is not None else None
        keep_s = restart.restart_time_s if restart is not None and _outlives(restart, event.notification) else 0
        families = restart.families if restart is not None else ()
        self._down(event.peer, session, event.reason, event.notification, keep_s=keep_s, families=families)

    def _down(
        self,
        peer: Address,
        session: Session,
        reason: str,
        notification: Notification | None,
        *,
        keep_s: int,
        families: Collection[Family],
        ours: bool = False,
    ) -> None:
        """End a session, whose routes of *families* are kept for *keep_s* (RFC 4724 section 4.2); *ours*: our speaker ended it."""
        session.up, session.since = False, self._state.now
        session.reason, session.notification = reason, notification
        session.transitions += 1
        session.learned.clear()
        self._state.stale.losses = True
        kept = keep_s > 0
        if kept:
            self._mark(self._state.adj_in.keep(peer, families, self._state.now + keep_s, ours=ours))
            if peer in self._state.facts.bfd:
                self._mark_peer(peer)
        else:
            self._mark(self._state.adj_in.clear(peer))
        self._state.note("peer.lost", peer=str(peer), reason=reason, routes_kept_s=keep_s if kept else None)

    def _bfd(self, event: ev.BfdChanged) -> None:
        facts = self._state.facts
        before, old = facts.broken(event.peer), facts.bfd.get(event.peer)
        if event.status is None:
            facts.bfd.pop(event.peer, None)
        else:
            same = old is not None and old.status.failed is event.status.failed
            facts.bfd[event.peer] = Told(event.status, old.since if same and old is not None else self._state.now)
            self._tell_bfd(event.peer, old.status if old is not None else None, event.status)
        if facts.broken(event.peer) != before:
            self._state.stale.losses = True
            self._mark_peer(event.peer)

    def _tell_bfd(self, peer: Address, old: BfdStatus | None, new: BfdStatus) -> None:
        if new.problem and (old is None or old.problem != new.problem):
            self._state.note("bfd.mute", peer=str(peer), reason=new.problem)
        was, is_up = old is not None and old.state is BfdState.UP, new.state is BfdState.UP
        if was is not is_up and (is_up or was):
            name = "bfd.up" if is_up else "bfd.down"
            self._state.note(name, peer=str(peer), reason=new.diagnostic, detection_time_ms=new.detection_time_ms)

    def _mark_peer(self, peer: Address) -> None:
        """Decide anew what was learned from *peer*. O(its routes)."""
        self._mark([prefix for prefix, _ in self._state.adj_in.of_peer(peer)])

    def _routes(self, event: ev.RoutesLearned) -> None:
        adj_in = self._state.adj_in
        self._mark(adj_in.withdraw(event.peer, event.path_id, event.withdrawn))
        if event.announced and event.attributes is not None:
            self._mark(adj_in.learn(event.peer, event.path_id, event.announced, event.attributes, self._state.now))

    def _malformed(self, event: ev.UpdateMalformed) -> None:
        """Count a defect by its kind, and tell of the first one of each: a broken peer must not fill the log."""
        session = self._state.facts.sessions.get(event.peer)
        if session is None:
            return
        kind = f"{event.treatment} {event.attribute}".rstrip()
        session.errors[kind] = session.errors.get(kind, 0) + 1
        if session.errors[kind] == 1 or event.treatment in (ev.Treatment.DISABLE, ev.Treatment.RESET):
            self._state.note(
                "update.malformed", peer=str(event.peer), treatment=event.treatment.value, reason=event.reason
            )
        if event.family is not None:
            self._mark(self._state.adj_in.clear(event.peer, event.family))

    def _end_of_rib(self, event: ev.EndOfRib) -> None:
        session = self._state.facts.sessions.get(event.peer)
        if session is None or not session.up:
            return
        session.learned.add(event.family)
        session.learned_once.add(event.family)
        self._mark(self._state.adj_in.sweep(event.peer, event.family))

    # -------------------------------------------------------------- kernel

    def _foreign(self, event: ev.ForeignRouteChanged | ev.ForeignRouteRemoved) -> None:
        resolver, hops = self._state.resolver, event.hops if isinstance(event, ev.ForeignRouteChanged) else None
        if event.resolves:
            if hops is not None:
                resolver.route_changed(event.prefix, event.metric, hops)
            else:
                resolver.route_removed(event.prefix, event.metric)
            self._state.stale.resolution = True
        if event.resolves is not event.beside:
            resolver.apart(event.prefix, event.metric, there=event.beside and hops is not None)
        self._forward_again(event.prefix)

    def _kernel(self, event: object) -> None:
        resolver, stale = self._state.resolver, self._state.stale
        match event:
            case ev.KernelSynced():
                self._state.facts.kernel_synced = True
            case ev.RouterFound(link=link, address=address):
                self._state.facts.world.found[link] = address
                self._state.sessions.links_changed()
            case ev.LinkChanged():
                resolver.link_changed(event)
                stale.resolution = stale.overlay = True
            case ev.LinkRemoved(name=name):
                resolver.link_removed(name)
                stale.resolution = stale.overlay = True
            case ev.NeighbourSilent(device=device, address=address, silent=silent):
                resolver.neighbour(device, address, silent=silent)
                stale.resolution = True
            case ev.ForeignRouteChanged() | ev.ForeignRouteRemoved():
                self._foreign(event)
            case ev.AddressAdded(device=device, address=address, subnet=subnet):
                # Its connected route comes as a route of the kernel.
                resolver.address_added(device, address)
                self._resources.address(device, address, subnet)
                stale.resolution = True
            case ev.AddressRemoved(device=device, address=address):
                resolver.address_removed(device, address)
                self._resources.address(device, address, None)
                stale.resolution = True
            case _:
                raise AssertionError(f"no fact for {event!r}")

    # -------------------------------------------------------------- marks

    def _forward_again(self, prefix: Prefix) -> None:
        if prefix in self._state.selections:
            self._state.stale.learned[prefix] = None

    def _mark(self, prefixes: Iterable[Prefix]) -> None:
        self._state.stale.prefixes.update(dict.fromkeys(prefixes))

    def _everybody(self) -> None:
        self._state.stale.nodes.update(self._state.facts.holders())


def _addresses(block: Block | None) -> tuple[Prefix, ...]:
    """Return what is borrowed of a block."""
    return () if block is None else tuple(Prefix.of(address, address.family.bits) for address, _ in block.borrowed)


def _outlives(restart: GracefulRestart, ending: Notification | None) -> bool:
    """Tell whether routes are kept: not after a NOTIFICATION, unless both sides have the N bit and it is no hard reset (RFC 8538)."""
    return ending is None or (restart.notification and not ending.hard)


_STORE_EVENTS = (
    ev.StoreSynced,
    ev.StoreLost,
    ev.PoolChanged,
    ev.PoolRemoved,
    ev.NodeChanged,
    ev.NodeRemoved,
    ev.NodeAlive,
    ev.NodeDead,
    ev.BlockChanged,
    ev.BlockRemoved,
    ev.AffinityChanged,
    ev.AffinityRemoved,
    ev.FelixConfigurationChanged,
    ev.FelixConfigurationRemoved,
)
_RESOURCE_EVENTS = (
    ev.BgpPeerChanged,
    ev.BgpPeerRemoved,
    ev.BgpConfigurationChanged,
    ev.BgpConfigurationRemoved,
    ev.BgpFilterChanged,
    ev.BgpFilterRemoved,
    ev.WorkloadChanged,
    ev.WorkloadRemoved,
)
_BGP_EVENTS = (
    ev.SpeakerUp,
    ev.SpeakerLost,
    ev.PeerUp,
    ev.PeerDown,
    ev.RoutesLearned,
    ev.RefreshBegun,
    ev.EndOfRib,
    ev.UpdateMalformed,
    ev.LimitLifted,
    ev.BfdChanged,
)
