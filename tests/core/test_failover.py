"""Losses before decisions: the groups of remote nodes leave what was lost at once, and what is decided then is the same."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from bgpd.core.overlay.choose import How
from bgpd.core.pipeline import Pipeline
from bgpd.model import event as ev
from bgpd.model.bfd import BfdState, BfdStatus
from bgpd.model.forwarding import VXLAN_DEVICE, Group, GroupKey, KernelKey, KernelRoute, KernelValue, Leg, RouteKey
from bgpd.model.peer import Notification
from bgpd.model.pool import Block, Fallback, Pool
from bgpd.model.prefix import Prefix
from tests.core import world as w

pytestmark = pytest.mark.core

NATIVE = (Leg("eth1", w.TOR1), Leg("eth2", w.TOR2))
FAILED = BfdStatus(diagnostic="control detection time expired", failed=True)
UP = BfdStatus(state=BfdState.UP)
CEASE = Notification(6, 2, sent=False, text="maintenance")
OTHERS = w.P("10.66.0.0/16")
"""A pool that allows no fallback."""
BLOCK2B = w.P("10.66.2.0/26")
AGGREGATE = w.P("10.64.0.0/10")


def tunnel(number: int) -> tuple[Leg, ...]:
    return (Leg(VXLAN_DEVICE, w.A(f"10.0.0.{number}"), onlink=True),)


def watched(*more: ev.Event) -> Pipeline:
    """A pipeline that has seen the whole cluster, with BFD to both routers."""
    return w.feed(Pipeline(), [w.WATCHED, *w.whole()[1:], *more])


def legs(pipeline: Pipeline, block: Prefix) -> tuple[Leg, ...]:
    route = pipeline.tables.kernel.get(RouteKey(block))
    assert isinstance(route, KernelRoute)
    return pipeline.forwarder.fib.legs(route.group) if route.group is not None else ()


def lose(pipeline: Pipeline, *events: ev.Event, now: float = 5.0) -> list[KernelKey]:
    """Handle *events*, and settle until the groups have left what was lost; returns what that changed in the kernel."""
    pipeline.tables.kernel.take()
    for event in events:
        pipeline.handle(event, now)
    assert pipeline.settle(1)
    return pipeline.tables.kernel.take()


def both_failed() -> list[ev.Event]:
    return [ev.BfdChanged(w.TOR1, FAILED), ev.BfdChanged(w.TOR2, FAILED)]


def test_groups_leave_failed_routers_before_any_prefix_is_decided() -> None:
    """After BFD failed with both routers each remote node costs one changed key, its group, while every prefix still waits."""
    pipeline = watched()

    changed = lose(pipeline, *both_failed())

    assert [GroupKey(f"node node{n} {block}") for n, block in ((2, w.BLOCK2), (3, w.BLOCK3))] == changed[:2]
    assert set(NATIVE) == set(changed[2:]), "the legs that nobody uses any more"
    assert (tunnel(2), tunnel(3)) == (legs(pipeline, w.BLOCK2), legs(pipeline, w.BLOCK3))
    assert 2 == len(pipeline.state.stale.prefixes)


def test_decisions_after_the_haste_send_nothing_more() -> None:
    """What is decided once the groups have moved changes no key of the kernel, and says how the blocks are reached."""
    pipeline = watched()
    lose(pipeline, *both_failed())

    while pipeline.settle(1):
        pass

    assert [] == pipeline.tables.kernel.take()
    assert How.FALLBACK is pipeline.forwarder.reached[w.BLOCK2].how
    assert "BFD is down" in pipeline.forwarder.reached[w.BLOCK2].reason


@pytest.mark.parametrize(
    "event",
    [
        ev.BfdChanged(w.TOR1, FAILED),
        ev.PeerDown(w.TOR1, "peer shut down", CEASE),
        ev.LinkChanged(name="eth1", index=1, up=False, mtu_bytes=1500),
    ],
    ids=["BFD", "session", "carrier"],
)
def test_losing_one_of_two_uplinks_changes_the_group_only(event: ev.Event) -> None:
    """One lost uplink is an ECMP change: the group keeps the other leg, no route changes, and no block falls back."""
    pipeline = watched()

    changed = lose(pipeline, event)
    assert NATIVE[1:] == legs(pipeline, w.BLOCK2)
    assert [] == [key for key in changed if isinstance(key, RouteKey)]

    w.feed(pipeline, [])
    while pipeline.settle(100):
        pass
    assert NATIVE[1:] == legs(pipeline, w.BLOCK2)
    assert How.NATIVE is pipeline.forwarder.reached[w.BLOCK2].how


def test_blocks_that_part_wait_for_the_decision() -> None:
    """A group of blocks of which one may not fall back is not moved in haste: its traffic would go where it must not."""
    strict = Pool(name="strict", cidr=OTHERS, fallback=())
    more: list[ev.Event] = [ev.PoolChanged(strict), *w.owned(BLOCK2B, "node2")]
    more += [w.learned(tor, BLOCK2B) for tor in (w.TOR1, w.TOR2)]
    pipeline = watched(*more)
    routes = [pipeline.tables.kernel.get(RouteKey(block)) for block in (BLOCK2B, w.BLOCK2)]
    first, second = (route.group for route in routes if isinstance(route, KernelRoute))
    assert first == second

    changed = lose(pipeline, *both_failed())
    assert [GroupKey(f"node node3 {w.BLOCK3}")] == changed

    while pipeline.settle(1):
        pass
    assert tunnel(2) == legs(pipeline, w.BLOCK2)
    assert How.UNREACHABLE is pipeline.forwarder.reached[BLOCK2B].how


def test_a_path_that_had_lost_is_taken_by_the_decision() -> None:
    """Where a worse path is left the haste leaves the group alone, and the decision takes that path instead of the tunnel."""
    worse = w.learned(w.TOR2, w.BLOCK2)
    assert worse.attributes is not None
    worse = replace(worse, attributes=replace(worse.attributes, as_path=worse.attributes.as_path * 2))
    pipeline = watched(worse)
    assert NATIVE[:1] == legs(pipeline, w.BLOCK2)

    lose(pipeline, ev.BfdChanged(w.TOR1, FAILED))
    while pipeline.settle(1):
        pass

    assert NATIVE[1:] == legs(pipeline, w.BLOCK2)
    assert How.NATIVE is pipeline.forwarder.reached[w.BLOCK2].how


def test_haste_that_was_in_vain_is_taken_back() -> None:
    """A failure that is over before the decisions were taken leaves the groups as they were."""
    pipeline = watched()
    lose(pipeline, *both_failed())

    w.feed(pipeline, [ev.BfdChanged(w.TOR1, UP), ev.BfdChanged(w.TOR2, UP)], now=5.0)

    assert NATIVE == legs(pipeline, w.BLOCK2)
    assert How.NATIVE is pipeline.forwarder.reached[w.BLOCK2].how


def losses() -> st.SearchStrategy[list[ev.Event]]:
    """What may be lost at one moment."""
    some: list[ev.Event] = [
        *both_failed(),
        *(ev.PeerDown(tor, "peer shut down", CEASE) for tor in (w.TOR1, w.TOR2)),
        *(ev.LinkChanged(name=name, index=1, up=False, mtu_bytes=1500) for name in ("eth1", "eth2")),
        ev.NodeDead("node2"),
        ev.ForeignRouteRemoved(prefix=w.P("10.0.0.0/24"), metric=0),
        ev.ForeignRouteRemoved(prefix=w.P("10.1.11.0/31"), metric=0),
    ]
    return st.lists(st.sampled_from(some), min_size=1, unique=True)


def before() -> st.SearchStrategy[list[ev.Event]]:
    """What else may be the case before."""
    strict = replace(w.POOL, fallback=())
    either = replace(w.POOL, fallback=(Fallback.IPIP, Fallback.VXLAN))
    some: list[ev.Event] = [
        ev.PoolChanged(strict),
        ev.PoolChanged(either),
        w.learned(w.TOR2, AGGREGATE),
        w.learned(w.TOR1, w.P("10.65.0.0/16")),
        ev.RoutesLearned(peer=w.TOR1, withdrawn=(w.BLOCK2,)),
        ev.NodeDead("node3"),
        *w.owned(BLOCK2B, "node2"),
        w.learned(w.TOR1, BLOCK2B),
        ev.BlockChanged(replace(lent(), borrowed=((w.A("10.65.2.9"), "node3"),))),
    ]
    return st.lists(st.sampled_from(some), unique_by=id)


def lent() -> Block:
    return Block(cidr=w.BLOCK2, node="node2")


@settings(max_examples=200, deadline=None)
@given(before(), losses())
def test_haste_never_differs_from_the_decision(facts: list[ev.Event], lost: list[ev.Event]) -> None:
    """Whatever is lost, a group that was moved in haste has the same legs once all is decided, unless no route goes to it any more."""
    pipeline = watched(*facts)
    for event in lost:
        pipeline.handle(event, 5.0)
    pipeline._decider.refresh()
    earlier: dict[KernelKey, KernelValue] = pipeline.tables.kernel.snapshot()
    pipeline.forwarder.hasten()
    hasty = {key: value for key, value in pipeline.tables.kernel.items() if isinstance(value, Group)}
    moved = {key: value for key, value in hasty.items() if earlier[key] != value}

    while pipeline.settle(3):
        pass

    now = pipeline.tables.kernel
    assert moved == {key: now.get(key) for key in moved if key in now} | {
        k: v for k, v in moved.items() if k not in now
    }
