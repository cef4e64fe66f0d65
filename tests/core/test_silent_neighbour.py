"""A router that does not answer on its link any more: its way is unusable, long before a hold time is over."""

from __future__ import annotations

import pytest

from bgpd.adapters.netlink.encode import NeighbourEntry
from bgpd.adapters.netlink.silent import Silent
from bgpd.core.overlay.choose import How
from bgpd.core.pipeline import Pipeline
from bgpd.model import event as ev
from bgpd.model.forwarding import KernelRoute, Leg, RouteKey
from tests.core import world as w

pytestmark = pytest.mark.core

SECOND = (Leg("eth2", w.TOR2),)
MUTE = (ev.NeighbourSilent("eth1", w.TOR1, True), ev.NeighbourSilent("eth2", w.TOR2, True))


def legs(pipeline: Pipeline) -> tuple[Leg, ...]:
    route = pipeline.tables.kernel.get(RouteKey(w.BLOCK2))
    assert isinstance(route, KernelRoute)
    return pipeline.forwarder.fib.legs(route.group) if route.group is not None else ()


def test_a_silent_router_is_an_ecmp_change() -> None:
    """One of two routers that does not answer leaves the group, and comes back with its answer; its session stands all the while."""
    pipeline = w.running()
    both = legs(pipeline)

    w.feed(pipeline, [MUTE[0]])
    assert SECOND == legs(pipeline)

    w.feed(pipeline, [ev.NeighbourSilent("eth1", w.TOR1, False)])
    assert both == legs(pipeline)


def test_silent_routers_all_are_no_way_for_a_tunnel_either() -> None:
    """With every router silent nothing is usable, natively or outside of a tunnel: the block is unreachable, and the reason is told."""
    pipeline = w.feed(w.running(), MUTE)

    assert How.UNREACHABLE is pipeline.forwarder.reached[w.BLOCK2].how
    assert "10.1.11.0 does not answer on eth1" in pipeline.forwarder.reached[w.BLOCK2].reason


def entry(address: str, *, failed: bool = False, asking: bool = False) -> NeighbourEntry:
    return NeighbourEntry(3, False, w.A(address), "", False, failed, asking)


def test_silence_is_told_once_and_asking_again_says_nothing() -> None:
    """FAILED is told when it begins; INCOMPLETE keeps the verdict; an answer, or the entry's end, takes it back once."""
    silent = Silent()
    told = [ev.NeighbourSilent("eth1", w.A("10.1.11.0"), True)]
    assert told == silent.heard(entry("10.1.11.0", failed=True), "eth1", gone=False)
    assert [] == silent.heard(entry("10.1.11.0", asking=True), "eth1", gone=False)
    assert [] == silent.heard(entry("10.1.11.0", failed=True), "eth1", gone=False)

    back = [ev.NeighbourSilent("eth1", w.A("10.1.11.0"), False)]
    assert back == silent.heard(entry("10.1.11.0"), "eth1", gone=False)
    assert [] == silent.heard(entry("10.1.11.0", failed=True), "eth1", gone=True)


def test_a_whole_reading_replaces_what_is_known() -> None:
    """Entries that are gone are no longer silent, and those that have failed meanwhile are."""
    silent = Silent()
    silent.heard(entry("10.1.11.0", failed=True), "eth1", gone=False)

    told = silent.read([entry("10.1.11.9", failed=True)], {3: "eth1"})

    expected = [ev.NeighbourSilent("eth1", w.A("10.1.11.0"), False), ev.NeighbourSilent("eth1", w.A("10.1.11.9"), True)]
    assert expected == told
