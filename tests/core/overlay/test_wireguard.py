"""WireGuard: which nodes can be reached by it, what is allowed from whom, when a pool's traffic takes it, and IPv6 in tunnels."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from bgpd.core.overlay.choose import How
from bgpd.core.overlay.vxlan import link_local
from bgpd.core.pipeline import Pipeline
from bgpd.model import event as ev
from bgpd.model.felix import FelixConfiguration
from bgpd.model.forwarding import (
    IPIP_DEVICE,
    VXLAN_DEVICE,
    VXLAN_V6_DEVICE,
    WIREGUARD_DEVICE,
    DeviceKey,
    Fdb,
    FdbKey,
    Leg,
    Neighbour,
    NeighbourKey,
    VxlanDevice,
    WireguardDevice,
    WireguardPeer,
    WireguardPeerKey,
)
from bgpd.model.node import Node
from bgpd.model.peer import Notification
from bgpd.model.pool import Fallback, Mode, Pool
from bgpd.model.prefix import Family
from tests.core import world as w

pytestmark = pytest.mark.core

KEYS = {number: f"key{number}" for number in (1, 2, 3)}
LOST = [ev.PeerDown(tor, "peer shut down", Notification(6, 2, sent=False)) for tor in (w.TOR1, w.TOR2)]
LEG = (Leg(WIREGUARD_DEVICE, w.A("10.0.0.2"), onlink=True),)
POOL_V6 = Pool(name="six", cidr=w.P("fd65::/48"), block_size=122)
BLOCK_V6 = w.P("fd65::40/122")


def link(name: str) -> ev.LinkChanged:
    return ev.LinkChanged(name=name, index=90 + len(name), up=True, mtu_bytes=1440)


def keyed(number: int, **more: object) -> Node:
    return replace(w.node(number), wireguard_key=KEYS[number], **more)


def dual(number: int) -> Node:
    """A node with addresses of both families."""
    return keyed(number, ipv6_address=w.A(f"fd00::{number}"), vtep_mac_v6=f"66:00:00:00:06:0{number}")


def running(*more: ev.Event, fallback: tuple[Fallback, ...] = (Fallback.WIREGUARD,)) -> Pipeline:
    nodes = [ev.NodeChanged(keyed(number)) for number in (2, 3)]
    pool = ev.PoolChanged(replace(w.POOL, fallback=fallback))
    return w.feed(w.running(), [pool, ev.WireguardKeyMade(KEYS[1]), *nodes, link(WIREGUARD_DEVICE), *more])


def way(pipeline: Pipeline, block: object = w.BLOCK2) -> tuple[How, tuple[Leg, ...], str]:
    reached = pipeline.forwarder.reached[block]  # type: ignore[index]
    return reached.how, reached.legs, reached.reason


def felix(name: str = "default", **fields: object) -> ev.FelixConfigurationChanged:
    return ev.FelixConfigurationChanged(replace(FelixConfiguration(name=name), **fields))


def test_key_is_wanted_once_a_pool_could_use_wireguard() -> None:
    """No device and no wish for a key without a pool that could use it; with one the device follows the key."""
    pipeline = w.running()
    assert not pipeline.state.wireguard_wanted
    w.feed(pipeline, [ev.PoolChanged(replace(w.POOL, fallback=(Fallback.VXLAN, Fallback.WIREGUARD)))])
    assert pipeline.state.wireguard_wanted
    assert pipeline.tables.kernel.get(DeviceKey(WIREGUARD_DEVICE)) is None

    w.feed(pipeline, [ev.WireguardKeyMade(KEYS[1])])

    wanted = WireguardDevice(local=w.A("10.0.0.1"), public_key=KEYS[1], port=51820, mtu_bytes=1440)
    assert wanted == pipeline.tables.kernel.get(DeviceKey(WIREGUARD_DEVICE))


def test_peer_stands_with_its_blocks_before_it_is_needed() -> None:
    """Each node with a key is a peer, allowed its blocks, what it borrows, and its own address; a block that moves goes along."""
    pipeline = running()
    kernel = pipeline.tables.kernel
    assert How.NATIVE == way(pipeline)[0]
    two, three = WireguardPeerKey(KEYS[2]), WireguardPeerKey(KEYS[3])
    own = w.P("10.0.0.2/32")
    assert WireguardPeer(endpoint=w.A("10.0.0.2"), port=51820, allowed=(own, w.BLOCK2)) == kernel.get(two)

    w.feed(pipeline, [*w.owned(w.BLOCK2, "node3")])

    assert kernel.get(two) is None
    now = kernel.get(three)
    assert isinstance(now, WireguardPeer)
    assert (w.P("10.0.0.3/32"), w.BLOCK2, w.BLOCK3) == now.allowed


def test_fallback_takes_wireguard() -> None:
    """A pool that names WireGuard falls back to it."""
    assert (How.FALLBACK, LEG) == way(running(*LOST))[:2]


def test_node_without_a_key_is_passed_over() -> None:
    """Without a key of the node, or with one that is another's too, the next kind carries the traffic, and the reason is told."""
    for key in (None, KEYS[1]):
        nodes = [ev.NodeChanged(replace(w.node(2), wireguard_key=key))]
        pipeline = running(*nodes, link(VXLAN_DEVICE), *LOST, fallback=(Fallback.WIREGUARD, Fallback.VXLAN))
        how, legs, reason = way(pipeline)
        assert (How.FALLBACK, VXLAN_DEVICE) == (how, legs[0].device)
        assert "WireGuard was passed over: the node has no WireGuard key of its own" in reason


def test_key_of_two_nodes_is_the_first_ones() -> None:
    """A key that two nodes name belongs to the first by name, whoever came first, and to the other once that is gone."""
    same = [ev.NodeChanged(replace(w.node(number), wireguard_key="same")) for number in (3, 2)]
    pipeline = running(*same, *LOST)
    peer = pipeline.tables.kernel.get(WireguardPeerKey("same"))
    assert isinstance(peer, WireguardPeer)
    assert w.A("10.0.0.2") == peer.endpoint
    assert (How.FALLBACK, How.UNREACHABLE) == (way(pipeline)[0], way(pipeline, w.BLOCK3)[0])

    w.feed(pipeline, [ev.NodeRemoved("node2")])

    peer = pipeline.tables.kernel.get(WireguardPeerKey("same"))
    assert isinstance(peer, WireguardPeer)
    assert w.A("10.0.0.3") == peer.endpoint
    assert How.FALLBACK == way(pipeline, w.BLOCK3)[0]


def test_new_key_of_a_node_replaces_its_peer() -> None:
    """A node's new key is one more peer and one fewer; no route changes."""
    pipeline = running(*LOST)
    pipeline.tables.kernel.take()

    w.feed(pipeline, [ev.NodeChanged(replace(w.node(2), wireguard_key="new"))])

    assert {WireguardPeerKey(KEYS[2]), WireguardPeerKey("new")} == set(pipeline.tables.kernel.take())
    assert LEG == way(pipeline)[1]


def test_enabled_wireguard_takes_the_pools_place() -> None:
    """wireguardEnabled sends all of a family to nodes with a key through it, whatever BGP and the pool say; others go as the pool says."""
    ipip = ev.PoolChanged(replace(w.POOL, fallback=(), ipip_mode=Mode.ALWAYS))
    pipeline = running(ipip, link(IPIP_DEVICE), felix(wireguard_enabled=True), ev.NodeChanged(w.node(3)), fallback=())
    w.feed(pipeline, [ev.Tick()], now=50.0)
    assert (How.TUNNEL, LEG) == way(pipeline)[:2]
    assert (How.TUNNEL, IPIP_DEVICE) == (way(pipeline, w.BLOCK3)[0], way(pipeline, w.BLOCK3)[1][0].device)

    w.feed(pipeline, [ev.LinkRemoved(WIREGUARD_DEVICE)], now=50.0)
    assert IPIP_DEVICE == way(pipeline)[1][0].device

    w.feed(pipeline, [link(WIREGUARD_DEVICE), ev.FelixConfigurationRemoved("default")], now=50.0)
    assert IPIP_DEVICE == way(pipeline)[1][0].device
    assert pipeline.tables.kernel.get(DeviceKey(WIREGUARD_DEVICE)) is not None  # for those who still send by it
    w.feed(pipeline, [ev.Tick()], now=100.0)
    assert pipeline.tables.kernel.get(DeviceKey(WIREGUARD_DEVICE)) is None


def test_settings_of_felix_configuration_hold() -> None:
    """Port, MTU and keepalive are those of FelixConfiguration, a node's own over the default ones; another's port is where it listens."""
    said = felix(wireguard_port=51900, wireguard_mtu_bytes=1300, wireguard_keepalive_s=25)
    pipeline = running(said, felix("node.node1", wireguard_port=51901), felix("node.node3", wireguard_port=51903))
    kernel = pipeline.tables.kernel

    device = kernel.get(DeviceKey(WIREGUARD_DEVICE))
    assert isinstance(device, WireguardDevice)
    assert (51901, 1300) == (device.port, device.mtu_bytes)
    peers = [kernel.get(WireguardPeerKey(KEYS[number])) for number in (2, 3)]
    assert [(51900, 25), (51903, 25)] == [
        (one.port, one.keepalive_s) for one in peers if isinstance(one, WireguardPeer)
    ]


def test_mtu_that_is_said_never_exceeds_the_uplinks() -> None:
    """An MTU of FelixConfiguration beyond what the uplinks leave is not taken; 0 is worked out."""
    for said, expected in ((9000, 1440), (0, 1440), (1400, 1400)):
        device = running(felix(wireguard_mtu_bytes=said)).tables.kernel.get(DeviceKey(WIREGUARD_DEVICE))
        assert isinstance(device, WireguardDevice)
        assert expected == device.mtu_bytes


def six(*numbers: int, me: Node | None = None) -> list[ev.Event]:
    """An IPv6 pool with a block of node 2, and routes to the nodes' IPv6 addresses."""
    route = ev.ForeignRouteChanged(prefix=w.P("fd00::/64"), metric=1024, hops=(("eth1", None),))
    nodes = [ev.NodeChanged(dual(number)) for number in numbers]
    return [replace(w.CONFIGURED, node=me or dual(1)), route, *nodes, *w.owned(BLOCK_V6, "node2")]


def test_ipv6_block_goes_by_the_ipv6_device_where_both_nodes_have_ipv6() -> None:
    """As in Calico: a device of its own, with its own MAC and 70 bytes of overhead; the neighbour is a link-local address of that MAC."""
    pool = ev.PoolChanged(replace(POOL_V6, vxlan_mode=Mode.ALWAYS))
    pipeline = running(*six(2), pool)
    kernel, far, gateway = pipeline.tables.kernel, w.A("fd00::2"), link_local("66:00:00:00:06:02")

    assert (How.TUNNEL, (Leg(VXLAN_V6_DEVICE, gateway),)) == way(pipeline, BLOCK_V6)[:2]
    device = VxlanDevice(vni=4096, port=4789, local=w.A("fd00::1"), mac="66:00:00:00:06:01", mtu_bytes=1430)
    assert device == kernel.get(DeviceKey(VXLAN_V6_DEVICE))
    assert Neighbour("66:00:00:00:06:02") == kernel.get(NeighbourKey(VXLAN_V6_DEVICE, gateway))
    assert Fdb(far) == kernel.get(FdbKey(VXLAN_V6_DEVICE, "66:00:00:00:06:02"))


def test_ipv6_block_goes_by_the_ipv4_device_where_a_node_has_no_ipv6() -> None:
    """To a node without an IPv6 address IPv6 goes in outer IPv4; its neighbour is a link-local address of the VTEP's MAC."""
    pool = ev.PoolChanged(replace(POOL_V6, vxlan_mode=Mode.ALWAYS))
    pipeline = running(*six(), pool)
    gateway = link_local("66:00:00:00:00:02")

    assert w.A("fe80::6400:ff:fe00:2") == gateway
    assert (How.TUNNEL, (Leg(VXLAN_DEVICE, gateway),)) == way(pipeline, BLOCK_V6)[:2]
    assert Neighbour("66:00:00:00:00:02") == pipeline.tables.kernel.get(NeighbourKey(VXLAN_DEVICE, gateway))


def test_ipv4_block_goes_by_the_ipv6_device_between_nodes_of_ipv6_only() -> None:
    """Nodes that have no IPv4 address carry IPv4 blocks in outer IPv6, by an IPv6 gateway."""
    me, other = (replace(dual(number), ipv4_address=None, ipv4_subnet=None, vtep_mac=None) for number in (1, 2))
    pool = ev.PoolChanged(replace(w.POOL, vxlan_mode=Mode.ALWAYS))
    pipeline = running(*six(me=me), ev.NodeChanged(other), pool)

    assert (How.TUNNEL, (Leg(VXLAN_V6_DEVICE, link_local("66:00:00:00:06:02")),)) == way(pipeline)[:2]


def test_wireguard_carries_ipv6_over_either_family() -> None:
    """IPv6 blocks fall back to WireGuard, by the device alone: to nodes with and without IPv6 addresses, over IPv4 where both have it."""
    pool = ev.PoolChanged(replace(POOL_V6, fallback=(Fallback.WIREGUARD,)))
    both = running(*six(2), pool, *LOST)
    assert (How.FALLBACK, (Leg(WIREGUARD_DEVICE),)) == way(both, BLOCK_V6)[:2]
    peer = both.tables.kernel.get(WireguardPeerKey(KEYS[2]))
    assert isinstance(peer, WireguardPeer)
    assert w.A("10.0.0.2") == peer.endpoint
    assert {w.P("fd00::2/128"), BLOCK_V6, w.BLOCK2} <= set(peer.allowed)

    assert (How.FALLBACK, (Leg(WIREGUARD_DEVICE),)) == way(running(*six(), pool, *LOST), BLOCK_V6)[:2]


def test_ipip_carries_no_ipv6() -> None:
    """IPIP is passed over for an IPv6 block, with the reason."""
    pool = ev.PoolChanged(replace(POOL_V6, fallback=(Fallback.IPIP, Fallback.VXLAN)))
    how, legs, reason = way(running(*six(2), pool, link(VXLAN_V6_DEVICE), *LOST), BLOCK_V6)
    assert (How.FALLBACK, VXLAN_V6_DEVICE, Family.IPV6) == (how, legs[0].device, BLOCK_V6.family)
    assert reason.endswith("IPIP was passed over: IPIP carries no IPv6")
