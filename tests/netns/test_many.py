"""Reflection among twenty real BIRDs, and the node-to-node mesh: daemons on one LAN, with resources in their store."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bgpd.sim.namespace import Namespace
from tests.netns.test_resources import LanHost, plug

pytestmark = pytest.mark.netns

CLIENTS = int(os.environ.get("BGPD_TEST_CLIENTS", "20"))
NODES = int(os.environ.get("BGPD_TEST_MESH", "2"))
"""Each is three processes of some seconds of processor time to start: twenty take minutes on two cores."""
DEADLINE_S = 60.0 + 20.0 * NODES

NODE = """
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: node1}
spec: {bgp: {ipv4Address: 10.55.0.1/24, asNumber: 64512, routeReflectorClusterID: 244.0.0.1}}
"""
PEER = """
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {{name: client{number}}}
spec: {{node: node1, peerIP: 10.55.0.{number}, asNumber: 64512}}
"""
MESH = """
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec: {nodeToNodeMeshEnabled: true, asNumber: 64512}
"""
BIRD = """
router id 10.55.0.{number};
protocol device {{ }}
protocol direct {{ ipv4; interface "eth0"; }}
protocol static {{ ipv4; {routes} }}
protocol bgp reflector {{
  local 10.55.0.{number} as 64512; neighbor 10.55.0.1 as 64512; passive on;
  hold time 90; connect retry time 1; error wait time 1, 2;
  ipv4 {{ import all; export where source = RTS_STATIC; }};
}}
"""


class Lan:
    """Owns a bridge, and what was plugged into it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stack = ExitStack()
        self.bridge = Namespace(f"bgpd-m{os.getpid()}-lan")
        self.stack.callback(self.bridge.close)
        self.bridge.ip("link", "add", "br0", "type", "bridge")
        self.bridge.ip("link", "set", "br0", "up")

    def apply(self, text: str) -> None:
        command = [
            sys.executable,
            "-m",
            "bgpd.cli.main",
            "apply",
            "-f",
            "-",
            "--store",
            f"sqlite:///{self.folder}/store.db",
        ]
        subprocess.run(command, input=text, text=True, check=True, capture_output=True)

    def host(self, number: int) -> LanHost:
        made = LanHost(self.bridge, number, self.folder)
        self.stack.callback(made.close)
        made.start()
        return made

    def client(self, number: int) -> None:
        netns = Namespace(f"bgpd-m{os.getpid()}-c{number}")
        self.stack.callback(netns.close)
        plug(self.bridge, netns, f"10.55.0.{number}")
        file = self.folder / f"bird{number}.conf"
        file.write_text(BIRD.format(number=number, routes=f"route 10.9.{number}.0/24 blackhole;"))
        command = ["bird", "-f", "-c", str(file), "-s", str(self.folder / f"bird{number}.ctl")]
        process = subprocess.Popen(["ip", "netns", "exec", netns.name, *command], stderr=subprocess.DEVNULL)
        self.stack.callback(process.wait, 10)
        self.stack.callback(process.terminate)

    def birdc(self, number: int, *words: str) -> str:
        command = ["birdc", "-s", str(self.folder / f"bird{number}.ctl"), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout


@pytest.fixture
def lan(tmp_path: Path) -> Iterator[Lan]:
    made = Lan(tmp_path)
    with made.stack:
        yield made


def wait(holds: Callable[[], bool], what: str, host: LanHost) -> None:
    """Poll until *holds*; fail with the daemon's log."""
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, f"{what}\n{host.log.read_text()[-4000:]}"
        time.sleep(0.2)


def test_a_reflector_serves_twenty_clients(lan: Lan) -> None:
    """RFC 4456: each client gets every other's route with originator id, cluster list and its own next hop; a withdrawal reaches all."""
    numbers = range(101, 101 + CLIENTS)
    for number in numbers:
        lan.client(number)
    lan.apply(NODE + "".join(PEER.format(number=number) for number in numbers))
    host = lan.host(1)
    wait(lambda: len(host.established()) == CLIENTS, "established", host)

    def held(number: int) -> int:
        return lan.birdc(number, "show", "route", "protocol", "reflector").count("10.9.")

    wait(lambda: all(held(number) == CLIENTS - 1 for number in numbers), "reflected", host)
    shown = lan.birdc(101, "show", "route", "10.9.102.0/24", "all", "protocol", "reflector")
    assert "BGP.originator_id: 10.55.0.102" in shown
    assert "BGP.cluster_list: 244.0.0.1" in shown
    assert "BGP.next_hop: 10.55.0.102" in shown
    assert "BGP.local_pref: 100" in shown

    lan.birdc(102, "disable", "static1")
    wait(lambda: all(held(number) == CLIENTS - 2 for number in numbers if number != 102), "withdrawn", host)
    assert len(host.established()) == CLIENTS


def test_the_mesh_connects_every_node_with_every_other(lan: Lan) -> None:
    """With the mesh enabled each node has a session with each other and a native route to each other's block."""
    lan.apply(MESH)
    hosts = [lan.host(number) for number in range(1, NODES + 1)]
    for host in hosts:
        wait(lambda host=host: len(host.established()) == NODES - 1, "established", host)  # type: ignore[misc]
        wait(lambda host=host: len(host.prefixes("native")) == NODES - 1, "native", host)  # type: ignore[misc]
