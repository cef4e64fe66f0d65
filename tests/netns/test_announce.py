"""Prefixes of a node, limits and reflection on real daemons with BIRD: announced, withdrawn, held, passed on (issue 5)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.test_daemon import wait
from tests.netns.test_resources import CONFIGURATION, PEER, Cluster, until

pytestmark = pytest.mark.netns

ANYCAST = """
[[announce]]
prefixes = ["203.0.113.53/32"]
communities = ["64512:53"]
check = "dns"

[[check]]
name = "dns"
tcp = "127.0.0.1:5353"
interval_s = 0.2
fall = 2
"""
SERVICE = "import socket,time; s = socket.create_server(('127.0.0.1', 5353)); time.sleep(600)"
ANYCAST_PREFIX = "203.0.113.53/32"
LIMITED = PEER.replace(
    "metadata: {{name: tor}}", 'metadata: {{name: tor, annotations: {{bgpd.io/max-prefix: "3,50%"}}}}'
)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    yield made
    made.close()


@pytest.mark.timeout(300)
def test_anycast_follows_its_service_and_a_limit_ends_a_session(cluster: Cluster) -> None:
    """The prefix is at the router while the port is open, and the session is the same all the time, until its limit ends it."""
    host = cluster.hosts[0]
    host.config.write_text(host.config.read_text() + ANYCAST)
    cluster.start_bird("172.30.1.0/24", "172.30.2.0/24")
    cluster.apply(CONFIGURATION.format(spec="{nodeToNodeMeshEnabled: false}"), PEER.format(more=""))
    host.start()
    until(lambda: "tor" in host.established(), host)
    (own,) = host.prefixes("own")
    until(lambda: own in cluster.birdc("show", "route"), host)
    assert ANYCAST_PREFIX not in cluster.birdc("show", "route")

    command = ["ip", "netns", "exec", host.netns.name, sys.executable, "-c", SERVICE]
    with subprocess.Popen(command) as service:
        try:
            until(lambda: "(64512,53)" in cluster.birdc("show", "route", ANYCAST_PREFIX, "all"), host)
        finally:
            service.kill()
    until(lambda: ANYCAST_PREFIX not in cluster.birdc("show", "route"), host)
    assert host.peers()["tor"]["transitions"] == 1

    # Two routes of three allowed: a warning. Two more end the session, and it stays down until the limit is another.
    cluster.apply(LIMITED.format(more=""))
    until(lambda: "peer.near_limit" in host.log.read_text(), host)
    cluster.bird_routes("172.30.1.0/24", "172.30.2.0/24", "172.30.3.0/24", "172.30.4.0/24")
    until(lambda: "it sent 4 routes, and its limit is 3" in str(host.peers()["tor"]), host)
    until(lambda: not host.prefixes("bgp"), host)
    cluster.apply(LIMITED.format(more="").replace("3,50%", "9"))
    until(lambda: "172.30.4.0/24" in host.prefixes("bgp"), host)


REFLECTED = """
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: reflected}
spec: {nodeSelector: '!has(rr)', peerSelector: has(rr)}
"""


@pytest.mark.timeout(300)
def test_reflector_joins_nodes_that_do_not_speak_with_each_other(cluster: Cluster) -> None:
    """A node with a cluster id passes its clients' blocks on: no mesh, and each client reaches the other natively."""
    first, second, reflector = cluster.hosts
    cluster.apply(CONFIGURATION.format(spec="{nodeToNodeMeshEnabled: false}"), REFLECTED)
    for host in cluster.hosts:
        host.start()
    for host in cluster.hosts:
        wait(host.ready, host)
    cluster.cli("label", "node", "node3", "rr=yes")
    node = json.loads(cluster.cli("get", "node", "node3", "-o", "json"))
    node["spec"]["bgp"]["routeReflectorClusterID"] = "10.0.0.3"
    node["metadata"].pop("resourceVersion", None)
    cluster.apply(json.dumps(node))

    until(lambda: len(reflector.established()) == 2, reflector)
    assert [1, 1] == [len(host.peers()) for host in (first, second)]
    (theirs,) = second.prefixes("own")

    def passed_on() -> bool:
        found = first.ask("routes", theirs)
        paths = found[0]["paths"] if isinstance(found, list) and found else []
        return bool(paths) and found[0]["kind"] == "native" and paths[0]["best"]  # type: ignore[index]

    until(passed_on, first)
    found = first.ask("routes", theirs)
    assert isinstance(found, list)
    assert found[0]["paths"][0]["next_hop"] == "10.55.0.2"  # the reflector does not put itself in the way
    assert "172.30" not in str(reflector.ask("routes"))
