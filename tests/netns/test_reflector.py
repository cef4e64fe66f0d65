"""A node among many real BIRDs: as their route reflector (RFC 4456), and as one of a mesh (issue 5, items 1 and 7)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bgpd.sim.namespace import Namespace
from tests.netns.test_daemon import DEADLINE_S
from tests.netns.test_resources import CONFIGURATION, Cluster, plug, until

pytestmark = pytest.mark.netns

CLIENTS = int(os.environ.get("BGPD_TEST_CLIENTS", "20"))

BIRD = """
router id 10.55.0.{number};
protocol device {{ }}
protocol direct {{ ipv4; }}
protocol static {{ ipv4; route 172.31.{number}.0/24 blackhole; }}
protocol bgp reflector {{
  local 10.55.0.{number} as 64512; neighbor 10.55.0.1 as 64512; passive {passive};
  hold time 30; connect retry time 1; error wait time 1, 2;
  ipv4 {{ import all; export where source = RTS_STATIC; }};
}}
"""
PEER = """
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {{name: client-{number}}}
spec: {{node: node1, peerIP: 10.55.0.{number}, asNumber: 64512}}
"""
REFLECTOR = """
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: node1}
spec: {bgp: {asNumber: 64512, ipv4Address: 10.55.0.1/24, routeReflectorClusterID: 10.0.0.1}}
"""


class Client:
    """Owns a namespace on the LAN and a BIRD in it."""

    def __init__(self, cluster: Cluster, number: int, passive: str) -> None:
        self.number = number
        self.netns = Namespace(f"bgpd-t{os.getpid()}-c{number}")
        plug(cluster.lan, self.netns, f"10.55.0.{number}")
        self.control = cluster.folder / f"c{number}.ctl"
        file = cluster.folder / f"c{number}.conf"
        file.write_text(BIRD.format(number=number, passive=passive))
        command = ["bird", "-f", "-c", str(file), "-s", str(self.control)]
        self.process = subprocess.Popen(["ip", "netns", "exec", self.netns.name, *command])

    @property
    def prefix(self) -> str:
        return f"172.31.{self.number}.0/24"

    def birdc(self, *command: str) -> str:
        line = ["birdc", "-s", str(self.control), *command]
        return subprocess.run(line, capture_output=True, text=True, check=False).stdout

    def knows(self) -> set[str]:
        return {word for word in self.birdc("show", "route").split() if word.startswith("172.31.")}

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(DEADLINE_S)
        self.netns.close()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    yield made
    made.close()


@pytest.fixture(params=["on"])
def clients(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[list[Client]]:
    """BIRDs that wait for a connection, or make one (parameter ``off``)."""
    made = [Client(cluster, 101 + n, request.param) for n in range(CLIENTS)]
    yield made
    for one in made:
        one.close()


@pytest.mark.timeout(600)
def test_every_client_has_the_routes_of_all_others(cluster: Cluster, clients: list[Client]) -> None:
    """Each client's prefix is at all others with its own next hop, originator and our cluster id, and goes when it is withdrawn."""
    host = cluster.hosts[0]
    cluster.apply(CONFIGURATION.format(spec="{nodeToNodeMeshEnabled: false}"), REFLECTOR)
    cluster.apply(*(PEER.format(number=one.number) for one in clients))
    host.start()
    until(lambda: len(host.established()) == len(clients), host)
    everything = {one.prefix for one in clients}
    for one in clients:
        until(lambda one=one: everything <= one.knows(), host)  # type: ignore[misc]

    first, last = clients[0], clients[-1]
    shown = last.birdc("show", "route", first.prefix, "all")
    assert f"BGP.next_hop: 10.55.0.{first.number}" in shown
    assert f"BGP.originator_id: 10.55.0.{first.number}" in shown
    assert "BGP.cluster_list: 10.0.0.1" in shown
    assert "BGP.as_path: \n" in shown

    first.birdc("disable", "static1")
    for one in clients:
        until(lambda one=one: first.prefix not in one.knows(), host)  # type: ignore[misc]
    assert len(host.established()) == len(clients)


NODE = """
apiVersion: projectcalico.org/v3
kind: Node
metadata: {{name: bird{number}}}
spec: {{bgp: {{asNumber: 64512, ipv4Address: 10.55.0.{number}/24}}}}
"""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("clients", ["off"], indirect=True)
def test_the_mesh_has_a_session_with_each_node(cluster: Cluster, clients: list[Client]) -> None:
    """Nodes as Calico would run them connect, since their addresses are the larger texts; each gets our block, and none another's."""
    host = cluster.hosts[0]
    cluster.apply(CONFIGURATION.format(spec="{}"), *(NODE.format(number=one.number) for one in clients))
    host.start()
    until(lambda: host.established() == {f"mesh-bird{one.number}" for one in clients}, host)
    until(lambda: {one.prefix for one in clients} <= host.prefixes("bgp"), host)
    (own,) = host.prefixes("own")
    for one in clients:
        until(lambda one=one: own in one.birdc("show", "route"), host)  # type: ignore[misc]
        assert one.knows() == {one.prefix}

    # A node that goes takes its session only.
    cluster.cli("delete", "node", f"bird{clients[0].number}")
    until(lambda: len(host.peers()) == len(clients) - 1, host)
    assert {one["transitions"] for one in host.peers().values()} == {1}
