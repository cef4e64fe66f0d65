"""``bgpd drain`` before BIRD and FRR: less preferred, then withdrawn, over a session that stays up, also through a restart."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bgpd.sim.namespace import Namespace
from tests.netns.asking import asked

pytestmark = pytest.mark.netns

DEADLINE_S = 60.0
SERVICE = "203.0.113.53/32"
BLOCK = "10.65.0.0/26"

CONFIG = """
[node]
name = "node1"
address = "192.0.2.1/24"
asn = 65001

[store]
url = "sqlite:///{folder}/store.db"

[pool]
cidr = "10.65.0.0/26"

[[peer]]
name = "bird"
address = "192.0.2.254"
local_address = "192.0.2.1"
asn = 65000

[[peer]]
name = "frr"
address = "198.51.100.254"
local_address = "198.51.100.1"
asn = 65000

[[announce]]
prefixes = ["203.0.113.53/32"]

[speaker]
runtime_dir = "{folder}/speaker"

[state]
directory = "{folder}/state"

[api]
socket = "{folder}/bgpd.sock"

[log]
format = "json"
"""

# RFC 8326 section 4.3: whoever receives GRACEFUL_SHUTDOWN gives the route LOCAL_PREF 0.
BIRD = """
router id 192.0.2.254;
protocol device {}
filter honour {
  if (65535, 0) ~ bgp_community then bgp_local_pref = 0;
  accept;
}
protocol bgp node {
  local 192.0.2.254 as 65000;
  neighbor 192.0.2.1 as 65001;
  graceful restart on;
  connect delay time 1;
  ipv4 { import filter honour; export none; };
}
"""
FRR = """
frr defaults datacenter
log file {folder}/frr.log
bgp community-list standard GSHUT permit 65535:0
route-map HONOUR permit 10
 match community GSHUT
 set local-preference 0
route-map HONOUR permit 20
router bgp 65000
 bgp router-id 198.51.100.254
 no bgp ebgp-requires-policy
 bgp graceful-restart
 neighbor 198.51.100.1 remote-as 65001
 neighbor 198.51.100.1 timers connect 1
 address-family ipv4 unicast
  neighbor 198.51.100.1 route-map HONOUR in
"""


class Site:
    """A node with a speaker of its own and two routers, each in a namespace."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.node, self.bird, self.frr = (Namespace(f"bgpd-d{os.getpid()}-{end}") for end in "abc")
        self.processes: list[subprocess.Popen[bytes]] = []
        self.log = (folder / "log").open("ab")
        self.config = folder / "bgpd.toml"

    def build(self) -> None:
        """Connect the namespaces and start everything."""
        folder = self.folder
        for number, (router, subnet) in enumerate(((self.bird, "192.0.2"), (self.frr, "198.51.100"))):
            self.node.ip("link", "add", f"up{number}", "type", "veth", "peer", "name", "down0", "netns", router.name)
            self.node.batch(f"address add {subnet}.1/24 dev up{number}", f"link set up{number} up")
            router.batch(f"address add {subnet}.254/24 dev down0", "link set down0 up", "link set lo up")
        self.config.write_text(CONFIG.format(folder=folder))
        (folder / "bird.conf").write_text(BIRD)
        (folder / "frr.conf").write_text(FRR.format(folder=folder))
        self.bgpd("speaker")
        self.daemon = self.bgpd("run", "--attach")
        self.start(self.bird, "bird", "-f", "-c", f"{folder}/bird.conf", "-s", f"{folder}/bird.ctl")
        self.start(
            self.frr,
            *("/usr/lib/frr/bgpd", "-f", f"{folder}/frr.conf", "-i", f"{folder}/frr.pid", "-Z", "-S"),
            *("--vty_socket", str(folder), "--log-level", "errors"),
        )

    def bgpd(self, *command: str) -> subprocess.Popen[bytes]:
        return self.start(self.node, sys.executable, "-m", "bgpd.cli.main", *command, "--config", str(self.config))

    def start(self, space: Namespace, *command: str) -> subprocess.Popen[bytes]:
        words = ["ip", "netns", "exec", space.name, *command]
        self.processes.append(subprocess.Popen(words, stdout=self.log, stderr=self.log))
        return self.processes[-1]

    def ask(self, *command: str) -> Any:
        """Run a command of ours and return its JSON; None where it fails."""
        return asked(Path(f"{self.folder}/bgpd.sock"), *command, deadline_s=DEADLINE_S)

    def bird_prefs(self) -> dict[str, int]:
        """LOCAL_PREF of each route that BIRD has of the node."""
        found: dict[str, int] = {}
        prefix = ""
        for line in self._birdc("show", "route", "all", "protocol", "node").splitlines():
            prefix = line.split()[0] if line[:1].isdigit() and "/" in line.split()[0] else prefix
            if "local_pref" in line:
                found[prefix] = int(line.split()[-1])
        return found

    def frr_prefs(self) -> dict[str, int]:
        """LOCAL_PREF of each route that FRR has of the node."""
        shown = self._vtysh("show bgp ipv4 unicast json")
        return {prefix: paths[0].get("locPrf", 100) for prefix, paths in shown.get("routes", {}).items()}

    def sessions(self) -> tuple[str, int]:
        """Since when BIRD's session is up, and how often FRR's has come up."""
        line = next((one for one in self._birdc("show", "protocols").splitlines() if one.startswith("node ")), "")
        shown = self._vtysh("show bgp neighbors 198.51.100.1 json").get("198.51.100.1", {})
        up = "Established" in line and shown.get("bgpState") == "Established"
        return (line.split()[4], shown["connectionsEstablished"]) if up else ("", 0)

    def wait(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.1)

    def both(self, expected: dict[str, int]) -> None:
        """Wait until both routers have these routes with these preferences."""
        self.wait(lambda: expected == self.bird_prefs() and expected == self.frr_prefs())

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        for space in (self.node, self.bird, self.frr):
            space.kill_all()
            space.close()
        self.log.close()

    def _birdc(self, *words: str) -> str:
        try:
            return self.bird.execute("birdc", "-s", f"{self.folder}/bird.ctl", *words)
        except RuntimeError:
            return ""

    def _vtysh(self, command: str) -> dict[str, Any]:
        try:
            shown = self.frr.execute("vtysh", "--vty_socket", str(self.folder), "-d", "bgpd", "-c", command)
        except RuntimeError:
            return {}
        found: dict[str, Any] = json.loads(shown or "{}")
        return found


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    try:
        made.build()
        yield made
    finally:
        made.close()


def test_drain_lowers_withdraws_and_survives_a_restart_over_standing_sessions(site: Site) -> None:
    """Routers see LOCAL_PREF 0, then nothing; the daemon is killed and started in between; undrain brings all back; no session flaps."""
    usual = {BLOCK: 100, SERVICE: 100}
    site.both(usual)
    since = site.sessions()

    started = site.ask("drain", "--timeout", "1h", "--below", "0", "--no-wait")
    site.both({BLOCK: 0, SERVICE: 0})
    assert "draining" == started["stage"]

    again = site.ask("drain", "--timeout", "0")
    site.both({})
    assert "drained" == again["stage"] == site.ask("status")["drain"]["stage"]

    site.daemon.send_signal(signal.SIGKILL)
    site.daemon.wait(DEADLINE_S)
    site.daemon = site.bgpd("run", "--attach")
    site.wait(lambda: (site.ask("status") or {}).get("phase", {}).get("name") == "ready")
    assert "drained" == site.ask("status")["drain"]["stage"]
    assert ({}, {}) == (site.bird_prefs(), site.frr_prefs())
    (step,) = (one for one in site.ask("explain", SERVICE)["steps"] if one["step"] == "announced")
    assert "to nobody" == step["outcome"]
    assert "this node is drained" in step["detail"][0]

    assert {"drained": False, "was": "drained"} == site.ask("undrain")
    site.both(usual)
    assert since == site.sessions()
    assert site.ask("status")["drain"] is None


def test_drain_ends_by_itself_once_the_uplinks_are_quiet(site: Site) -> None:
    """Traffic on an uplink holds the withdrawal up until it ends; blocks that are to be kept stay announced, avoided."""
    site.both({BLOCK: 100, SERVICE: 100})
    flood = site.start(site.bird, "ping", "-q", "-f", "-s", "8", "192.0.2.1")
    site.ask("drain", "--timeout", "1h", "--below", "500", "--keep-blocks", "--no-wait")
    site.wait(lambda: (site.ask("status")["drain"]["traffic_pps"] or 0) > 500)
    site.both({BLOCK: 0, SERVICE: 0})

    flood.terminate()
    flood.wait(DEADLINE_S)

    site.both({BLOCK: 0})
    drained = site.ask("status")["drain"]
    assert "drained" == drained["stage"]
    assert "fewer than 500" in drained["reason"]
