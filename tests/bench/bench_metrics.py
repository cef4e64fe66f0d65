"""The cost of a scrape with 500 peers and 100,000 routes, beside Prometheus' own library writing as many series in the same run."""

from __future__ import annotations

import os
import time

import pytest
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from bgpd.core.pipeline import Pipeline
from bgpd.model import event as ev
from bgpd.model.peer import Peer, SessionOpen
from bgpd.model.prefix import Address, Family, Prefix
from bgpd.model.route import AsSegment, Attributes, Origin, SegmentKind
from tests.core import world as w
from tests.daemon.test_metrics import metrics

pytestmark = pytest.mark.bench

PEERS = 500
ROUTES = int(os.environ.get("BENCH_METRICS_ROUTES", "100000"))


def peer(number: int) -> Peer:
    address = Address(int(w.A("10.1.0.0")) + number + 1)
    return Peer(name=f"p{number}", address=address, asn=65100, local_address=w.A("10.1.255.1"), local_asn=65001)


def loaded() -> Pipeline:
    """A pipeline with PEERS sessions that share ROUTES routes."""
    peers = tuple(peer(number) for number in range(PEERS))
    connected = ev.ForeignRouteChanged(prefix=w.P("10.1.0.0/16"), metric=0, hops=(("eth1", None),))
    events: list[ev.Event] = [
        ev.Configured(node=w.node(1), peers=peers, options=w.OPTIONS),
        *w.kernel(),
        connected,
        *w.store(),
        ev.StoreSynced(),
        ev.SpeakerUp(),
    ]
    share = ROUTES // PEERS
    for number, one in enumerate(peers):
        attributes = Attributes(
            next_hop=one.address, origin=Origin.IGP, as_path=(AsSegment(SegmentKind.SEQUENCE, (65100,)),)
        )
        routes = tuple(Prefix.of(Address((20 << 24) + (number * share + i) * 64), 26) for i in range(share))
        opened = SessionOpen(asn=65100, router_id=one.address, hold_time_s=90, families=(Family.IPV4,))
        learned = ev.RoutesLearned(peer=one.address, announced=routes, attributes=attributes)
        events += [ev.PeerUp(one.address, opened), learned, ev.EndOfRib(one.address, Family.IPV4)]
    pipeline = Pipeline()
    for event in events:
        pipeline.handle(event, 0.0)
    while pipeline.settle(10_000):
        pass
    return pipeline


def best(times: list[float]) -> float:
    return 1000 * min(times)


def test_cost_of_a_scrape() -> None:
    """A scrape costs per peer, not per route, and less than the library takes for as many series."""
    one = metrics(loaded())
    ours, theirs = [], []
    series = sum(not line.startswith(b"#") for line in one.render().splitlines())
    registry = CollectorRegistry()
    gauge = Gauge("bgpd_thing", "A thing.", ["peer"], registry=registry)
    for number in range(series):
        gauge.labels(peer=str(number)).set(number)
    for _ in range(5):
        began = time.perf_counter()
        one.render()
        middle = time.perf_counter()
        generate_latest(registry)
        ours.append(middle - began)
        theirs.append(time.perf_counter() - middle)
    print(
        f"\nscrape of {series} series, {PEERS} peers, {ROUTES} routes: {best(ours):.1f} ms; "
        f"prometheus_client for as many series: {best(theirs):.1f} ms; ratio {best(ours) / best(theirs):.2f}"
    )
    assert best(ours) < best(theirs)
