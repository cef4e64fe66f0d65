"""What a learned route costs us: decoding, adj-rib-in, decision with 1, 2 and 16 paths, forwarding; processor time, in the same run.

Run it by name: ``python -m pytest -s tests/bench/bench_decision.py``. BENCH_PREFIXES sets the number of prefixes (20,000). The peer
is ExaBGP's own decoder, for decoding, and the figure of one path, for the rest. Asserts only on what came out, never on time.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path as FilePath

import pytest
from msgspec.structs import replace

from bgpd.adapters.exabgp.codec import DecodeContext, decode
from bgpd.core.pipeline import Pipeline
from bgpd.model import event as ev
from bgpd.model.peer import Peer, SessionOpen
from bgpd.model.prefix import Address, Family, Prefix
from bgpd.model.route import AsSegment, Attributes, Origin, SegmentKind
from tests.core import world as w
from tests.fuzz.test_beside_exabgp import Stock
from tests.fuzz.updates import PEER, Meaning, encode

pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]

PREFIXES = int(os.environ.get("BENCH_PREFIXES", "20000"))
PACKED = 800
"""Prefixes of an UPDATE: what 4096 bytes hold."""
BUDGET = 512
"""Of a settling, as in the daemon."""
PATHS = (1, 2, 16)
CONTEXT = DecodeContext()
FIRST = Address.parse("100.64.0.0")


def cpu_s(work: Callable[[], object]) -> float:
    gc.collect()
    began = time.process_time()
    work()
    return time.process_time() - began


def load() -> str:
    return f"load {FilePath('/proc/loadavg').read_text().split()[0]}"


def blocks(length: int = 26) -> list[Prefix]:
    return [Prefix.of(Address(FIRST + (number << 32 - length)), length) for number in range(PREFIXES)]


def mixed() -> list[Prefix]:
    """Prefixes of many lengths, as of the Internet."""
    return [Prefix.of(Address(FIRST + number * 4096), 20 + number % 7) for number in range(PREFIXES)]


def attributes(peer: Address, number: int, local_pref: int | None = None) -> Attributes:
    path = AsSegment(SegmentKind.SEQUENCE, (65101, 64000 + number))
    return Attributes(next_hop=peer, origin=Origin.IGP, as_path=(path,), local_pref=local_pref)


def bodies(prefixes: list[Prefix], packed: int) -> list[bytes]:
    """UPDATEs of *packed* prefixes, each with a set of attributes of its own."""
    return [
        encode(Meaning(tuple(prefixes[at : at + packed]), (), attributes(PEER, at % 1000), 0), CONTEXT)
        for at in range(0, len(prefixes), packed)
    ]


def test_decoding_beside_exabgp() -> None:
    """The same UPDATEs are decoded by us and by ExaBGP's own decoder: of one length, of mixed lengths, and a set of attributes each."""
    stock = Stock(CONTEXT)
    rows = (
        ("packed, one length", blocks(), PACKED),
        ("packed, mixed", mixed(), PACKED),
        ("a message each", blocks(), 1),
    )
    print(f"\n{PREFIXES} prefixes, {load()}")
    print(f"{'UPDATEs':<22} {'us/prefix':>10} {'ExaBGP':>8} {'ratio':>6}")
    for name, prefixes, packed in rows:
        messages = bodies(prefixes, packed)
        found: list[int] = []

        def ours(messages: list[bytes] = messages, found: list[int] = found) -> None:
            for body in messages:
                (event,) = decode(body, PEER, CONTEXT)
                assert isinstance(event, ev.RoutesLearned)
                found.append(len(event.announced))

        own_s = cpu_s(ours)
        sample = messages[: max(1, len(messages) // 10)]
        peer_s = cpu_s(lambda sample=sample: [stock.decode(body) for body in sample]) * len(messages) / len(sample)
        assert sum(found) == PREFIXES
        print(f"{name:<22} {own_s / PREFIXES * 1e6:>10.2f} {peer_s / PREFIXES * 1e6:>8.2f} {peer_s / own_s:>6.0f}")


# ------------------------------------------------------------------ the core


def peer(number: int) -> Peer:
    return replace(w.peer(1), name=f"p{number}", address=Address(Address.parse("10.1.0.1") + number), asn=65101)


def opened(number: int) -> SessionOpen:
    return replace(w.opened(1), router_id=Address(number + 1))


def ready(peers: int) -> Pipeline:
    """A node with so many peers up, which have sent nothing yet."""
    configured = ev.Configured(node=w.node(1), peers=tuple(map(peer, range(peers))), options=w.OPTIONS)
    link = ev.ForeignRouteChanged(prefix=w.P("10.1.0.0/24"), metric=0, hops=(("eth1", None),))
    pipeline = w.feed(Pipeline(), [configured, *w.kernel(), link, *w.store(), ev.StoreSynced(), ev.SpeakerUp()])
    for number in range(peers):
        address = peer(number).address
        w.feed(pipeline, [ev.PeerUp(address, opened(number)), ev.EndOfRib(address, Family.IPV4)])
    return pipeline


def updates(prefixes: list[Prefix], number: int) -> Iterable[ev.RoutesLearned]:
    address = peer(number).address
    for at in range(0, len(prefixes), PACKED):
        yield ev.RoutesLearned(
            peer=address, announced=tuple(prefixes[at : at + PACKED]), attributes=attributes(address, at % 1000)
        )


@pytest.mark.parametrize("distinct", [False, True], ids=["equals", "one best"])
def test_a_route_through_the_core(distinct: bool) -> None:
    """Each prefix with 1, 2 and 16 paths, all equal or each worse than the one before, goes through adj-rib-in, decision and forwarding."""
    prefixes = blocks()
    print(f"\n{PREFIXES} prefixes, {'one best' if distinct else 'equals'}, {load()}; us a prefix")
    print(f"{'paths':>5} {'adj-rib-in':>11} {'decision':>9} {'a path':>7} {'forward':>8}")
    for paths in PATHS:
        pipeline = ready(paths)
        state = pipeline.state

        def learn(paths: int = paths, pipeline: Pipeline = pipeline) -> None:
            for number in range(paths):
                for event in updates(prefixes, number):
                    if distinct and event.attributes is not None:
                        longer = AsSegment(SegmentKind.SEQUENCE, (65101,) * (number + 2))
                        event = replace(event, attributes=replace(event.attributes, as_path=(longer,)))  # noqa: PLW2901
                    pipeline.handle(event, 1.0)

        def decide(pipeline: Pipeline = pipeline) -> None:
            while pipeline.state.stale.prefixes:
                pipeline._decider.settle(BUDGET)

        def forward(pipeline: Pipeline = pipeline) -> None:
            while pipeline.state.stale.learned:
                pipeline.forwarder.settle(BUDGET)

        spent = [cpu_s(work) / PREFIXES * 1e6 for work in (learn, decide, forward)]
        while pipeline.settle(BUDGET):
            pass
        assert len(state.selections) == PREFIXES
        assert len(state.selections[prefixes[0]].chosen) == (1 if distinct else paths)
        print(f"{paths:>5} {spent[0]:>11.2f} {spent[1]:>9.2f} {spent[1] / paths:>7.2f} {spent[2]:>8.2f}")
