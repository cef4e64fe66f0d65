"""IPv6 workloads through the overlay over either family, and what fits through it when a node's way is switched under traffic."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from bgpd.model.forwarding import VXLAN_DEVICE, VXLAN_V6_DEVICE, WIREGUARD_DEVICE
from bgpd.model.prefix import Address, Prefix
from tests.netns.wireguard_world import DEADLINE_S, TCP_BYTES, Node, Pair, ping, transfer, wait

pytestmark = pytest.mark.netns

POOL_V6 = {
    "kind": "IPPool",
    "apiVersion": "projectcalico.org/v3",
    "metadata": {"name": "six"},
    "spec": {"cidr": "fd65::/48", "vxlanMode": "Always"},
}
DUAL = 'address_ipv6 = "fd00::{number}/64"'


@contextmanager
def running(folder: Path, *, kind: str, more: str = "") -> Iterator[Pair]:
    made = Pair(folder, kind=kind, subnet=True, more=more)
    try:
        made.start()
        yield made
    finally:
        made.close()


def with_ipv6(pair: Pair, **spec: str) -> tuple[str, str]:
    """Give both nodes a block of an IPv6 pool, and their workloads an address of it."""
    pair.nodes[0].store("apply", "-f", "-", given=json.dumps(POOL_V6 | {"spec": {**POOL_V6["spec"], **spec}}))  # type: ignore[dict-item]
    addresses = []
    for node in pair.nodes:
        wait(lambda node=node: node.block("fd65:"), *pair.nodes)  # type: ignore[misc]
        addresses.append(str(Address(Prefix.parse(node.block("fd65:")).network + 5)))
        node.attach(addresses[-1])
    return addresses[0], addresses[1]


def carries(pair: Pair, device: str, mtu_bytes: int, addresses: tuple[str, str]) -> None:
    """Wait until IPv6 goes through *device* in both directions, and check what fits."""
    (one, two), (here, there) = pair.nodes, addresses

    def goes(node: Node, target: str) -> bool:
        return any(route["dev"] == device for route in node.netns.ip_json("-6", "route", "get", target))

    wait(lambda: goes(one, there) and goes(two, here), *pair.nodes)
    wait(lambda: ping(one, there, "-c", "1"), *pair.nodes)
    assert ping(one, there, "-M", "do", "-s", str(mtu_bytes - 48))
    assert ping(two, here, "-s", "3000", "-c", "6")  # the first ones teach both ends the path MTU
    assert TCP_BYTES == transfer(one, two, there)
    assert min(*one.counters(device), *two.counters(device)) >= 6


def test_ipv6_blocks_go_in_outer_ipv6_between_nodes_that_have_it(tmp_path: Path) -> None:
    """VXLAN of IPv6 in IPv6 by the device of its own, as Calico's vxlan-v6, with IPv4 blocks in IPv4 beside it."""
    with running(tmp_path, kind="VXLAN", more=DUAL) as pair:
        carries(pair, VXLAN_V6_DEVICE, 1430, with_ipv6(pair))
        assert ping(pair.nodes[0], pair.addresses[1])


def test_ipv6_blocks_go_in_outer_ipv4_between_nodes_that_have_nothing_else(tmp_path: Path) -> None:
    """VXLAN of IPv6 in IPv4, by the one device, to a link-local address of the other's MAC."""
    with running(tmp_path, kind="VXLAN") as pair:
        carries(pair, VXLAN_DEVICE, 1450, with_ipv6(pair))


def test_ipv6_blocks_fall_back_to_wireguard(tmp_path: Path) -> None:
    """IPv6 through WireGuard, over IPv4 alone."""
    with running(tmp_path, kind="WireGuard") as pair:
        carries(pair, WIREGUARD_DEVICE, 1440, with_ipv6(pair, vxlanMode="Never"))


def refused_with(node: Node, target: str, mtu_bytes: int) -> bool:
    """Whether a packet of one byte more than *mtu_bytes* with DF is answered by that MTU."""
    size = str(mtu_bytes - 27)
    line = ["ip", "netns", "exec", node.workload.name, "ping", "-c", "1", "-W", "2", "-M", "do", "-s", size, target]
    told = subprocess.run(line, capture_output=True, text=True, check=False, timeout=DEADLINE_S)
    return f"mtu = {mtu_bytes}" in told.stdout or f"mtu={mtu_bytes}" in told.stdout + told.stderr


def test_switch_of_the_way_leaves_mtu_and_connections_alone(tmp_path: Path) -> None:
    """Native, in the tunnel, native: the same packets fit with DF in both directions, one byte more is answered alike, and TCP goes on."""
    with running(tmp_path, kind="VXLAN") as pair, ThreadPoolExecutor() as beside:
        (one, two), (here, there) = pair.nodes, pair.addresses
        assert "1450" == (one.folder / "state" / "mtu").read_text().strip()
        status = one.ask("status")
        assert (1450, 1500) == (status["mtu_workload_bytes"], status["mtu_uplink_bytes"])
        wait(lambda: '"mtu.exceeded"' in one.log.read_text(), one)  # the workload's link has 1500
        for way, device in (("native", "up0"), ("vxlan", VXLAN_DEVICE), ("native", "up0")):
            stream = beside.submit(transfer, one, two, there)
            for node, other in ((one, two), (two, one)):
                assert node.ask("overlay", "force", other.name, way) is not None

            def through(node: Node, target: str, device: str = device) -> bool:
                return bool(node.netns.ip_json("route", "get", target)[0]["dev"] == device)

            wait(lambda: through(one, there) and through(two, here), *pair.nodes)
            assert TCP_BYTES == stream.result(DEADLINE_S)
            for node, target in ((one, there), (two, here)):
                assert ping(node, target, "-M", "do", "-s", str(1450 - 28))
                assert refused_with(node, target, 1450)
