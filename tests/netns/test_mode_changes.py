"""Live changes of how a pool's traffic goes, under a stream of 1,000 packets per second; a node set up as Calico does it."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bgpd.adapters.store.records import vtep_mac
from bgpd.core.overlay.turn import YIELD_S
from bgpd.model.forwarding import VXLAN_DEVICE, WIREGUARD_DEVICE
from tests.netns.wireguard_world import DEADLINE_S, Node, Pair, ping, wait

pytestmark = pytest.mark.netns

POOL = "default-ipv4-ippool"
ROUNDS = 3
FELIX = {"kind": "FelixConfiguration", "apiVersion": "projectcalico.org/v3", "metadata": {"name": "default"}}


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path, kind="None", subnet=True)
    try:
        made.start()
        yield made
    finally:
        made.close()


def set_pool(node: Node, **fields: str) -> None:
    """Change the pool of the store."""
    found = json.loads(node.store("get", "ippool", POOL, "-o", "json"))
    resource = found[0] if isinstance(found, list) else found
    resource["spec"].update(fields)
    node.store("replace", "-f", "-", given=json.dumps(resource))


@contextmanager
def stream(node: Node, target: str) -> Iterator[Callable[[], str]]:
    """Send a packet each millisecond, as far as the machine can; the result says what was answered, once it is over."""
    command = ["ip", "netns", "exec", node.workload.name, "ping", "-q", "-i", "0.001", "-c", "1000000", target]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    told: list[str] = []
    try:
        yield lambda: told[0]
    finally:
        process.send_signal(2)
        told.append(process.communicate(timeout=DEADLINE_S)[0])


def lost(told: str) -> int:
    counted = re.search(r"(\d+) packets transmitted, (\d+) received", told)
    assert counted is not None, told
    return int(counted[1]) - int(counted[2])


def device_of(node: Node, target: str) -> str:
    """Return the device by which the kernel would send to *target*."""
    (route,) = node.netns.ip_json("route", "get", target)
    return str(route["dev"])


def heard(pair: Pair, device: str) -> float:
    """Wait until both nodes have *device*; returns after how many seconds."""
    began = time.monotonic()
    wait(lambda: all(node.netns.attempt("link", "show", "dev", device) for node in pair.nodes), *pair.nodes)
    return time.monotonic() - began


def settled(pair: Pair, device: str) -> None:
    """Wait until both nodes send through *device*, and traffic has been seen to do so."""
    one, two = pair.nodes
    here, there = pair.addresses
    wait(lambda: (device_of(one, there), device_of(two, here)) == (device, device), *pair.nodes)
    before = one.counters(device)[0]
    wait(lambda: one.counters(device)[0] > before + 50, *pair.nodes)


def changes(pair: Pair) -> float:
    """Go through all modes and back; returns the longest time that a change took to be heard by both nodes."""
    one = pair.nodes[0]
    settled(pair, "up0")
    set_pool(one, vxlanMode="Always")
    took = [heard(pair, VXLAN_DEVICE)]
    settled(pair, VXLAN_DEVICE)
    set_pool(one, vxlanMode="CrossSubnet")
    settled(pair, "up0")
    set_pool(one, vxlanMode="Always")
    settled(pair, VXLAN_DEVICE)
    set_pool(one, vxlanMode="Never")
    settled(pair, "up0")
    return max(took)


def test_mode_of_a_pool_changes_without_a_lost_packet(pair: Pair) -> None:
    """Never, VXLAN Always, CrossSubnet, Always and Never, live: each moves the traffic, and no packet of either direction is lost.

    A round in which a node heard of a change later than others wait for it (a machine at its limit) shows nothing, and is repeated.
    """
    for _ in range(ROUNDS):
        with stream(pair.nodes[0], pair.addresses[1]) as told:
            took_s = changes(pair)
        if took_s < YIELD_S / 2:
            break
        wait(
            lambda: not any(node.netns.attempt("link", "show", "dev", VXLAN_DEVICE) for node in pair.nodes), *pair.nodes
        )
    assert lost(told()) <= 1, told()  # the last one may be on its way when the stream ends


def test_wireguard_is_enabled_and_disabled_live(pair: Pair) -> None:
    """wireguardEnabled moves the traffic of a running pair into WireGuard, and its end back to the native path."""
    one = pair.nodes[0]
    with stream(one, pair.addresses[1]):
        one.store("apply", "-f", "-", given=json.dumps(FELIX | {"spec": {"wireguardEnabled": True}}))
        settled(pair, WIREGUARD_DEVICE)
        one.store("apply", "-f", "-", given=json.dumps(FELIX | {"spec": {"wireguardEnabled": False}}))
        settled(pair, "up0")


def test_pools_of_different_modes_stand_side_by_side(pair: Pair) -> None:
    """Blocks of a pool in mode Always go through the tunnel while those of one in mode Never, of the same nodes, go natively."""
    one, two = pair.nodes
    second = {
        "kind": "IPPool",
        "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": "second"},
        "spec": {"cidr": "10.66.0.0/16", "vxlanMode": "Always"},
    }
    one.store("apply", "-f", "-", given=json.dumps(second))

    def block(node: Node) -> str:
        return node.block("10.66.")

    wait(lambda: block(one) and block(two), *pair.nodes)
    there = block(two).partition("/")[0]
    wait(lambda: device_of(one, there) == VXLAN_DEVICE, *pair.nodes)
    assert "up0" == device_of(one, pair.addresses[1])
    assert ping(one, pair.addresses[1])


def test_vxlan_speaks_with_a_calico_node(pair: Pair) -> None:
    """A node whose devices and entries are as Felix makes them (calico.md 3.2) and ours reach each other's workloads by VXLAN."""
    one, two = pair.nodes
    set_pool(one, vxlanMode="Always")
    settled_pair = (one.block(), two.block())
    wait(lambda: device_of(one, pair.addresses[1]) == VXLAN_DEVICE, *pair.nodes)
    two.kill()
    two.netns.ip("link", "delete", VXLAN_DEVICE)
    gateway = settled_pair[0].partition("/")[
        0
    ]  # Felix goes by a tunnel address of the other node; any that the neighbour entry names
    two.netns.batch(
        f"link add vxlan.calico address {vtep_mac(two.name)} type vxlan id 4096 local 192.0.2.2 dev up0 dstport 4789 nolearning",
        "link set vxlan.calico mtu 1450",
        "link set vxlan.calico up",
        f"address add {settled_pair[1].partition('/')[0]}/32 dev vxlan.calico",
        f"neighbour replace {gateway} lladdr {vtep_mac(one.name)} dev vxlan.calico nud permanent",
        f"route replace {settled_pair[0]} via {gateway} dev vxlan.calico onlink proto 80",
    )
    two.netns.execute(
        "bridge", "fdb", "replace", vtep_mac(one.name), "dev", "vxlan.calico", "dst", "192.0.2.1", "self", "permanent"
    )

    assert ping(one, pair.addresses[1])
    assert ping(two, pair.addresses[0], "-M", "do", "-s", str(1450 - 28))
    received, sent = two.counters("vxlan.calico")
    assert received >= 4
    assert sent >= 4
