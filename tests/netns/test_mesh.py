"""The node-to-node mesh: daemons on one LAN, with resources in their store."""

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
from tests.netns.test_resources import LanHost

pytestmark = pytest.mark.netns

NODES = int(os.environ.get("BGPD_TEST_MESH", "2"))
"""Each is three processes of some seconds of processor time to start: twenty take minutes on two cores."""
DEADLINE_S = 60.0 + 20.0 * NODES

MESH = """
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec: {nodeToNodeMeshEnabled: true, asNumber: 64512}
"""

PAIRS = """
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec: {nodeToNodeMeshEnabled: false, asNumber: 64512}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: pairs, annotations: {bgpd.io/bfd: "500ms,4", bgpd.io/hold-time: 90s}}
spec: {nodeSelector: all(), peerSelector: all()}
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


def test_the_mesh_connects_every_node_with_every_other(lan: Lan) -> None:
    """With the mesh enabled each node has a session with each other and a native route to each other's block."""
    lan.apply(MESH)
    hosts = [lan.host(number) for number in range(1, NODES + 1)]
    for host in hosts:
        wait(lambda host=host: len(host.established()) == NODES - 1, "established", host)  # type: ignore[misc]
        wait(lambda host=host: len(host.prefixes("native")) == NODES - 1, "native", host)  # type: ignore[misc]


def test_nodes_speak_bfd_with_each_other(lan: Lan) -> None:
    """Nodes that a BGPPeer pairs speak BFD where it says so: both notice a silent cut long before the hold time, and its end."""
    lan.apply(PAIRS)
    hosts = [lan.host(number) for number in (1, 2)]

    def all_of(state: str) -> bool:
        return all([one["bfd"]["state"] for one in host.peers().values() if one["bfd"]] == [state] for host in hosts)

    wait(lambda: all_of("up"), "up", hosts[0])
    wait(lambda: all(host.prefixes("native") for host in hosts), "native", hosts[0])
    lan.bridge.ip("link", "set", "p2", "nomaster")  # the carrier stays
    wait(lambda: all_of("down"), "down", hosts[0])
    assert [host.established() for host in hosts] != [set(), set()]  # found by BFD, not by the hold time
    wait(lambda: not any(host.prefixes("native") for host in hosts), "not native", hosts[0])
    lan.bridge.ip("link", "set", "p2", "master", "br0")
    wait(lambda: all_of("up"), "up again", hosts[0])
    wait(lambda: all(host.prefixes("native") for host in hosts), "native again", hosts[0])
