"""``bgpd peers``, ``refresh``, ``reset`` and ``routes --peer`` through a real daemon, with a real BIRD at the other end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bgpd.sim.namespace import Namespace
from tests.netns.test_resources import LanHost, plug

pytestmark = pytest.mark.netns

DEADLINE_S = 40.0

PEER = """
[[peer]]
name = "tor"
address = "10.55.0.100"
asn = 65100
local_address = "10.55.0.1"
hold_time_s = 9
"""
BIRD = """
log stderr { remote, error };
router id 10.55.0.100;
protocol device { }
protocol static { ipv4; route 172.31.1.0/24 blackhole; }
protocol static looped { ipv4; route 172.31.2.0/24 blackhole { bgp_path.prepend(64512); }; }
protocol bgp b {
  local 10.55.0.100 as 65100; neighbor 10.55.0.1 as 64512; passive on;
  hold time 9; connect retry time 1; error wait time 1, 2;
  ipv4 { import all; export where source = RTS_STATIC; };
}
"""


LIMITED = """
allowed_own_asns = 1
max_prefix = { limit = 2 }
role = "customer"
"""


class Site:
    """Owns a LAN, a host with a daemon, and a router."""

    def __init__(self, folder: Path, more: str = "") -> None:
        self.folder = folder
        self.lan = Namespace(f"bgpd-pc{os.getpid()}-lan")
        self.lan.ip("link", "add", "br0", "type", "bridge")
        self.lan.ip("link", "set", "br0", "up")
        self.router = Namespace(f"bgpd-pc{os.getpid()}-tor")
        plug(self.lan, self.router, "10.55.0.100")
        self.host = LanHost(self.lan, 1, folder)
        self.host.config.write_text(self.host.config.read_text() + PEER + more)
        (folder / "bird.conf").write_text(BIRD)
        with (folder / "bird.log").open("wb") as log:
            command = ["bird", "-f", "-c", str(folder / "bird.conf"), "-s", str(folder / "bird.ctl")]
            self.bird = subprocess.Popen(["ip", "netns", "exec", self.router.name, *command], stderr=log)
        self.host.start()

    def close(self) -> None:
        self.bird.terminate()
        self.bird.wait(10)
        self.host.close()
        self.router.close()
        self.lan.close()

    def bird_again(self, config: str) -> None:
        """Give the router another configuration."""
        (self.folder / "bird.conf").write_text(config)
        command = ["birdc", "-s", str(self.folder / "bird.ctl"), "configure"]
        subprocess.run(command, capture_output=True, check=True)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bgpd.cli.main", *words, "--socket", str(self.host.socket)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=DEADLINE_S)

    def tor(self) -> dict[str, Any]:
        found = self.host.ask("peers", "tor")
        return found[0] if isinstance(found, list) and found else {"state": "", "families": [], "transitions": 0}

    def wait(self, holds: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not holds():
            assert time.monotonic() < deadline, f"{what}\n{self.host.log.read_text()[-3000:]}"
            time.sleep(0.1)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


def test_a_session_is_shown_refreshed_and_reset(site: Site) -> None:
    """The detail of a session, its routes with what was rejected and why, a refresh that flaps nothing, a reset with its text."""
    site.wait(lambda: site.tor()["state"] == "Established" and site.tor()["received"] == 2, "routes")
    shown = site.tor()
    assert "extended-message" in shown["offered"]
    assert "enhanced-route-refresh" in shown["received_capabilities"]
    assert (9, 3) == (shown["hold_time_s"], shown["keepalive_s"])
    site.wait(lambda: site.tor()["accepted"] == 1, "decided")
    rejected = site.host.ask("routes", "--peer", "tor", "--rejected")
    assert isinstance(rejected, list)
    (route,) = rejected
    assert ("172.31.2.0/24", "rejected: our AS 64512 is in the AS path") == (route["prefix"], route["status"])

    refreshed = site.run("refresh", "tor")
    assert (0, "tor was asked to send everything again\n") == (refreshed.returncode, refreshed.stdout)
    assert site.tor()["received"] == 2
    assert site.tor()["transitions"] == shown["transitions"]

    assert 0 == site.run("reset", "tor", "--message", "new line card").returncode
    site.wait(lambda: site.tor()["transitions"] == shown["transitions"] + 2, "a new session")
    assert 'we sent Cease: Administrative Reset, "new line card" (6/4)' == site.tor()["reason"]
    assert 'Received: Administrative reset: "new line card"' in (site.folder / "bird.log").read_text()
    assert 2 == site.run("reset", "tor", "--message", "x" * 256).returncode


def test_a_peer_of_the_file_has_a_limit_a_role_and_our_as(tmp_path: Path) -> None:
    """A path with our AS is taken where the file allows it; one route beyond the limit ends the session with Cease/1, until a reset."""
    site = Site(tmp_path, LIMITED)
    log = tmp_path / "bird.log"
    try:
        site.wait(lambda: site.tor()["state"] == "Established" and site.tor()["accepted"] == 2, "both routes")
        assert "role" in site.tor()["offered"]
        third = BIRD.replace("172.31.1.0/24 blackhole;", "172.31.1.0/24 blackhole; route 172.31.3.0/24 blackhole;")
        site.bird_again(third)
        site.wait(lambda: site.tor()["state"] == "Idle", "the limit")
        assert "it sent 3 routes, and its limit is 2" == site.tor()["reason"]
        site.wait(lambda: "Received: Maximum number of prefixes reached" in log.read_text(), "BIRD's log")

        site.bird_again(BIRD)
        assert 0 == site.run("reset", "tor").returncode
        site.wait(lambda: site.tor()["state"] == "Established" and site.tor()["accepted"] == 2, "a session again")
    finally:
        site.close()
