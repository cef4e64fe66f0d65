"""When the start-up waits, and when our End-of-RIB may be sent (RFC 4724 section 4.1)."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from bgpd.core.pipeline import Phase, Pipeline
from bgpd.model import event as ev
from bgpd.model.peer import GracefulRestart, PeerPolicy
from bgpd.model.prefix import Family
from tests.core import world as w

pytestmark = pytest.mark.core

US, CLUSTER = 65001, w.A("10.0.0.99")


def started(*, reflecting: bool) -> Pipeline:
    """A node that has read its store, with two peers that it reflects between or does not."""
    policy = PeerPolicy(reflector_cluster=CLUSTER) if reflecting else PeerPolicy()
    peers = tuple(replace(w.peer(number), asn=US, policy=policy) for number in (1, 2))
    configured = ev.Configured(node=w.node(1), peers=peers, options=w.OPTIONS)
    me = ev.NodeChanged(replace(w.node(1), cluster_id=CLUSTER if reflecting else None))
    return w.feed(Pipeline(), [configured, *w.kernel(), *w.store(), me, ev.StoreSynced(), ev.SpeakerUp()])


def up(number: int, *, restarting: bool = False) -> ev.PeerUp:
    restart = GracefulRestart(120, restarting=restarting, preserved=(Family.IPV4,), families=(Family.IPV4,))
    return ev.PeerUp((w.TOR1, w.TOR2)[number - 1], replace(w.opened(number), asn=US, graceful_restart=restart))


def test_own_routes_are_complete_once_the_store_was_read() -> None:
    """A node that reflects nothing knows all that it announces as soon as it has read the store."""
    pipeline = started(reflecting=False)
    assert Phase.PEERS == pipeline.phase
    assert pipeline.announcements_known


def test_reflected_routes_are_complete_once_every_peer_was_heard() -> None:
    """A reflector defers its End-of-RIB until the route selection, which waits for every peer's."""
    pipeline = w.feed(started(reflecting=True), [up(1), ev.EndOfRib(w.TOR1, Family.IPV4), up(2)])
    assert not pipeline.announcements_known

    w.feed(pipeline, [ev.EndOfRib(w.TOR2, Family.IPV4)])
    assert pipeline.announcements_known


def test_a_reflector_does_not_wait_for_a_peer_that_restarts_itself() -> None:
    """Peers with the R bit are not waited for: each would wait for the other's End-of-RIB."""
    pipeline = w.feed(started(reflecting=True), [up(1), ev.EndOfRib(w.TOR1, Family.IPV4), up(2, restarting=True)])
    assert pipeline.announcements_known


def test_a_node_that_reflects_nothing_waits_for_it() -> None:
    """Where our End-of-RIB waits for nobody, a restarting peer is waited for: its routes may not be taken away before it was heard."""
    pipeline = w.feed(started(reflecting=False), [up(1), ev.EndOfRib(w.TOR1, Family.IPV4), up(2, restarting=True)])
    assert Phase.PEERS == pipeline.phase
    assert ("tor2",) == pipeline.waiting_for()
