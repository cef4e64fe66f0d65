"""A session without addresses: the router (BIRD, FRR) is found on the link by its advertisements, and finds us by ours."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.test_resources import CONFIGURATION, Cluster, until

pytestmark = pytest.mark.netns

BIRD = """
router id 10.55.0.100;
protocol device {{ }}
protocol static {{ ipv6; route 2001:db8:100::/48 blackhole; }}
protocol static {{ ipv4; route 172.30.1.0/24 blackhole; }}
protocol radv {{ interface "eth0" {{ min ra interval 3; max ra interval 4; default lifetime 0; }}; }}
protocol bgp node1 {{
  local as 65100; neighbor range fe80::/10 as 64512; interface "eth0"; passive on;
  hold time 9;
  ipv6 {{ import all; export where source = RTS_STATIC; }};
  ipv4 {{ import all; export where source = RTS_STATIC; extended next hop on; }};
}}
"""

PEER = """
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata:
  name: tor
  annotations: {{bgpd.io/interface: eth0, bgpd.io/extended-next-hop: "true"}}
spec: {{node: node1, asNumber: 65100, keepaliveTime: 3s}}
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    yield made
    made.close()


@pytest.mark.timeout(300)
def test_router_is_found_by_its_advertisements(cluster: Cluster) -> None:
    """A BGPPeer that names a link only gets a session with the router there, with IPv4 and IPv6 routes over its address."""
    host = cluster.hosts[0]
    file = cluster.folder / "bird.conf"
    file.write_text(BIRD.format())
    command = ["bird", "-f", "-c", str(file), "-s", f"{cluster.folder}/bird.ctl"]
    cluster.bird = subprocess.Popen(["ip", "netns", "exec", cluster.router.name, *command])
    cluster.apply(CONFIGURATION.format(spec="{nodeToNodeMeshEnabled: false}"), PEER.format())
    host.start()

    until(lambda: "tor" in host.established(), host)
    (far,) = cluster.router.ip_json("-6", "address", "show", "dev", "eth0", "scope", "link")
    assert host.peers()["tor"]["address"] == far["addr_info"][0]["local"]
    until(lambda: {"172.30.1.0/24", "2001:db8:100::/48"} <= host.prefixes("bgp"), host)
    until(lambda: "via inet6 fe80::" in host.netns.ip("route", "show", "172.30.1.0/24"), host)
    (own,) = host.prefixes("own")
    until(lambda: own in cluster.birdc("show", "route"), host)
    assert host.end(signal.SIGTERM) == 0
