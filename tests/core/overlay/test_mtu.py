"""MTUs of pools, of routes to their blocks, and of workloads: what the narrowest overlay that could come into use leaves."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from bgpd.core.pipeline import Pipeline
from bgpd.model import event as ev
from bgpd.model.felix import FelixConfiguration
from bgpd.model.forwarding import KernelRoute, RouteKey
from bgpd.model.pool import Fallback, Mode, Pool
from tests.core import world as w
from tests.core.overlay.test_wireguard import LOST, dual

pytestmark = pytest.mark.core


def with_pool(*more: ev.Event, **fields: object) -> Pipeline:
    return w.feed(w.running(), [ev.PoolChanged(replace(w.POOL, **fields)), *more])


def route_mtu(pipeline: Pipeline) -> int:
    route = pipeline.tables.kernel.get(RouteKey(w.BLOCK2))
    assert isinstance(route, KernelRoute)
    return route.mtu_bytes


@pytest.mark.parametrize(
    ("fallback", "expected"),
    [
        ((), 1500),
        ((Fallback.IPIP,), 1480),
        ((Fallback.VXLAN,), 1450),
        ((Fallback.IPIP, Fallback.VXLAN), 1450),
        ((Fallback.VXLAN, Fallback.WIREGUARD), 1440),
    ],
)
def test_narrowest_overlay_that_could_be_used_counts(fallback: tuple[Fallback, ...], expected: int) -> None:
    """Workloads get the uplinks' MTU less the largest overhead of the kinds that the pool may come to use, before any is in use."""
    pipeline = with_pool(fallback=fallback)
    assert (1500, expected) == (pipeline.state.mtu.uplink_bytes, pipeline.state.mtu.workload_bytes)


def test_mode_counts_as_fallback_does() -> None:
    """A pool's own mode counts, and WireGuard that is enabled for its family."""
    assert 1480 == with_pool(fallback=(), ipip_mode=Mode.CROSS_SUBNET).state.mtu.workload_bytes
    felix = ev.FelixConfigurationChanged(FelixConfiguration(name="default", wireguard_enabled=True))
    assert 1440 == with_pool(felix, fallback=()).state.mtu.workload_bytes


def test_smallest_pool_counts_for_workloads_and_its_own_for_routes() -> None:
    """Each pool's routes have its MTU, whichever way they go; workloads, which may talk to any, the smallest one."""
    other = Pool(name="other", cidr=w.P("10.70.0.0/16"), fallback=(Fallback.VXLAN,))
    pipeline = with_pool(ev.PoolChanged(other), fallback=(Fallback.IPIP,))
    assert 1450 == pipeline.state.mtu.workload_bytes
    assert 1480 == route_mtu(pipeline)


def test_switch_of_the_way_changes_no_route() -> None:
    """Native or in the tunnel, a route keeps its MTU: a switch is still one message for all of a node."""
    pipeline = with_pool(fallback=(Fallback.VXLAN,))
    before = route_mtu(pipeline)
    pipeline.tables.kernel.take()

    w.feed(pipeline, LOST)

    assert 1450 == before == route_mtu(pipeline)
    assert [] == [key for key in pipeline.tables.kernel.take() if isinstance(key, RouteKey)]


def test_pool_without_an_overlay_leaves_routes_alone() -> None:
    """Where no overlay can come into use routes have no MTU of their own, and what the configuration says goes before all."""
    assert 0 == route_mtu(with_pool(fallback=()))
    said = replace(w.OPTIONS, routes=replace(w.OPTIONS.routes, mtu_bytes=1400))
    assert 1400 == route_mtu(with_pool(replace(w.CONFIGURED, options=said), fallback=(Fallback.VXLAN,)))


def test_ipv6_pool_counts_outer_ipv6() -> None:
    """A pool of IPv6 in VXLAN between nodes with IPv6 loses 70 bytes; one of IPv4 on the same nodes 50."""
    six = Pool(name="six", cidr=w.P("fd65::/48"), block_size=122, vxlan_mode=Mode.ALWAYS)
    pipeline = with_pool(replace(w.CONFIGURED, node=dual(1)), ev.PoolChanged(six), fallback=(Fallback.VXLAN,))
    assert {"default": 1450, "six": 1430} == pipeline.state.mtu.pools


def test_pattern_says_what_an_uplink_is() -> None:
    """mtuIfacePattern picks the links that count; without it all do but tunnels and workloads."""
    small = ev.LinkChanged(name="docker0", index=30, up=True, mtu_bytes=1000)
    felix = ev.FelixConfigurationChanged(FelixConfiguration(name="default", mtu_interface_pattern="^eth"))
    assert 1000 == with_pool(small).state.mtu.uplink_bytes
    assert 1500 == with_pool(small, felix).state.mtu.uplink_bytes


def test_workload_with_a_larger_mtu_is_told_once() -> None:
    """A workload's link that takes more than the overlay leaves is told, with the limit; again only after a change."""
    pipeline = with_pool(fallback=(Fallback.VXLAN,))
    pipeline.take_notices()
    links = [ev.LinkChanged(name=f"cali{n}", index=40 + n, up=True, mtu_bytes=1450 + 50 * n) for n in (0, 1)]
    w.feed(pipeline, [*links, links[1]])

    told = [notice for notice in pipeline.take_notices() if notice.name == "mtu.exceeded"]
    assert [("cali1", 1500, 1450)] == [
        (one.fields["device"], one.fields["mtu_bytes"], one.fields["limit_bytes"]) for one in told
    ]
    w.feed(pipeline, [ev.PoolChanged(replace(w.POOL, fallback=(Fallback.WIREGUARD,)))])
    (again,) = (notice for notice in pipeline.take_notices() if notice.name == "mtu.exceeded")
    assert (2, 1440) == (again.fields["devices"], again.fields["limit_bytes"])
