"""Resources drive real daemons: three nodes of one store on a LAN, and a router (BIRD) beside them (issue 5, items 1 to 3)."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bgpd.adapters.store import keys
from bgpd.adapters.store.base import Delete
from bgpd.adapters.store.open import open_store
from bgpd.sim.namespace import Namespace
from tests.netns.test_daemon import DEADLINE_S, Host, wait

pytestmark = pytest.mark.netns

ROUTER = "10.55.0.100"
TOGETHER_S = 2 * DEADLINE_S
"""Deadline for what several daemons do together: two cores run three of them, their speakers and a router."""

CONFIG = """
[node]
name = "{name}"
address = "{address}/24"
asn = 64512

[store]
url = "sqlite:///{folder}/store.db"

[pool]
cidr = "10.65.0.0/16"

[speaker]
runtime_dir = "{folder}/{label}/speaker"

[api]
socket = "{folder}/{label}/bgpd.sock"

[log]
format = "json"
"""

BIRD = """
log "{folder}/bird.log" all;
router id 10.55.0.100;
protocol device {{ }}
protocol static {{ ipv4; {routes} }}
protocol bgp node1 {{
  local 10.55.0.100 as 65100; neighbor 10.55.0.1 as 64512; passive on;
  hold time 9; connect retry time 1; error wait time 1, 2;
  ipv4 {{ import all; export where source = RTS_STATIC; }};
}}
"""

CONFIGURATION = """
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {{name: default}}
spec: {spec}
"""

PEER = """
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {{name: tor}}
spec: {{node: node1, peerIP: 10.55.0.100, asNumber: 65100, keepaliveTime: 3s{more}}}
"""

FILTER = """
apiVersion: projectcalico.org/v3
kind: BGPFilter
metadata: {{name: f}}
spec:
  importV4: [{{action: Reject, cidr: {rejected}, matchOperator: Equal}}]
"""


class LanHost(Host):
    """A namespace with one address on the LAN, and a daemon in it."""

    def __init__(self, lan: Namespace, number: int, folder: Path) -> None:
        self.netns = Namespace(f"bgpd-t{os.getpid()}-n{number}")
        plug(lan, self.netns, f"10.55.0.{number}")
        label = f"node{number}"
        self.folder = folder / label
        self.folder.mkdir()
        self.socket = self.folder / "bgpd.sock"
        self.config = self.folder / "bgpd.toml"
        address = f"10.55.0.{number}"
        self.config.write_text(CONFIG.format(name=label, address=address, folder=folder, label=label))
        self.log = self.folder / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def peers(self) -> dict[str, dict[str, Any]]:
        found = self.ask("peers")
        return {one["name"]: one for one in found} if isinstance(found, list) else {}

    def established(self) -> set[str]:
        return {name for name, one in self.peers().items() if one["state"] == "Established"}

    def prefixes(self, kind: str) -> set[str]:
        found = self.ask("routes")
        return {one["prefix"] for one in found if one["kind"] == kind} if isinstance(found, list) else set()


def plug(lan: Namespace, one: Namespace, address: str) -> None:
    """Join a namespace to the LAN's bridge."""
    port = f"p{address.rpartition('.')[2]}"
    lan.ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", one.name)
    lan.ip("link", "set", port, "master", "br0", "up")
    one.ip("link", "set", "eth0", "up")
    one.ip("address", "add", f"{address}/24", "dev", "eth0")


class Cluster:
    """Owns the LAN, three hosts, the router and the store's file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"sqlite:///{folder}/store.db"
        self.lan = Namespace(f"bgpd-t{os.getpid()}-lan")
        self.lan.ip("link", "add", "br0", "type", "bridge")
        self.lan.ip("link", "set", "br0", "up")
        self.router = Namespace(f"bgpd-t{os.getpid()}-tor")
        plug(self.lan, self.router, ROUTER)
        self.hosts = [LanHost(self.lan, number, folder) for number in (1, 2, 3)]
        self.bird: subprocess.Popen[bytes] | None = None

    def bird_config(self, *routes: str) -> Path:
        file = self.folder / "bird.conf"
        text = " ".join(f"route {route} blackhole;" for route in routes)
        file.write_text(BIRD.format(folder=self.folder, routes=text))
        return file

    def bird_routes(self, *routes: str) -> None:
        """Have the router announce other routes."""
        self.bird_config(*routes)
        self.birdc("configure")

    def start_bird(self, *routes: str) -> None:
        file = self.bird_config(*routes)
        command = ["bird", "-f", "-c", str(file), "-s", f"{self.folder}/bird.ctl"]
        self.bird = subprocess.Popen(["ip", "netns", "exec", self.router.name, *command])

    def birdc(self, *command: str) -> str:
        line = ["birdc", "-s", f"{self.folder}/bird.ctl", *command]
        return subprocess.run(line, capture_output=True, text=True, check=False).stdout

    def cli(self, *command: str, text: str = "") -> str:
        line = [sys.executable, "-m", "bgpd.cli.main", *command, "--store", self.url]
        done = subprocess.run(line, input=text, capture_output=True, text=True, check=False, timeout=DEADLINE_S)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def apply(self, *documents: str) -> None:
        self.cli("apply", "-f", "-", text="---".join(documents))

    def forget_filter(self) -> None:
        """Delete the filter behind the back of what refuses that (another tool may)."""

        async def delete() -> None:
            store = open_store(self.url)
            await store.txn([], [Delete(keys.BGP_FILTERS + "f")])
            await store.close()

        asyncio.run(delete())

    def close(self) -> None:
        for host in self.hosts:
            host.close()
        if self.bird is not None:
            self.bird.send_signal(signal.SIGTERM)
            self.bird.wait(DEADLINE_S)
        self.router.close()
        self.lan.close()


def until(condition: Callable[[], bool], host: Host) -> None:
    """Poll until *condition* holds; fail with the daemon's log."""
    deadline = time.monotonic() + TOGETHER_S
    while not condition():
        assert time.monotonic() < deadline, host.log.read_text()
        time.sleep(0.1)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    yield made
    made.close()


@pytest.mark.timeout(400)
def test_resources_make_sessions_and_policy(cluster: Cluster) -> None:
    """A BGPConfiguration brings the mesh, a BGPPeer one session of one node; filters and communities reset nothing."""
    first, second, _ = cluster.hosts
    cluster.start_bird("172.30.1.0/24", "172.30.2.0/24")
    for host in cluster.hosts:
        host.start()
    for host in cluster.hosts:
        wait(host.ready, host)
    assert [{}, {}, {}] == [host.peers() for host in cluster.hosts]  # nobody asked for a session yet

    # The mesh: each node with the two others, and their blocks by BGP.
    cluster.apply(CONFIGURATION.format(spec="{}"))
    for host in cluster.hosts:
        until(lambda host=host: len(host.established()) == 2, host)  # type: ignore[misc]
    assert {"mesh-node2", "mesh-node3"} == first.established()
    until(lambda: len(first.prefixes("native")) == 2, first)

    # One more peer, of one node: the mesh stays as it is, the router gets this node's block and no other's.
    cluster.apply(PEER.format(more=""))
    until(lambda: "tor" in first.established(), first)
    assert "tor" not in second.peers()
    until(lambda: {"172.30.1.0/24", "172.30.2.0/24"} <= first.prefixes("bgp"), first)
    (own,) = first.prefixes("own")
    until(lambda: own in cluster.birdc("show", "route"), first)
    assert not [block for block in first.prefixes("native") if block in cluster.birdc("show", "route")]

    # A filter, and communities: judged anew, told anew, in the same sessions.
    sessions = {host: {name: one["transitions"] for name, one in host.peers().items()} for host in cluster.hosts}
    cluster.apply(FILTER.format(rejected="172.30.2.0/24"), PEER.format(more=", filters: [f]"))
    until(lambda: "172.30.2.0/24" not in first.prefixes("bgp"), first)
    assert "172.30.1.0/24" in first.prefixes("bgp")
    paths = first.ask("routes", "172.30.2.0/24")
    assert isinstance(paths, list)
    assert "BGPFilter f importV4[0]" in paths[0]["paths"][0]["why_not"]
    cluster.apply(FILTER.format(rejected="172.30.1.0/24"))
    until(lambda: first.prefixes("bgp") >= {"172.30.2.0/24"} > first.prefixes("bgp") & {"172.30.1.0/24"}, first)
    advertised = (
        "{prefixAdvertisements: [{cidr: 10.65.0.0/16, communities: ['64512:77']}], "
        "serviceLoadBalancerIPs: [{cidr: 203.0.113.0/24}]}"
    )
    cluster.apply(CONFIGURATION.format(spec=advertised))
    until(lambda: "(64512,77)" in cluster.birdc("show", "route", own, "all"), first)
    until(lambda: "203.0.113.0/24" in cluster.birdc("show", "route"), first)
    assert sessions == {
        host: {name: one["transitions"] for name, one in host.peers().items()} for host in cluster.hosts
    }

    # A filter that is gone ends the session, and says why; with the filter it is back. The mesh does not notice.
    cluster.forget_filter()
    until(lambda: "BGPFilter f does not exist" in str(first.peers()["tor"]), first)
    until(lambda: "Established" not in cluster.birdc("show", "protocols", "node1"), first)
    cluster.apply(FILTER.format(rejected="172.30.1.0/24"))
    until(lambda: "tor" in first.established(), first)
    assert {"mesh-node2": 1, "mesh-node3": 1} == {
        name: one["transitions"] for name, one in first.peers().items() if name != "tor"
    }


@pytest.mark.timeout(300)
def test_restart_keeps_sessions_that_the_store_names(cluster: Cluster) -> None:
    """A daemon killed and started again finds its speaker's sessions with peers of the store, and ends none of them."""
    first, second, _ = cluster.hosts
    cluster.apply(CONFIGURATION.format(spec="{}"))
    for host in (first, second):
        host.start()
    for host in (first, second):
        until(lambda host=host: len(host.established()) == 1, host)  # type: ignore[misc]
    until(lambda: len(first.prefixes("native")) == 1, first)
    before = second.peers()["mesh-node1"]["transitions"]

    first.end(signal.SIGKILL)
    first.start()

    until(lambda: first.established() == {"mesh-node2"}, first)
    until(first.ready, first)
    until(lambda: len(first.prefixes("native")) == 1, first)
    assert before == second.peers()["mesh-node1"]["transitions"]
