"""What is scraped, against the state that it speaks of."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bgpd.adapters.mqtt.broker import Broker
from bgpd.adapters.mqtt.options import Options
from bgpd.adapters.reconciler import Reconciler
from bgpd.adapters.store.memory import MemoryStore
from bgpd.adapters.store.timed import TimedStore
from bgpd.core.overlay.choose import How
from bgpd.core.overlay.ways import WORST
from bgpd.core.pipeline import Pipeline
from bgpd.daemon.events import Events
from bgpd.daemon.metrics import Metrics
from bgpd.flow.inbox import Inbox
from bgpd.flow.table import Table
from bgpd.model import event as ev
from bgpd.model.bfd import BfdState, BfdStatus
from bgpd.model.forwarding import KernelKey, KernelValue
from bgpd.model.notice import KINDS, Notice
from bgpd.model.pool import Block
from bgpd.sim.kernel import FakeKernel
from tests.core import world as w

pytestmark = pytest.mark.core

Found = dict[tuple[str, tuple[tuple[str, str], ...]], float]


async def _deliver(_event: ev.Event) -> None:
    """Nobody listens."""


async def _nothing() -> None:
    """Nobody waits."""


def metrics(pipeline: Pipeline, broker: Broker | None = None) -> Metrics:
    kernel: Reconciler[KernelKey, KernelValue] = Reconciler(
        Table("kernel"),
        FakeKernel(_deliver, lambda _keys: None),
        clock=lambda: 0.0,
        converged=_nothing,
        notice=lambda _notice: None,
    )
    return Metrics(
        pipeline,
        Inbox(),
        kernel=kernel,
        store=TimedStore(MemoryStore()),
        events=Events(),
        broker=lambda: broker,
        started=0.0,
    )


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


def _walked_ways(pipeline: Pipeline) -> dict[str, How]:
    found: dict[str, How] = {}
    for reached in pipeline.forwarder.reached.values():
        if reached.node and reached.how in WORST:
            found[reached.node] = max(found.get(reached.node, reached.how), reached.how, key=WORST.index)
    return found


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
        ev.NodeDead("node2"),
        ev.BlockChanged(Block(cidr=w.BLOCK3, node="node3", in_use=7)),
        ev.BlockChanged(Block(cidr=w.BLOCK2, node="node3", borrowed=((w.A("10.65.2.9"), "node2"),), in_use=1)),
        ev.PoolRemoved("default"),
        ev.PoolChanged(w.POOL),
        *w.owned(w.OWN_BLOCK, "node1"),
        ev.BlockRemoved(w.BLOCK3),
    ]
    for step in steps:
        w.feed(pipeline, [step])
        state = pipeline.state
        walked = Counter((path.peer, p.family) for p, paths in state.ineligible.items() for path, _ in paths)
        assert walked == +state.refused
        for peer in (w.TOR1, w.TOR2):
            entries = Counter(prefix.family for prefix, _ in state.adj_in.of_peer(peer))
            assert entries == Counter({f: n for f in entries if (n := state.adj_in.count(peer, f))})
        sent = Counter((peer, prefix.family) for (peer, prefix), _ in pipeline.tables.adj_rib_out.items())
        assert sent == pipeline.exporter.announced
        assert _walked_ways(pipeline) == pipeline.forwarder.ways.worst()
        used: Counter[str] = Counter()
        for cidr, block in state.facts.blocks.items():
            pool = state.facts.pool_of(cidr)
            used[pool.name if pool is not None else ""] += block.in_use
        assert used == {name: use.in_use for name, use in state.facts.usage.of.items()}


def test_notices_are_counted_by_name() -> None:
    """Each notice adds one to its name's counter."""
    one = metrics(watched())
    for name in ("peer.lost", "peer.lost", "store.lost"):
        one.noticed(Notice(name))
    found = scrape(one)
    assert (2.0, 1.0) == tuple(found["bgpd_notices_total", (("event", name),)] for name in ("peer.lost", "store.lost"))


def test_every_notice_has_a_counter_from_the_start() -> None:
    """A counter is there at 0 before the first event, so that the first one is an increase."""
    found = scrape(metrics(watched()))
    assert {name for (family, ((_, name),)) in ((k[0], k[1]) for k in found if k[0] == "bgpd_notices_total")} == {
        *KINDS
    }


def test_changes_of_paths_and_fallbacks_are_counted() -> None:
    """Each path.changed counts by what the path was and is; those to the tunnel as fallbacks."""
    one = metrics(watched())
    assert 0.0 == scrape(one)["bgpd_fallbacks_total", ()]
    for was, now in (("native", "fallback"), ("fallback", "native"), ("direct", "fallback")):
        one.noticed(Notice("path.changed", {"was": was, "now": now}))
    found = scrape(one)
    assert 2.0 == found["bgpd_fallbacks_total", ()]
    assert 1.0 == found["bgpd_path_changes_total", (("now", "native"), ("was", "fallback"))]


def test_bfd_speaker_and_store_failures_are_counted() -> None:
    """Each BFD session that went down by peer, each end of ExaBGP, each outage of the store."""
    one = metrics(watched())
    for notice in (Notice("bfd.down", {"peer": str(w.TOR1)}), Notice("speaker.lost"), Notice("store.lost")):
        one.noticed(notice)
    found = scrape(one)
    assert (1.0, 0.0) == (found["bgpd_bfd_downs_total", tor(1)], found["bgpd_bfd_downs_total", tor(2)])
    assert (1.0, 1.0) == (found["bgpd_speaker_restarts_total", ()], found["bgpd_store_outages_total", ()])


def test_what_differed_in_the_kernel_shows() -> None:
    """The last full comparison's result, the sum of all, and when it was."""
    one = metrics(watched())
    assert not [key for key in scrape(one) if key[0] == "bgpd_kernel_compare_time_seconds"]
    for differing in (3, 0):
        one.compared(differing, 0.1)
    found = scrape(one)
    assert (0.0, 3.0) == (
        found["bgpd_kernel_objects_differing", ()],
        found["bgpd_kernel_differences_total", ()],
    )
    assert found["bgpd_kernel_compare_time_seconds", ()] > 1e9


def test_use_of_each_pool_shows() -> None:
    """Size, addresses in use, blocks of all nodes and of this one, by pool."""
    pipeline = w.feed(watched(), [ev.BlockChanged(Block(cidr=w.BLOCK2, node="node2", in_use=5))])
    found = scrape(metrics(pipeline))
    labels = (("pool", "default"),)
    names = ("bgpd_ipam_pool_addresses", "bgpd_ipam_addresses_in_use", "bgpd_ipam_blocks", "bgpd_ipam_blocks_own")
    assert [65536.0, 5.0, 3.0, 1.0] == [found[name, labels] for name in names]


def test_time_of_deciding_shows() -> None:
    """Histograms of how long a batch took, and how long since its first event came."""
    one = metrics(watched())
    one.settled(0.002, 0.3)
    found = scrape(one)
    assert (0.002, 0.3) == (found["bgpd_settle_seconds_sum", ()], found["bgpd_decision_seconds_sum", ()])
    assert (0.0, 1.0) == tuple(found["bgpd_decision_seconds_bucket", (("le", le),)] for le in ("0.25", "0.5"))


def test_events_that_were_dropped_show() -> None:
    """By queue: the ring of this daemon, and what waits for a broker that is away."""
    broker = Broker(Options(host="192.0.2.1", port=1883, cluster="c", node="n"), lambda _notice: None)
    found = scrape(metrics(watched(), broker))
    assert (0.0, 0.0) == tuple(found["bgpd_events_dropped_total", (("queue", queue),)] for queue in ("ring", "mqtt"))
    assert (0.0, 0.0) == (found["bgpd_mqtt_up", ()], found["bgpd_mqtt_events", ()])
