"""The kernel's own WireGuard between two nodes: pings of all sizes, TCP by iperf3, both families, a new key; IPIP with iperf3."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from bgpd.adapters.netlink.options import KernelOptions
from bgpd.adapters.netlink.routes import Kernel
from bgpd.adapters.wireguard_keys import WireguardKeys
from bgpd.model.forwarding import (
    IPIP_DEVICE,
    WIREGUARD_DEVICE,
    DeviceKey,
    Group,
    GroupKey,
    KernelKey,
    KernelRoute,
    KernelValue,
    Leg,
    Present,
    RouteKey,
    RouteKind,
    WireguardDevice,
    WireguardPeer,
    WireguardPeerKey,
)
from bgpd.model.prefix import Address, Prefix
from bgpd.sim.namespace import Namespace
from tests.vm import test_overlay as overlay
from tests.vm.test_overlay import BLOCKS, NODES, WORKLOADS, _nowhere, packets, ping

pytestmark = pytest.mark.vm

nodes = overlay.nodes
A, P = Address.parse, Prefix.parse
MTU_BYTES = 1440
BLOCKS_V6 = (P("fd65::40/122"), P("fd65::80/122"))
WORKLOADS_V6 = ("fd65::41", "fd65::81")
NODE, NODE_V6 = GroupKey("node"), GroupKey("node of IPv6")
SECONDS = 2
"""Of a run of iperf3: the guest is emulated, and its rate says nothing."""


class End:
    """One node's kernel and key."""

    def __init__(self, space: Namespace, folder: Path, me: int) -> None:
        self.space, self.me = space, me
        self.options = KernelOptions(wireguard_keys=folder / str(me))
        self.keys = WireguardKeys(folder / str(me))
        self.public = self.keys.public()

    def apply(self, changes: list[tuple[KernelKey, KernelValue | None]]) -> dict[KernelKey, str]:
        """Open a kernel target, apply, and close it, as a daemon does that starts and ends."""

        async def once() -> dict[KernelKey, str]:
            kernel = Kernel(_nowhere, lambda _: None, self.options)
            await kernel.open()
            try:
                return await kernel.apply(changes)
            finally:
                await kernel.close()

        return self.space.run(once)

    def towards(self, other: End) -> list[tuple[KernelKey, KernelValue | None]]:
        far = 1 - self.me
        leg, leg_v6 = Leg(WIREGUARD_DEVICE, NODES[far], onlink=True), Leg(WIREGUARD_DEVICE)
        device = WireguardDevice(local=NODES[self.me], public_key=self.public, port=51820, mtu_bytes=MTU_BYTES)
        return [
            (DeviceKey(WIREGUARD_DEVICE), device),
            (WireguardPeerKey(other.public), peer_of(far)),
            (leg, Present()),
            (leg_v6, Present()),
            (NODE, Group((leg,))),
            (NODE_V6, Group((leg_v6,))),
            (RouteKey(BLOCKS[far]), KernelRoute(RouteKind.UNICAST, NODE, mtu_bytes=MTU_BYTES)),
            (RouteKey(BLOCKS_V6[far]), KernelRoute(RouteKind.UNICAST, NODE_V6, mtu_bytes=MTU_BYTES)),
        ]


def peer_of(node: int) -> WireguardPeer:
    allowed = tuple(sorted((BLOCKS[node], BLOCKS_V6[node], Prefix.of(NODES[node], 32))))
    return WireguardPeer(endpoint=NODES[node], port=51820, allowed=allowed)


@pytest.fixture
def ends(nodes: tuple[Namespace, Namespace], tmp_path: Path) -> tuple[End, End]:
    for number, space in enumerate(nodes):
        space.ip("address", "add", f"{WORKLOADS_V6[number]}/128", "dev", "work0", "nodad")
    one, two = (End(space, tmp_path, number) for number, space in enumerate(nodes))
    return one, two


def iperf(source: Namespace, sink: Namespace, address: str, bind: str) -> tuple[int, int]:
    """Send by TCP for SECONDS; returns the bytes that arrived, and the MSS that both agreed on."""
    with sink.start("iperf3", "-s", "-1", "-B", address, "--forceflush") as server:
        try:
            assert server.stdout is not None
            while "listening" not in server.stdout.readline():
                continue
            line = ["ip", "netns", "exec", source.name, "iperf3", "-c", address, "-B", bind, "-t", str(SECONDS), "-J"]
            done = subprocess.run(line, capture_output=True, text=True, check=True, timeout=120)
        finally:
            server.kill()
    told = json.loads(done.stdout)
    return told["end"]["sum_received"]["bytes"], told["start"]["tcp_mss_default"]


def test_wireguard_carries_traffic_of_all_sizes(ends: tuple[End, End]) -> None:
    """Pings of any size that fits go through with DF, of both families, one byte more is refused; TCP agrees on a segment that fits."""
    one, two = ends
    assert {} == one.apply(one.towards(two))
    assert {} == two.apply(two.towards(one))

    assert "wireguard" in one.space.ip("-d", "link", "show", WIREGUARD_DEVICE)
    assert ping(one.space, *WORKLOADS)
    assert ping(two.space, *reversed(WORKLOADS_V6))
    assert ping(one.space, *WORKLOADS, "-M", "do", "-s", str(MTU_BYTES - 28))
    assert not ping(one.space, *WORKLOADS, "-M", "do", "-s", str(MTU_BYTES - 27))
    assert ping(one.space, *WORKLOADS_V6, "-M", "do", "-s", str(MTU_BYTES - 48))
    assert ping(two.space, *reversed(WORKLOADS), "-s", "4000")
    arrived, mss = iperf(one.space, two.space, WORKLOADS[1], WORKLOADS[0])
    assert arrived > 100_000
    assert mss <= MTU_BYTES - 40
    assert min(packets(two.space, WIREGUARD_DEVICE)) >= 50


def test_new_key_in_place_goes_on_with_the_traffic(ends: tuple[End, End]) -> None:
    """A new key in the device, and the peer exchanged at the other end: traffic goes on in both directions, the device is the same."""
    one, two = ends
    assert {} == one.apply(one.towards(two))
    assert {} == two.apply(two.towards(one))
    assert ping(one.space, *WORKLOADS)
    (before,) = one.space.ip_json("link", "show", "dev", WIREGUARD_DEVICE)
    old, one.public = one.public, one.keys.rotate()

    assert {} == one.apply(one.towards(two)[:1])
    assert {} == two.apply([(WireguardPeerKey(one.public), peer_of(0)), (WireguardPeerKey(old), None)])

    assert ping(one.space, *WORKLOADS)
    assert ping(two.space, *reversed(WORKLOADS))
    (after,) = one.space.ip_json("link", "show", "dev", WIREGUARD_DEVICE)
    assert before["ifindex"] == after["ifindex"]
    assert [one.public] == two.space.execute("wg", "show", WIREGUARD_DEVICE, "peers").split()


def test_ipip_carries_tcp(nodes: tuple[Namespace, Namespace]) -> None:
    """TCP through IPIP agrees on a segment that fits, and arrives."""
    one, two = nodes
    assert {} == overlay.apply(one, overlay.towards(0))
    assert {} == overlay.apply(two, overlay.towards(1))
    arrived, mss = iperf(one, two, WORKLOADS[1], WORKLOADS[0])
    assert arrived > 100_000
    assert mss <= overlay.MTU_BYTES - 40
    assert min(packets(two, IPIP_DEVICE)) >= 50
