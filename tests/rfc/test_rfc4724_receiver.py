"""Graceful restart as the receiving speaker, a test a sentence of RFC 4724 section 4.2; enhanced refresh (RFC 7313 section 4).

RFC 8538 (NOTIFICATIONs) is in tests/core/test_session_end.py, the restarting speaker in tests/netns/test_graceful_restart.py.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from bgpd.core.pipeline import Pipeline
from bgpd.core.rib.adj_in import AdjIn
from bgpd.model import event as ev
from bgpd.model.forwarding import RouteKey
from bgpd.model.peer import GracefulRestart, SessionOpen
from bgpd.model.prefix import Address, Family, Prefix
from bgpd.model.route import AsSegment, Attributes, Origin, SegmentKind
from tests.core import world as w

pytestmark = pytest.mark.core

A1, A2 = w.P("192.0.2.0/25"), w.P("192.0.2.128/25")
B1 = w.P("2001:db8:1::/48")
V4, V6 = Family.IPV4, Family.IPV6
BOTH = (V4, V6)
HOP6 = w.A("2001:db8::1")
RESTART_S = 120
LOST = ev.PeerDown(w.TOR1, "connection lost")


def opened(
    preserved: tuple[Family, ...] = BOTH, families: tuple[Family, ...] = BOTH, *, capable: bool = True
) -> SessionOpen:
    """An OPEN of both families, with the capability for *families* and the F bit for *preserved*."""
    restart = GracefulRestart(RESTART_S, restarting=True, preserved=preserved, families=families)
    return replace(w.opened(1), families=BOTH, graceful_restart=restart if capable else None)


def routes(*prefixes: Prefix) -> list[ev.Event]:
    """Announce each by itself; IPv6 with its own next hop."""
    found: list[ev.Event] = []
    for prefix in prefixes:
        hop = w.TOR1 if prefix.family is V4 else HOP6
        path = (AsSegment(SegmentKind.SEQUENCE, (65101,)),)
        attributes = Attributes(next_hop=hop, origin=Origin.IGP, as_path=path)
        found.append(ev.RoutesLearned(peer=w.TOR1, announced=(prefix,), attributes=attributes))
    return found


def eor(*families: Family) -> list[ev.Event]:
    return [ev.EndOfRib(w.TOR1, family) for family in families]


def running() -> Pipeline:
    """A node with one peer that has sent A1, A2 and B1, at time 0."""
    peer = replace(w.peer(1), families=BOTH)
    v6 = ev.ForeignRouteChanged(prefix=w.P("2001:db8::/64"), metric=0, hops=(("eth1", None),))
    start = [ev.Configured(node=w.node(1), peers=(peer,), options=w.OPTIONS), *w.kernel(), v6]
    start += [*w.store(), ev.StoreSynced(), ev.SpeakerUp(), ev.PeerUp(w.TOR1, opened())]
    return w.feed(Pipeline(), [*start, *routes(A1, A2, B1), *eor(V4, V6)])


def held(pipeline: Pipeline) -> dict[str, bool]:
    """The peer's routes, and which of them are stale."""
    adj_in = pipeline.state.adj_in
    return {
        str(prefix): adj_in.is_stale(prefix, adj_in.paths(prefix)[w.TOR1, path_id])
        for prefix, path_id in adj_in.of_peer(w.TOR1)
    }


ALL_STALE = {str(A1): True, str(A2): True, str(B1): True}


def test_routes_of_the_capability_are_kept_and_marked_stale() -> None:
    """When the session ends, routes of all families of the capability are retained and marked as stale."""
    pipeline = w.feed(running(), [LOST], now=10.0)
    assert ALL_STALE == held(pipeline)


def test_routes_of_other_families_are_not_kept() -> None:
    """A family that was not in the capability is not retained."""
    pipeline = running()
    again = [LOST, ev.PeerUp(w.TOR1, opened(families=(V4,))), *routes(A1, B1), *eor(V4, V6), LOST]

    assert {str(A1): True} == held(w.feed(pipeline, again, now=10.0))


def test_stale_routes_forward_as_others_do() -> None:
    """The router does not differentiate between stale and other routes during forwarding."""
    pipeline = running()
    before = w.tables(pipeline)

    w.feed(pipeline, [LOST], now=10.0)

    assert before == w.tables(pipeline)


def test_a_stale_route_is_deleted_by_a_second_restart() -> None:
    """To deal with consecutive restarts, a route that was marked stale before is deleted."""
    pipeline = w.feed(running(), [LOST, ev.PeerUp(w.TOR1, opened()), *routes(A1), LOST], now=10.0)
    assert {str(A1): True} == held(pipeline)


def test_stale_routes_go_when_the_session_is_not_back_in_time() -> None:
    """If the session is not re-established within the peer's Restart Time, all its stale routes are deleted."""
    pipeline = w.feed(running(), [LOST], now=10.0)
    assert 10.0 + RESTART_S == pipeline.deadline()

    w.feed(pipeline, [ev.Tick()], now=10.0 + RESTART_S - 1)
    assert ALL_STALE == held(pipeline)
    w.feed(pipeline, [ev.Tick()], now=10.0 + RESTART_S)
    assert {} == held(pipeline)
    assert RouteKey(A1) not in pipeline.tables.kernel


@pytest.mark.parametrize(
    ("back", "kept"),
    [
        pytest.param(opened(preserved=(V4,)), {str(A1), str(A2)}, id="F bit not set for IPv6"),
        pytest.param(opened(preserved=(V6,), families=(V6,)), {str(B1)}, id="IPv4 not in the capability"),
        pytest.param(opened(preserved=()), set(), id="no F bit"),
        pytest.param(opened(capable=False), set(), id="no capability"),
    ],
)
def test_what_the_peer_did_not_preserve_goes_at_once(back: SessionOpen, kept: set[str]) -> None:
    """F bit not set, family not in the capability, or no capability in the new OPEN: its stale routes go immediately."""
    pipeline = w.feed(running(), [LOST, ev.PeerUp(w.TOR1, back)], now=10.0)
    assert dict.fromkeys(kept, True) == held(pipeline)


def test_updates_replace_stale_routes() -> None:
    """Stale routes are replaced by the routing updates received from the peer."""
    pipeline = w.feed(running(), [LOST, ev.PeerUp(w.TOR1, opened()), *routes(A1)], now=10.0)
    assert ALL_STALE | {str(A1): False} == held(pipeline)


def test_end_of_rib_removes_what_is_stale_of_its_family() -> None:
    """Once End-of-RIB of a family is received, routes of that family that are still stale are removed immediately."""
    pipeline = w.feed(running(), [LOST, ev.PeerUp(w.TOR1, opened()), *routes(A1), *eor(V4)], now=10.0)
    assert {str(A1): False, str(B1): True} == held(pipeline)

    w.feed(pipeline, eor(V6), now=10.0)
    assert {str(A1): False} == held(pipeline)
    assert pipeline.state.adj_in.deadline() is None


def test_a_timer_bounds_how_long_stale_routes_wait_for_end_of_rib() -> None:
    """The optional upper bound on retaining stale routes is peers_learned_ceiling_s from the session's return on."""
    pipeline = w.feed(running(), [LOST], now=10.0)
    w.feed(pipeline, [ev.PeerUp(w.TOR1, opened()), *routes(A1)], now=20.0)
    assert 20.0 + w.OPTIONS.peers_learned_ceiling_s == pipeline.deadline()

    w.feed(pipeline, [ev.Tick()], now=20.0 + w.OPTIONS.peers_learned_ceiling_s)
    assert {str(A1): False} == held(pipeline)


def test_a_peer_that_offered_nothing_keeps_nothing() -> None:
    """Without the capability the session's end is the end of its routes (RFC 4271 section 8.2.2)."""
    pipeline = w.feed(running(), [LOST, ev.PeerUp(w.TOR1, opened(capable=False)), *routes(A1), LOST], now=10.0)
    assert {} == held(pipeline)


def test_our_own_speakers_end_is_no_restart_of_the_peer() -> None:
    """When ExaBGP ends, the peers have restarted nothing: F bits are not asked for, and a second end deletes nothing."""
    pipeline = w.feed(running(), [ev.SpeakerLost("killed"), ev.SpeakerUp()], now=10.0)
    w.feed(pipeline, [ev.PeerUp(w.TOR1, opened(preserved=())), *routes(A1)], now=11.0)
    assert ALL_STALE | {str(A1): False} == held(pipeline)

    w.feed(pipeline, [ev.SpeakerLost("killed"), ev.SpeakerUp()], now=12.0)
    assert ALL_STALE == held(pipeline)
    w.feed(pipeline, [ev.PeerUp(w.TOR1, opened(preserved=())), *routes(A2), *eor(V4, V6)], now=13.0)
    assert {str(A2): False} == held(pipeline)


# ------------------------------------------------------------------ RFC 7313


def test_a_refresh_removes_what_is_not_sent_again() -> None:
    """From BoRR to EoRR, routes of the family that are not sent again are stale, and are removed at EoRR (RFC 7313 section 4)."""
    pipeline = w.feed(running(), [ev.RefreshBegun(w.TOR1, V4)], now=10.0)
    assert ALL_STALE | {str(B1): False} == held(pipeline)

    w.feed(pipeline, [*routes(A1), *eor(V4)], now=11.0)
    assert {str(A1): False, str(B1): False} == held(pipeline)
    assert RouteKey(A2) not in pipeline.tables.kernel


def test_an_end_of_rib_without_a_beginning_removes_nothing() -> None:
    """End-of-RIB of a session whose routes are all its own costs nothing and removes nothing."""
    pipeline = w.feed(running(), eor(V4, V6), now=10.0)
    assert dict.fromkeys(ALL_STALE, False) == held(pipeline)


def test_a_refresh_that_does_not_end_ends_by_time() -> None:
    """A BoRR that no EoRR follows is ended by the same timer (RFC 7313 section 4)."""
    pipeline = w.feed(running(), [ev.RefreshBegun(w.TOR1, V4), *routes(A1)], now=10.0)

    w.feed(pipeline, [ev.Tick()], now=10.0 + w.OPTIONS.peers_learned_ceiling_s)
    assert {str(A1): False, str(B1): False} == held(pipeline)


# ------------------------------------------------------------------ one concept

PREFIXES = (A1, A2, B1, w.P("2001:db8:2::/48"))
PEER = w.TOR1
ANY = Attributes(next_hop=Address(1))
verbs = st.sampled_from(["learn", "withdraw", "keep", "keep ours", "resume", "refresh", "sweep", "clear", "due"])
steps = st.tuples(verbs, st.sampled_from(PREFIXES), st.sampled_from(BOTH))


def step(adj_in: AdjIn, verb: str, prefix: Prefix, family: Family, now: float) -> None:
    match verb:
        case "learn":
            adj_in.learn(PEER, 0, (prefix,), ANY, now)
        case "withdraw":
            adj_in.withdraw(PEER, 0, (prefix,))
        case "keep" | "keep ours":
            adj_in.keep(PEER, (family,), now + 10, ours=verb == "keep ours")
        case "resume":
            adj_in.resume(PEER, BOTH, (family,), now + 10)
        case "refresh":
            adj_in.refresh(PEER, family, now + 10)
        case "sweep":
            adj_in.sweep(PEER, family)
        case "clear":
            adj_in.clear(PEER, family)
        case "due":
            for peer in adj_in.due(now):
                adj_in.sweep(peer)


@given(st.lists(steps, max_size=40))
def test_stale_routes_always_have_an_end(done: list[tuple[str, Prefix, Family]]) -> None:
    """Whatever happens, a stale route has a deadline, its peer is due then, and the sweep leaves what is not stale."""
    adj_in, now = AdjIn(), 0.0
    for verb, prefix, family in done:
        now += 1.0
        step(adj_in, verb, prefix, family, now)
        entries = list(adj_in.of_peer(PEER))
        stale = [one for one, _ in entries if adj_in.is_stale(one, adj_in.paths(one)[PEER, 0])]
        deadline = adj_in.deadline()
        assert not stale or deadline is not None
        if deadline is not None:
            assert deadline <= now + 10
            assert [PEER] == adj_in.due(deadline)
    for peer in adj_in.due(now + 20):
        adj_in.sweep(peer)
    assert not any(adj_in.is_stale(one, adj_in.paths(one)[PEER, 0]) for one, _ in adj_in.of_peer(PEER))
    assert adj_in.deadline() is None
