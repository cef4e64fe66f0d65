"""Ways that an operator has forced: they come before the table, and give way to it where they cannot be used."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from bgpd.core.explain import Explainer
from bgpd.core.overlay.choose import How
from bgpd.core.pipeline import Pipeline
from bgpd.model import event as ev
from bgpd.model.forwarding import VXLAN_DEVICE, KernelRoute, Leg, RouteKey
from bgpd.model.overlay import Path
from bgpd.model.peer import Notification
from bgpd.model.pool import Mode
from bgpd.model.prefix import Prefix
from tests.core import world as w

pytestmark = pytest.mark.core

NATIVE = (Leg("eth1", w.TOR1), Leg("eth2", w.TOR2))
TUNNEL = (Leg(VXLAN_DEVICE, w.A("10.0.0.2"), onlink=True),)
LOST: list[ev.Event] = [ev.PeerDown(tor, "gone", Notification(6, 2, sent=False, text="")) for tor in (w.TOR1, w.TOR2)]


def legs(pipeline: Pipeline, block: Prefix) -> tuple[Leg, ...]:
    route = pipeline.tables.kernel.get(RouteKey(block))
    assert isinstance(route, KernelRoute)
    return pipeline.forwarder.fib.legs(route.group) if route.group is not None else ()


def answer(pipeline: Pipeline) -> str:
    return Explainer(pipeline.state, pipeline.forwarder, pipeline.exporter).prefix(w.BLOCK2).answer


def test_a_forced_tunnel_carries_what_would_go_natively() -> None:
    """vxlan forced: the node's blocks go through the tunnel while BGP has paths, other nodes' do not, and explain says why."""
    pipeline = w.feed(w.running(), [ev.PathForced("node2", Path.VXLAN)])

    assert TUNNEL == legs(pipeline, w.BLOCK2)
    assert NATIVE == legs(pipeline, w.BLOCK3)
    assert "forced to vxlan by an operator" in answer(pipeline)


def test_auto_gives_the_way_back_to_the_table() -> None:
    """auto ends it at once, without a quiet time: the native path was never lost."""
    pipeline = w.feed(w.running(), [ev.PathForced("node2", Path.VXLAN), ev.PathForced("node2", Path.AUTO)])

    assert NATIVE == legs(pipeline, w.BLOCK2)
    assert How.NATIVE is pipeline.forwarder.reached[w.BLOCK2].how


def test_forced_native_waits_for_no_quiet_time_and_for_no_pool() -> None:
    """native forced: a path that has just come back is taken at once, and a pool's mode does not tunnel."""
    always = ev.PoolChanged(replace(w.POOL, vxlan_mode=Mode.ALWAYS))
    pipeline = w.feed(w.running(), [*LOST, *w.bgp()], now=5.0)
    assert TUNNEL == legs(pipeline, w.BLOCK2)

    w.feed(pipeline, [ev.PathForced("node2", Path.NATIVE)], now=5.0)
    assert NATIVE == legs(pipeline, w.BLOCK2)

    w.feed(pipeline, [always], now=5.0)
    assert NATIVE == legs(pipeline, w.BLOCK2)
    assert TUNNEL[0].device == legs(pipeline, w.BLOCK3)[0].device


@pytest.mark.parametrize("path", [Path.NATIVE, Path.IPIP, Path.WIREGUARD])
def test_what_cannot_be_used_forces_nothing(path: Path) -> None:
    """A forced way that does not work gives way to the table, and explain says that it was forced in vain and why."""
    pipeline = w.feed(w.running(), [*LOST, ev.PathForced("node2", path)])

    assert TUNNEL == legs(pipeline, w.BLOCK2)
    assert f"forced to {path} in vain" in answer(pipeline)


def test_a_lost_router_moves_no_forced_way() -> None:
    """With a forced tunnel the loss of both routers changes nothing for that node."""
    pipeline = w.feed(w.running(), [ev.PathForced("node2", Path.VXLAN)])
    before = pipeline.tables.kernel.get(RouteKey(w.BLOCK2)), legs(pipeline, w.BLOCK2)

    w.feed(pipeline, LOST)

    assert before == (pipeline.tables.kernel.get(RouteKey(w.BLOCK2)), legs(pipeline, w.BLOCK2))
    assert "forced to vxlan by an operator" == pipeline.forwarder.reached[w.BLOCK2].reason


def test_candidates_say_what_is_in_the_way_of_each() -> None:
    """Every way is listed: native while BGP has one, kinds that the pool does not allow, and kinds without a device."""
    pipeline = w.running()
    found = {one.path: one for one in pipeline.forwarder.candidates("node2")}
    assert (NATIVE, "") == (found["native"].legs, found["native"].reason)
    assert (TUNNEL, "") == (found["vxlan"].legs, found["vxlan"].reason)
    assert ((), "this node has no IPIP device") == (found["ipip"].legs, found["ipip"].reason)

    w.feed(pipeline, LOST)

    (native,) = (one for one in pipeline.forwarder.candidates("node2") if one.path == "native")
    assert ((), "no BGP peer announces it") == (native.legs, native.reason)
