"""What the API shows of sessions, and of the routes that they carry: the adj-ribs as the core has them.

A list costs what it shows: counts come from indexes or from one pass, routes are made one at a time while they are sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from bgpd.adapters import clock
from bgpd.adapters.reconciler import Reconciler
from bgpd.core.explain import Explainer
from bgpd.core.pipeline import Pipeline
from bgpd.core.rib.adj_in import Path
from bgpd.model.peer import Peer, SessionOpen
from bgpd.model.prefix import Address, Family, Prefix
from bgpd.model.route import Announcement, as_path_text, community_text
from bgpd.model.view import BfdView, FamilyView, PathView, PeerRouteView, PeerView, Which

CAPABILITIES = {
    1: "multiprotocol",
    2: "route-refresh",
    5: "extended-next-hop",
    6: "extended-message",
    9: "role",
    64: "graceful-restart",
    65: "4-byte-as",
    69: "add-path",
    70: "enhanced-route-refresh",
    71: "long-lived-graceful-restart",
    73: "fqdn",
}
"""Names of capability codes (RFC 5492; IANA), as far as routers of today send them; others are shown as numbers."""


class NoPeer(ValueError):  # noqa: N818  what the caller is told
    """There is no peer of that name or address; the message says which there are."""


class PeerViews:
    """Reads the pipeline and the reconcilers of the speaker's targets; owns nothing."""

    def __init__(
        self,
        pipeline: Pipeline,
        neighbors: Reconciler[Address, Peer],
        adj_rib_out: Reconciler[tuple[Address, Prefix], Announcement],
        explainer: Explainer,
    ) -> None:
        self._pipeline = pipeline
        self._state = pipeline.state
        self._neighbors = neighbors
        self._adj_rib_out = adj_rib_out
        self._explainer = explainer

    def address(self, name: str) -> Address:
        """Find a peer by its name or address; raises NoPeer."""
        peers = self._state.facts.peers
        for address, peer in peers.items():
            if name in {peer.name, str(address)}:
                return address
        known = ", ".join(sorted(peer.name for peer in peers.values())[:20])
        raise NoPeer(f"there is no peer {name}: {f'there are {known}' if known else 'none is configured'}")

    # -------------------------------------------------------------- sessions

    def peers(self, name: str | None) -> list[PeerView]:
        """Return every peer, or the one of *name* with its families in detail; raises NoPeer."""
        peers = self._state.facts.peers
        wanted = peers if name is None else {self.address(name): peers[self.address(name)]}
        announced = self._pipeline.exporter.announced
        return [self._peer(address, peer, announced, detail=name is not None) for address, peer in wanted.items()]

    def _peer(
        self,
        address: Address,
        peer: Peer,
        announced: Mapping[tuple[Address, Family], int],
        *,
        detail: bool,
    ) -> PeerView:
        session = self._state.facts.sessions[address]
        opened = session.open
        failure = self._neighbors.failure(address)
        live = opened if session.up else None
        hold_s = None if live is None else min(live.hold_time_s, peer.hold_time_s)
        families = self._families(address, peer, announced)
        return PeerView(
            name=peer.name,
            address=str(address),
            asn=peer.asn,
            local_address=str(peer.local_address),
            local_asn=peer.local_asn,
            state=self._session_state(address, peer),
            since=clock.wall_or_none(session.since),
            received=sum(family.received for family in families),
            accepted=sum(family.accepted for family in families),
            stale=sum(family.stale for family in families),
            announced=sum(family.announced for family in families),
            reason=failure.reason if failure is not None else peer.policy.hold_reason or session.reason,
            transitions=session.transitions,
            hold_time_s=hold_s,
            keepalive_s=None if hold_s is None else hold_s // 3,
            router_id=str(opened.router_id) if opened is not None else "",
            capabilities=_capabilities(peer, live),
            kind=peer.policy.kind.value,
            interface=peer.interface,
            offered=_offered(peer),
            received_capabilities=tuple(CAPABILITIES.get(code, str(code)) for code in live.capabilities)
            if live is not None
            else (),
            families=families if detail else (),
            errors=dict(sorted(session.errors.items())),
            bfd=self._bfd(address, peer),
        )

    def _session_state(self, address: Address, peer: Peer) -> str:
        facts = self._state.facts
        if facts.sessions[address].up:
            return "Established"
        if not facts.speaker_up:
            return "Down"
        idle = peer.passive or peer.policy.hold_reason or self._neighbors.failure(address) is not None
        return "Idle" if idle else "Connect"

    def _families(
        self, address: Address, peer: Peer, announced: Mapping[tuple[Address, Family], int]
    ) -> tuple[FamilyView, ...]:
        session, adj_in = self._state.facts.sessions[address], self._state.adj_in
        stale = adj_in.stale(address)
        return tuple(
            FamilyView(
                family=str(family),
                received=adj_in.count(address, family),
                accepted=self._state.accepted(address, family),
                stale=stale[family],
                announced=announced[address, family] if session.up else 0,
                complete=family in session.learned,
            )
            for family in peer.families
        )

    def _refused(self, prefix: Prefix, path: Path) -> str:
        for other, why in self._state.ineligible.get(prefix, ()):
            if (other.peer, other.path_id) == (path.peer, path.path_id):
                return why
        return ""

    def _bfd(self, address: Address, peer: Peer) -> BfdView | None:
        if peer.policy.bfd is None:
            return None
        told = self._state.facts.bfd.get(address)
        if told is None:
            return BfdView(
                state="unknown", since=None, reason="the BFD process has not told of it", detection_time_ms=0.0
            )
        status = told.status
        return BfdView(
            state=status.state,
            since=clock.wall_or_none(told.since),
            reason="; ".join(filter(None, (status.diagnostic, status.problem))),
            detection_time_ms=status.detection_time_ms,
        )

    # -------------------------------------------------------------- their routes

    def routes(self, name: str | None, which: Which, prefix: Prefix | None) -> Iterator[PeerRouteView]:
        """Yield the routes of one peer, or of all; of one *prefix*, or all. Raises NoPeer at once."""
        peers = list(self._state.facts.peers) if name is None else [self.address(name)]
        return self._advertised(peers, prefix) if which is Which.ADVERTISED else self._learned(peers, which, prefix)

    def _learned(self, peers: list[Address], which: Which, prefix: Prefix | None) -> Iterator[PeerRouteView]:
        adj_in = self._state.adj_in
        for peer in peers:
            for each, path_id in (
                sorted(adj_in.of_peer(peer)) if prefix is None else _keys(adj_in.paths(prefix), peer, prefix)
            ):
                path = adj_in.paths(each).get((peer, path_id))
                if path is None:
                    continue  # withdrawn while the list was sent
                refused = self._refused(each, path)
                if which is Which.RECEIVED or (which is Which.REJECTED) == bool(refused):
                    yield PeerRouteView(
                        prefix=str(each),
                        path=msgspec.structs.replace(
                            self._explainer.fate(each, path), since=clock.wall_or_none(path.since)
                        ),
                        path_id=path_id,
                        status=f"rejected: {refused}" if refused else "accepted",
                    )

    def _advertised(self, peers: list[Address], prefix: Prefix | None) -> Iterator[PeerRouteView]:
        wanted = set(peers)
        table, target = self._adj_rib_out.table, self._adj_rib_out.target
        for key in sorted(key for key, _ in table.items() if key[0] in wanted and prefix in {None, key[1]}):
            value = table.get(key)
            if value is None:
                continue
            failure = self._adj_rib_out.failure(key)
            status = "announced" if target.actual.get(key) == value else "pending"
            yield PeerRouteView(
                prefix=str(key[1]),
                path=self._sent(key[0], value),
                status=f"refused: {failure.reason}" if failure is not None else status,
            )

    def _sent(self, address: Address, value: Announcement) -> PathView:
        peer = self._state.facts.peers.get(address)
        local = "" if peer is None else str(peer.local_address)
        own = f"{peer.local_asn} " if peer is not None and peer.is_external else ""
        return PathView(
            peer=peer.name if peer is not None else str(address),
            next_hop=str(value.next_hop) if value.next_hop is not None else local,
            as_path=(own + as_path_text(value.as_path)).strip(),
            origin=value.origin.name,
            med=value.med,
            local_pref=value.local_pref,
            communities=tuple(map(community_text, value.communities)),
            best=False,
            equal=False,
            why_not="",
            stale=False,
            since=None,
        )


def _keys(paths: Mapping[tuple[Address, int], Path], peer: Address, prefix: Prefix) -> list[tuple[Prefix, int]]:
    return [(prefix, path_id) for address, path_id in sorted(paths) if address == peer]


def _capabilities(peer: Peer, opened: SessionOpen | None) -> tuple[str, ...]:
    """Name what both sides can, as far as we use it."""
    if opened is None:
        return ()
    names = [f"{family} unicast" for family in opened.families if family in peer.families]
    if opened.route_refresh:
        names.append("route-refresh")
    if opened.enhanced_refresh:
        names.append("enhanced-route-refresh")
    if opened.graceful_restart is not None:
        names.append(f"graceful-restart {opened.graceful_restart.restart_time_s} s")
    if peer.add_path_receive and opened.add_path:
        names.append("add-path receive")
    if peer.extended_next_hop and opened.extended_next_hop:
        names.append("extended-next-hop")
    if peer.role is not None and opened.roles:
        names.append(f"role {peer.role} (the neighbor: {', '.join(opened.roles)})")
    return tuple(names)


def _offered(peer: Peer) -> tuple[str, ...]:
    """Name what our OPEN says (adapters/exabgp/conf.py writes it)."""
    codes = {1, 2, 6, 65, 70}
    codes |= {64} if peer.graceful_restart_s else set()
    codes |= {69} if peer.add_path_receive else set()
    codes |= {5} if peer.extended_next_hop else set()
    codes |= {9} if peer.role is not None and peer.is_external else set()
    return tuple(CAPABILITIES[code] for code in sorted(codes))
