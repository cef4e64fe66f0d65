"""Kinds of tunnels: which one a pool's traffic takes, and why a preferred one was passed over."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from bgpd.core.overlay.choose import How
from bgpd.core.overlay.kinds import uplink_mtu_bytes
from bgpd.core.overlay.turn import LINGER_S, YIELD_S
from bgpd.core.pipeline import Pipeline
from bgpd.model import event as ev
from bgpd.model.forwarding import (
    IPIP_DEVICE,
    TUNNEL_DEVICES,
    VXLAN_DEVICE,
    DeviceKey,
    GroupKey,
    IpipDevice,
    KernelRoute,
    Leg,
    RouteKey,
    RouteKind,
    VxlanDevice,
)
from bgpd.model.peer import Notification
from bgpd.model.pool import Fallback, Mode, parse_preference, preference_text
from tests.core import world as w

pytestmark = pytest.mark.core

VXLAN = (Leg(VXLAN_DEVICE, w.A("10.0.0.2"), onlink=True),)
IPIP = (Leg(IPIP_DEVICE, w.A("10.0.0.2"), onlink=True),)
LOST = [ev.PeerDown(tor, "peer shut down", Notification(6, 2, sent=False)) for tor in (w.TOR1, w.TOR2)]


def link(name: str, *, up: bool = True) -> ev.LinkChanged:
    return ev.LinkChanged(name=name, index=90 + len(name), up=up, mtu_bytes=1480)


def running(*more: ev.Event, ipip: Mode = Mode.NEVER, fallback: tuple[Fallback, ...] | None = None) -> Pipeline:
    pool = ev.PoolChanged(replace(w.POOL, ipip_mode=ipip, fallback=fallback))
    return w.feed(w.running(), [pool, *more])


MODES = ("vxlan_mode", "ipip_mode")
GROUP = GroupKey("node node2 10.65.2.0/26")


def over(pipeline: Pipeline, at: float = 50.0) -> Pipeline:
    """Let the times of a live change be over."""
    return w.feed(pipeline, [ev.Tick()], now=at)


def way(pipeline: Pipeline) -> tuple[How, tuple[Leg, ...], str]:
    reached = pipeline.forwarder.reached[w.BLOCK2]
    return reached.how, reached.legs, reached.reason


def devices(pipeline: Pipeline) -> dict[str, object]:
    kernel = pipeline.tables.kernel
    keys = (DeviceKey(name) for name in (VXLAN_DEVICE, IPIP_DEVICE))
    return {key.name: kernel.get(key) for key in keys if key in kernel}


def test_ipip_mode_always_sends_through_ipip() -> None:
    """ipipMode Always goes through the IPIP device, with room for its header, though BGP has a path."""
    pipeline = over(running(ipip=Mode.ALWAYS, fallback=()))

    assert (How.TUNNEL, IPIP) == way(pipeline)[:2]
    assert {IPIP_DEVICE: IpipDevice(local=w.A("10.0.0.1"), mtu_bytes=1480)} == devices(pipeline)


def test_ipip_mode_cross_subnet_spares_the_own_subnet() -> None:
    """ipipMode CrossSubnet takes the tunnel to another subnet, and BGP's path within ours."""
    far = over(running(ipip=Mode.CROSS_SUBNET))
    subnet = w.P("10.0.0.0/24")
    me, other = (replace(w.node(number), ipv4_subnet=subnet) for number in (1, 2))
    near = running(replace(w.CONFIGURED, node=me), ev.NodeChanged(me), ev.NodeChanged(other), ipip=Mode.CROSS_SUBNET)

    assert (How.TUNNEL, IPIP) == way(far)[:2]
    assert How.NATIVE == way(near)[0]


def test_preferred_kind_is_taken() -> None:
    """Of several kinds that can be used the first one named carries the fallback; the devices of all are up to receive."""
    pipeline = running(link(VXLAN_DEVICE), link(IPIP_DEVICE), *LOST, fallback=(Fallback.IPIP, Fallback.VXLAN))

    assert (How.FALLBACK, IPIP) == way(pipeline)[:2]
    assert "passed over" not in way(pipeline)[2]
    assert {VXLAN_DEVICE, IPIP_DEVICE} == set(devices(pipeline))


def test_kind_that_the_kernel_lacks_is_passed_over() -> None:
    """Where the kernel makes no IPIP device VXLAN carries the traffic, with the reason; when the device comes, IPIP does."""
    pipeline = running(link(VXLAN_DEVICE), *LOST, fallback=(Fallback.IPIP, Fallback.VXLAN))
    how, legs, reason = way(pipeline)
    assert (How.FALLBACK, VXLAN) == (how, legs)
    assert reason.endswith("IPIP was passed over: the kernel has no device ipip.bgpd")

    w.feed(pipeline, [link(IPIP_DEVICE)])

    assert (How.FALLBACK, IPIP) == way(pipeline)[:2]


def test_kind_that_the_node_lacks_is_passed_over() -> None:
    """A node without a VTEP is reached by IPIP where both are allowed, and the reason is told."""
    bare = ev.NodeChanged(replace(w.node(2), vtep_mac=None))
    pipeline = running(bare, *LOST, fallback=(Fallback.VXLAN, Fallback.IPIP))

    how, legs, reason = way(pipeline)
    assert (How.FALLBACK, IPIP) == (how, legs)
    assert reason.endswith("VXLAN was passed over: the node has no VXLAN device")


def test_no_kind_left_is_unreachable_with_every_reason() -> None:
    """Where no kind can be used the destination is unreachable, and each kind's reason is told."""
    bare = ev.NodeChanged(replace(w.node(2), vtep_mac=None))
    gone = ev.ForeignRouteRemoved(prefix=w.P("10.0.0.0/24"), metric=0)
    pipeline = running(bare, gone, *LOST, fallback=(Fallback.VXLAN, Fallback.IPIP))

    how, _, reason = way(pipeline)
    assert How.UNREACHABLE == how
    assert "VXLAN was passed over: the node has no VXLAN device" in reason
    assert "IPIP was passed over: the node's address 10.0.0.2 is not reachable" in reason


def test_no_tunnel_goes_through_a_tunnel() -> None:
    """A route to the node's address that leads through a tunnel of ours carries no tunnel (no loop)."""
    for device in TUNNEL_DEVICES:
        through = [
            link(device),
            ev.ForeignRouteRemoved(prefix=w.P("10.0.0.0/24"), metric=0),
            ev.ForeignRouteChanged(prefix=w.P("10.0.0.2/32"), metric=0, hops=((device, None),)),
        ]
        pipeline = running(*through, *LOST, fallback=(Fallback.IPIP,))

        assert How.UNREACHABLE == way(pipeline)[0]
        assert "it leads through a tunnel of ours" in way(pipeline)[2]


def test_live_change_of_the_mode_moves_the_group_only() -> None:
    """A pool that goes from VXLAN to IPIP keeps its group, which gets the other leg; its routes get the other MTU."""
    vxlan, ipip = (ev.PoolChanged(replace(w.POOL, fallback=(), **{mode: Mode.ALWAYS})) for mode in MODES)
    pipeline = w.feed(w.running(), [vxlan, link(VXLAN_DEVICE)])
    assert VXLAN == way(pipeline)[1]
    pipeline.tables.kernel.take()

    w.feed(pipeline, [ipip])
    assert VXLAN == way(pipeline)[1]  # the other side may have no device yet
    assert {VXLAN_DEVICE, IPIP_DEVICE} == set(devices(pipeline))
    over(pipeline, YIELD_S)

    assert {VXLAN_DEVICE, IPIP_DEVICE} == set(devices(pipeline))
    assert IPIP == way(pipeline)[1]
    before, after = (
        KernelRoute(RouteKind.UNICAST, group, mtu_bytes=mtu) for group, mtu in ((GROUP, 1450), (GROUP, 1480))
    )
    assert before != after == pipeline.tables.kernel.get(RouteKey(w.BLOCK2))
    assert GROUP in pipeline.tables.kernel.take()
    over(pipeline, LINGER_S)
    assert {IPIP_DEVICE} == set(devices(pipeline))


def test_new_kind_gives_way_to_a_native_path_that_can_be_used() -> None:
    """A pool that goes from Never to Always keeps to the native path until the others have their devices; without one it does not wait."""
    change = ev.PoolChanged(replace(w.POOL, fallback=(), ipip_mode=Mode.ALWAYS))
    none = ev.PoolChanged(replace(w.POOL, fallback=()))
    pipeline = w.feed(w.running(), [none, change])
    assert How.NATIVE == way(pipeline)[0]
    w.feed(pipeline, LOST)
    assert (How.TUNNEL, IPIP) == way(pipeline)[:2]

    pipeline = over(w.feed(w.running(), [none, change]), YIELD_S)
    assert (How.TUNNEL, IPIP) == way(pipeline)[:2]


def test_device_stays_for_those_who_still_send_by_it() -> None:
    """A pool that goes back to Never takes the native path at once, and the device stays until the others have done so."""
    pipeline = over(running(ipip=Mode.ALWAYS, fallback=()))
    w.feed(pipeline, [ev.PoolChanged(replace(w.POOL, fallback=()))], now=100.0)
    assert How.NATIVE == way(pipeline)[0]
    assert {IPIP_DEVICE} == set(devices(pipeline))

    over(pipeline, 100.0 + LINGER_S)
    assert {} == devices(pipeline)


def test_restart_gives_way_to_nothing() -> None:
    """What is found at start is used at once: there is no one to wait for, and no route changes."""
    events = [
        ev.PoolChanged(replace(w.POOL, ipip_mode=Mode.ALWAYS)) if event == ev.PoolChanged(w.POOL) else event
        for event in w.whole()
    ]
    assert (How.TUNNEL, IPIP) == way(w.feed(Pipeline(), events))[:2]


def test_devices_leave_room_for_their_own_header() -> None:
    """Each device's MTU is the smallest uplink's less its own overhead; tunnels and workloads are no uplinks."""
    links = [
        ev.LinkChanged(name=name, index=1, up=False, mtu_bytes=mtu)
        for name, mtu in (
            ("lo", 65536),
            ("eth1", 9000),
            ("eth2", 1600),
            ("cali1", 1000),
            ("tunl0", 1480),
            (IPIP_DEVICE, 9),
        )
    ]
    assert 1600 == uplink_mtu_bytes(links)
    assert 1500 == uplink_mtu_bytes([])

    pipeline = running(*links[1:3], fallback=(Fallback.IPIP, Fallback.VXLAN))
    found = devices(pipeline)
    assert isinstance(found[VXLAN_DEVICE], VxlanDevice)
    assert isinstance(found[IPIP_DEVICE], IpipDevice)
    assert (1550, 1580) == (found[VXLAN_DEVICE].mtu_bytes, found[IPIP_DEVICE].mtu_bytes)


@pytest.mark.parametrize("text", ["None", "VXLAN", "IPIP", "IPIP, VXLAN"])
def test_preference_is_read_as_it_is_written(text: str) -> None:
    """What the annotation says is written again as it was."""
    assert text == preference_text(parse_preference(text))


@pytest.mark.parametrize("text", ["", "none", "VXLAN, None", "VXLAN,VXLAN", "VXLAN IPIP", "IPIP,"])
def test_preference_that_makes_no_sense_is_refused(text: str) -> None:
    """What is no list of different kinds is refused."""
    with pytest.raises(ValueError, match=r"is none of|twice"):
        parse_preference(text)
