"""What is scraped, against the state that it speaks of."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bgpd.adapters.reconciler import Reconciler
from bgpd.core.pipeline import Pipeline
from bgpd.daemon.metrics import Metrics
from bgpd.flow.inbox import Inbox
from bgpd.flow.table import Table
from bgpd.model import event as ev
from bgpd.model.bfd import BfdState, BfdStatus
from bgpd.model.forwarding import KernelKey, KernelValue
from bgpd.model.notice import Notice
from bgpd.sim.kernel import FakeKernel
from tests.core import world as w

pytestmark = pytest.mark.core

Found = dict[tuple[str, tuple[tuple[str, str], ...]], float]


async def _deliver(_event: ev.Event) -> None:
    """Nobody listens."""


async def _nothing() -> None:
    """Nobody waits."""


def metrics(pipeline: Pipeline) -> Metrics:
    kernel: Reconciler[KernelKey, KernelValue] = Reconciler(
        Table("kernel"),
        FakeKernel(_deliver, lambda _keys: None),
        clock=lambda: 0.0,
        converged=_nothing,
        notice=lambda _notice: None,
    )
    return Metrics(pipeline, Inbox(), kernel, started=0.0)


def scrape(one: Metrics) -> Found:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(one.render().decode())
        for sample in family.samples
    }


def tor(number: int, **more: str) -> tuple[tuple[str, str], ...]:
    address = (w.TOR1, w.TOR2)[number - 1]
    return tuple(sorted({"peer": f"tor{number}", "address": str(address), **more}.items()))


def watched() -> Pipeline:
    pipeline = w.feed(Pipeline(), [w.WATCHED, *w.whole()[1:]])
    return w.feed(pipeline, [ev.BfdChanged(peer, BfdStatus(state=BfdState.UP)) for peer in (w.TOR1, w.TOR2)])


def test_names_follow_the_rules() -> None:
    """Every family begins with bgpd_, has a help text, and a unit or _total where its kind asks for one."""
    for family in text_string_to_metric_families(metrics(watched()).render().decode()):
        assert re.fullmatch(r"bgpd_[a-z_]+", family.name)
        assert family.documentation.endswith(".")
        if family.type == "histogram":
            assert family.name.endswith("_seconds")
        assert all(sample.name.endswith("_total") for sample in family.samples) or family.type != "counter"


def test_sessions_and_their_routes_are_shown() -> None:
    """A session, its transitions and its routes by family, as the pipeline holds them."""
    found = scrape(metrics(watched()))
    for number in (1, 2):
        assert 1.0 == found["bgpd_peer_up", tor(number)]
        assert 1.0 == found["bgpd_peer_transitions_total", tor(number)]
        assert 2.0 == found["bgpd_peer_routes_received", tor(number, family="ipv4")]
        assert 2.0 == found["bgpd_peer_routes_accepted", tor(number, family="ipv4")]
        assert 1.0 == found["bgpd_peer_routes_announced", tor(number, family="ipv4")]
        assert 1.0 == found["bgpd_bfd_up", tor(number)]
    assert 2.0 == found["bgpd_nodes", (("path", "native"),)]


def test_what_is_lost_shows() -> None:
    """A failed path makes its routes ineligible, a lost peer has no session, and nodes go by the tunnel."""
    pipeline = watched()
    failed = BfdStatus(diagnostic="control detection time expired", failed=True)
    w.feed(
        pipeline, [ev.BfdChanged(w.TOR1, failed), ev.PeerDown(w.TOR2, "connection refused"), ev.StoreLost("no answer")]
    )
    found = scrape(metrics(pipeline))
    assert (2.0, 0.0) == (
        found["bgpd_peer_routes_received", tor(1, family="ipv4")],
        found["bgpd_peer_routes_accepted", tor(1, family="ipv4")],
    )
    assert (0.0, 0.0) == (found["bgpd_peer_up", tor(2)], found["bgpd_peer_routes_received", tor(2, family="ipv4")])
    assert (0.0, 2.0) == (found["bgpd_nodes", (("path", "native"),)], found["bgpd_nodes", (("path", "fallback"),)])
    assert (0.0, 0.0) == (found["bgpd_bfd_up", tor(1)], found["bgpd_store_up", ()])


def test_the_counts_of_routes_are_those_of_a_full_walk() -> None:
    """Counting as routes come and go gives what counting all of them gives."""
    pipeline = watched()
    failed = ev.BfdChanged(w.TOR1, BfdStatus(diagnostic="silence", failed=True))
    steps: list[ev.Event] = [
        failed,
        ev.RoutesLearned(peer=w.TOR1, withdrawn=(w.BLOCK2,)),
        w.learned(w.TOR1, w.BLOCK2, w.P("192.0.2.0/24")),
        ev.BfdChanged(w.TOR1, BfdStatus(state=BfdState.UP)),
        ev.PeerDown(w.TOR1, "closed"),
        *w.session(1, w.learned(w.TOR1, w.BLOCK3)),
        ev.BlockRemoved(w.OWN_BLOCK),
        w.learned(w.TOR2, w.OWN_BLOCK),
    ]
    for step in steps:
        w.feed(pipeline, [step])
        state = pipeline.state
        walked = Counter((path.peer, p.family) for p, paths in state.ineligible.items() for path, _ in paths)
        assert walked == +state.refused
        for peer in (w.TOR1, w.TOR2):
            entries = Counter(prefix.family for prefix, _ in state.adj_in.of_peer(peer))
            assert entries == Counter({f: n for f in entries if (n := state.adj_in.count(peer, f))})


def test_notices_are_counted_by_name() -> None:
    """Each notice adds one to its name's counter."""
    one = metrics(watched())
    for name in ("peer.lost", "peer.lost", "store.lost"):
        one.noticed(Notice(name))
    found = scrape(one)
    assert (2.0, 1.0) == tuple(found["bgpd_notices_total", (("event", name),)] for name in ("peer.lost", "store.lost"))
