"""Tunnels of kinds that this machine's own kernel may lack, with real traffic between two nodes; VRF and dummy devices."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from bgpd.adapters.netlink.routes import Kernel
from bgpd.model.event import Event
from bgpd.model.forwarding import (
    IPIP_DEVICE,
    DeviceKey,
    Group,
    GroupKey,
    IpipDevice,
    KernelKey,
    KernelRoute,
    KernelValue,
    Leg,
    Present,
    RouteKey,
    RouteKind,
)
from bgpd.model.prefix import Address, Prefix
from bgpd.sim.namespace import Namespace

pytestmark = pytest.mark.vm

A, P = Address.parse, Prefix.parse
NODES = (A("192.0.2.1"), A("192.0.2.2"))
BLOCKS = (P("10.65.1.0/26"), P("10.65.2.0/26"))
WORKLOADS = ("10.65.1.1", "10.65.2.1")
MTU_BYTES = 1480
DEVICE = DeviceKey(IPIP_DEVICE)
NODE = GroupKey("node")


async def _nowhere(_: Event) -> None:
    pass


def towards(me: int, *, mtu_bytes: int = MTU_BYTES) -> list[tuple[KernelKey, KernelValue | None]]:
    """Return what a node desires to send its peer's block through IPIP."""
    leg = Leg(IPIP_DEVICE, NODES[1 - me], onlink=True)
    return [
        (DEVICE, IpipDevice(local=NODES[me], mtu_bytes=mtu_bytes)),
        (leg, Present()),
        (NODE, Group((leg,))),
        (RouteKey(BLOCKS[1 - me]), KernelRoute(RouteKind.UNICAST, NODE)),
    ]


def apply(space: Namespace, changes: list[tuple[KernelKey, KernelValue | None]]) -> dict[KernelKey, str]:
    """Open a kernel target in *space*, apply, and close it, as a daemon does that starts and ends; nothing is removed."""

    async def once() -> dict[KernelKey, str]:
        kernel = Kernel(_nowhere, lambda _: None)
        await kernel.open()
        try:
            return await kernel.apply(changes)
        finally:
            await kernel.close()

    return space.run(once)


def read(space: Namespace) -> dict[KernelKey, KernelValue]:
    """Return what a daemon that starts now finds."""

    async def once() -> dict[KernelKey, KernelValue]:
        kernel = Kernel(_nowhere, lambda _: None)
        await kernel.open()
        try:
            return dict(kernel.actual)
        finally:
            await kernel.close()

    return space.run(once)


def ping(space: Namespace, source: str, target: str, *options: str) -> bool:
    command = ["ip", "netns", "exec", space.name, "ping", "-c", "2", "-W", "5", "-I", source, *options, target]
    return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0


def packets(space: Namespace, device: str) -> tuple[int, int]:
    """Packets that *device* has received and sent."""
    (link,) = space.ip_json("-s", "link", "show", "dev", device)
    return link["stats64"]["rx"]["packets"], link["stats64"]["tx"]["packets"]


@pytest.fixture
def nodes() -> Iterator[tuple[Namespace, Namespace]]:
    """Two nodes on a link, each with a workload's address on a dummy device; loose reverse path filter as on a node."""
    with Namespace(f"vma{os.getpid()}") as one, Namespace(f"vmb{os.getpid()}") as two:
        one.ip("link", "add", "up0", "type", "veth", "peer", "name", "up0", "netns", two.name)
        for number, space in enumerate((one, two)):
            space.batch(
                f"address add {NODES[number]}/24 dev up0",
                "link set up0 up",
                "link add work0 type dummy",
                f"address add {WORKLOADS[number]}/32 dev work0",
                "link set work0 up",
            )
            space.execute("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=2", "net.ipv4.ip_forward=1")
        yield one, two


def test_ipip_carries_traffic_of_all_sizes(nodes: tuple[Namespace, Namespace]) -> None:
    """Pings of any size that fits go through the tunnel, with DF; one byte more is refused with the tunnel's MTU."""
    one, two = nodes
    assert {} == apply(one, towards(0))
    assert {} == apply(two, towards(1))

    assert ping(one, *WORKLOADS)
    assert packets(one, IPIP_DEVICE) >= (2, 2)
    assert packets(two, IPIP_DEVICE) >= (2, 2)
    fits = MTU_BYTES - 28  # IPv4 and ICMP headers
    assert ping(one, *WORKLOADS, "-M", "do", "-s", str(fits))
    assert not ping(one, *WORKLOADS, "-M", "do", "-s", str(fits + 1))
    assert ping(two, *reversed(WORKLOADS), "-s", "4000")


def test_ipip_speaks_with_a_calico_node(nodes: tuple[Namespace, Namespace]) -> None:
    """A node set up as Calico does, tunl0 and a route by BIRD through it, and ours reach each other's workloads."""
    one, two = nodes
    assert {} == apply(one, towards(0))
    two.execute("modprobe", "ipip")
    two.batch(
        "link set tunl0 mtu 1480",
        "link set tunl0 up",
        "address add 10.65.2.2/32 dev tunl0",
        f"route add {BLOCKS[0]} via {NODES[0]} dev tunl0 onlink proto bird",
    )

    assert ping(one, *WORKLOADS)
    assert ping(two, *reversed(WORKLOADS))
    assert packets(two, "tunl0") >= (4, 4)


def test_ipip_is_received_while_the_way_back_is_native(nodes: tuple[Namespace, Namespace]) -> None:
    """One direction in the tunnel and the other native works: each end decides for itself."""
    one, two = nodes
    assert {} == apply(one, towards(0))
    assert {} == apply(two, towards(1)[:1])
    two.ip("route", "add", str(BLOCKS[0]), "via", str(NODES[0]))

    assert ping(one, *WORKLOADS)
    assert packets(two, IPIP_DEVICE)[0] >= 2
    assert 0 == packets(one, IPIP_DEVICE)[0]


def test_ipip_device_is_found_again_and_mended(nodes: tuple[Namespace, Namespace]) -> None:
    """A next daemon finds the device as it is; another MTU is set in place, and one of another kind or end is made anew."""
    space = nodes[0]
    wanted = towards(0)
    assert {} == apply(space, wanted)
    assert wanted[0][1] == read(space)[DEVICE]
    (before,) = space.ip_json("link", "show", "dev", IPIP_DEVICE)

    smaller = towards(0, mtu_bytes=1380)[:1]
    assert {} == apply(space, smaller)
    (after,) = space.ip_json("link", "show", "dev", IPIP_DEVICE)
    assert (before["ifindex"], 1380) == (after["ifindex"], after["mtu"])
    assert smaller[0][1] == read(space)[DEVICE]

    space.ip("link", "set", IPIP_DEVICE, "down")
    assert IpipDevice(local=NODES[0], mtu_bytes=0) == read(space)[DEVICE]
    assert {} == apply(space, wanted[:1])
    assert wanted[0][1] == read(space)[DEVICE]

    space.ip("link", "delete", IPIP_DEVICE)
    space.batch(f"link add {IPIP_DEVICE} type ipip local {NODES[0]} remote {NODES[1]}", f"link set {IPIP_DEVICE} up")
    assert wanted[0][1] != read(space)[DEVICE]
    assert {} == apply(space, wanted)
    assert wanted[0][1] == read(space)[DEVICE]

    space.ip("link", "delete", IPIP_DEVICE)
    space.batch(f"link add {IPIP_DEVICE} type dummy", f"link set {IPIP_DEVICE} up")
    assert {} == apply(space, wanted)
    assert wanted[0][1] == read(space)[DEVICE]
    assert {} == apply(space, [(DEVICE, None)])
    assert DEVICE not in read(space)


def test_routes_of_a_vrf_over_dummy_devices(nodes: tuple[Namespace, Namespace]) -> None:
    """Legs on dummy devices in a VRF serve routes in its table, which a next daemon finds; the main table stays as it is."""
    space = nodes[0]
    space.batch(
        "link add red type vrf table 100",
        "link set red up",
        "link add dummy1 type dummy",
        "link set dummy1 master red",
        "link set dummy1 up",
        "address add 198.51.100.1/24 dev dummy1",
    )
    leg = Leg("dummy1", A("198.51.100.2"))
    key = RouteKey(P("10.65.9.0/26"), 100)
    wanted: list[tuple[KernelKey, KernelValue | None]] = [
        (leg, Present()),
        (NODE, Group((leg,))),
        (key, KernelRoute(RouteKind.UNICAST, NODE)),
    ]
    before = space.ip("route", "show", "table", "main")

    assert {} == apply(space, wanted)

    assert "10.65.9.0/26" in space.ip("route", "show", "table", "100")
    assert "via 198.51.100.2 dev dummy1" in space.ip("route", "get", "vrf", "red", "10.65.9.1")
    assert before == space.ip("route", "show", "table", "main")
    found = read(space)
    assert leg in found
    assert RouteKind.UNICAST is found[key].kind  # type: ignore[union-attr]
