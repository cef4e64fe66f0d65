"""A session without addresses: the router (BIRD, FRR) is found on the link by its advertisements, and finds us by ours."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.test_daemon import DEADLINE_S
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


FRR = """
hostname tor
interface eth0
 no ipv6 nd suppress-ra
 ipv6 nd ra-interval 3
router bgp 65100
 bgp router-id 10.55.0.100
 no bgp ebgp-requires-policy
 no bgp network import-check
 neighbor eth0 interface remote-as external
 neighbor eth0 timers 3 9
 neighbor eth0 timers connect 1
 address-family ipv4 unicast
  network 172.30.1.0/24
 exit-address-family
 address-family ipv6 unicast
  network 2001:db8:100::/48
  neighbor eth0 activate
 exit-address-family
"""


@pytest.fixture
def frr_folder() -> Iterator[Path]:
    """A folder that FRR's user may write to."""
    folder = Path(tempfile.mkdtemp(prefix="bgpdu-"))
    folder.chmod(0o755)
    shutil.chown(folder, "frr", "frrvty")  # the user that Debian's FRR becomes
    yield folder
    shutil.rmtree(folder)


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
    assert host.peers()["tor"]["address"] == f"{far['addr_info'][0]['local']}%eth0"
    until(lambda: {"172.30.1.0/24", "2001:db8:100::/48"} <= host.prefixes("bgp"), host)
    until(lambda: "via inet6 fe80::" in host.netns.ip("route", "show", "172.30.1.0/24"), host)
    (own,) = host.prefixes("own")
    until(lambda: own in cluster.birdc("show", "route"), host)
    assert host.end(signal.SIGTERM) == 0


@pytest.mark.timeout(300)
def test_router_without_addresses_finds_us_as_well(cluster: Cluster, frr_folder: Path) -> None:
    """FRR's `neighbor eth0 interface` waits for advertisements of ours; then the session carries both families."""
    host = cluster.hosts[0]
    file = frr_folder / "frr.conf"
    file.write_text(FRR)
    routers = []
    try:
        for daemon in ("zebra", "bgpd"):
            where = ("-f", str(file), "-i", f"{frr_folder}/{daemon}.pid", "-z", f"{frr_folder}/zserv.api")
            command = [f"/usr/lib/frr/{daemon}", *where, "-P", "0", "--vty_socket", str(frr_folder)]
            routers.append(subprocess.Popen(["ip", "netns", "exec", cluster.router.name, *command]))
            until((frr_folder / f"{daemon}.vty").exists, host)
        cluster.apply(CONFIGURATION.format(spec="{nodeToNodeMeshEnabled: false}"), PEER.format())
        host.start()

        until(lambda: "tor" in host.established(), host)
        until(lambda: {"172.30.1.0/24", "2001:db8:100::/48"} <= host.prefixes("bgp"), host)
        until(lambda: "via inet6 fe80::" in host.netns.ip("route", "show", "172.30.1.0/24"), host)
        (own,) = host.prefixes("own")
        shown = ["vtysh", "--vty_socket", str(frr_folder), "-d", "bgpd", "-c", "show bgp ipv4 unicast"]
        until(lambda: own in subprocess.run(shown, capture_output=True, text=True, check=False).stdout, host)
    finally:
        for router in routers:
            router.terminate()
            router.wait(DEADLINE_S)
