"""Which peers the start waits for (law 3)."""

from __future__ import annotations

import pytest

from bgpd.core.gate import UNREACHABLE_S
from bgpd.core.pipeline import Phase, Pipeline
from bgpd.model import event as ev
from bgpd.model.bfd import BfdStatus
from tests.core import world as w

pytestmark = pytest.mark.core

REFUSED = "connection refused: nothing listens on the neighbor's port, or it does not know us"


def started(*events: ev.Event) -> Pipeline:
    """A pipeline that has all but the peers."""
    return w.feed(Pipeline(), [w.CONFIGURED, *w.kernel(), *w.store(), ev.StoreSynced(), *events])


def refused(number: int) -> ev.PeerDown:
    return ev.PeerDown((w.TOR1, w.TOR2)[number - 1], REFUSED, unreachable=True)


def test_a_peer_that_refuses_connections_is_not_waited_for_once_another_was_heard() -> None:
    """After UNREACHABLE_S of refusals the start goes on with the peers that were heard; not before, and the deadline says when."""
    pipeline = started(*w.session(1), refused(2))
    assert ("tor2",) == pipeline.waiting_for()
    assert UNREACHABLE_S == pipeline.deadline()

    w.feed(pipeline, [ev.Tick()], now=UNREACHABLE_S - 0.1)
    assert Phase.PEERS is pipeline.phase
    w.feed(pipeline, [ev.Tick()], now=UNREACHABLE_S)

    assert Phase.PROGRAMMING is pipeline.phase


def test_with_no_peer_heard_nothing_is_concluded_from_refusals() -> None:
    """Routers whose BGP restarts refuse connections and forward on: with all of them silent the start waits for the ceiling."""
    pipeline = started(refused(1), refused(2))

    w.feed(pipeline, [ev.Tick()], now=UNREACHABLE_S + 1)

    assert Phase.PEERS is pipeline.phase
    assert ("tor1", "tor2") == pipeline.waiting_for()
    assert 60.0 == pipeline.deadline()


def test_peers_that_bfd_calls_down_are_not_waited_for() -> None:
    """BFD tests the path itself: where it has failed, nothing that the peer could say would be usable."""
    pipeline = w.feed(Pipeline(), [w.WATCHED, *w.kernel(), *w.store(), ev.StoreSynced(), *w.session(1)])
    assert ("tor2",) == pipeline.waiting_for()

    w.feed(pipeline, [ev.BfdChanged(w.TOR2, BfdStatus(diagnostic="silence", failed=True))])

    assert Phase.PROGRAMMING is pipeline.phase


def test_a_peer_that_answers_or_falls_silent_is_waited_for_again() -> None:
    """Another reason than a refusal, or a session, ends the count; a later refusal begins it anew."""
    pipeline = started(*w.session(1), refused(2))
    w.feed(pipeline, [ev.PeerDown(w.TOR2, "no answer from port 179")], now=5.0)
    w.feed(pipeline, [refused(2)], now=8.0)
    w.feed(pipeline, [ev.Tick()], now=UNREACHABLE_S + 1)
    assert ("tor2",) == pipeline.waiting_for()
    assert 8.0 + UNREACHABLE_S == pipeline.deadline()

    w.feed(pipeline, w.session(2)[:1], now=12.0)
    w.feed(pipeline, [ev.Tick()], now=30.0)
    assert ("tor2",) == pipeline.waiting_for()

    w.feed(pipeline, w.session(2)[1:], now=31.0)
    assert Phase.PROGRAMMING is pipeline.phase


def test_what_the_gate_concluded_is_undone_by_the_peer() -> None:
    """A peer that comes up after all is heard as any other: the tables are as if it had been there from the start."""
    late = started(*w.session(1, w.learned(w.TOR1, w.BLOCK2)), refused(2))
    w.feed(late, [ev.Tick()], now=UNREACHABLE_S)
    w.feed(late, w.session(2, w.learned(w.TOR2, w.BLOCK2)), now=20.0)
    early = started(*w.session(1, w.learned(w.TOR1, w.BLOCK2)), *w.session(2, w.learned(w.TOR2, w.BLOCK2)))

    assert w.tables(early)["kernel"] == w.tables(late)["kernel"]
