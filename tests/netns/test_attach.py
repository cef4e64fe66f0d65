"""A speaker kept by another than the daemon (``bgpd speaker``, ``bgpd run --attach``): sessions outlive every end of the daemon."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bgpd.sim.namespace import Namespace

pytestmark = pytest.mark.netns

DEADLINE_S = 60.0

CONFIG = """
[node]
name = "node1"
address = "192.0.2.1/24"
asn = 65001

[store]
url = "sqlite:///{folder}/store.db"

[pool]
cidr = "10.65.0.0/16"

[[peer]]
name = "tor1"
address = "192.0.2.254"
local_address = "192.0.2.1"
asn = 65000

[speaker]
runtime_dir = "{folder}/speaker"

[api]
socket = "{folder}/bgpd.sock"

[log]
format = "json"
"""

ROUTER = """
router id 192.0.2.254;
protocol device {}
protocol static announced { ipv4; route 198.51.100.0/24 blackhole; }
protocol bgp node {
  local 192.0.2.254 as 65000;
  neighbor 192.0.2.1 as 65001;
  graceful restart on;
  connect delay time 1;
  ipv4 { import all; export all; };
}
"""


class Site:
    """A node and its router (BIRD), each in a namespace; the node's speaker and daemon as processes of ours."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.node, self.router = (Namespace(f"bgpd-s{os.getpid()}-{end}") for end in "ab")
        self.node.ip("link", "add", "up0", "type", "veth", "peer", "name", "down0", "netns", self.router.name)
        self.node.batch("address add 192.0.2.1/24 dev up0", "link set up0 up")
        self.router.batch("address add 192.0.2.254/24 dev down0", "link set down0 up")
        self.config = folder / "bgpd.toml"
        self.config.write_text(CONFIG.format(folder=folder))
        (folder / "bird.conf").write_text(ROUTER)
        self.log = (folder / "log").open("ab")
        self.processes = [
            self._start(self.router, "bird", "-f", "-c", f"{folder}/bird.conf", "-s", f"{folder}/bird.ctl")
        ]

    def speaker(self) -> subprocess.Popen[bytes]:
        return self._bgpd("speaker")

    def daemon(self) -> subprocess.Popen[bytes]:
        return self._bgpd("run", "--attach")

    def established_since(self) -> str:
        """When the router's session came up; empty if it is down, or the router does not answer yet."""
        try:
            lines = self.router.execute("birdc", "-s", f"{self.folder}/bird.ctl", "show", "protocols").splitlines()
        except RuntimeError:
            return ""
        line = next((line for line in lines if line.startswith("node ")), "")
        return " ".join(line.split()[4:5]) if "Established" in line else ""

    def ready(self) -> bool:
        command = [
            sys.executable,
            "-m",
            "bgpd.cli.main",
            "status",
            "--socket",
            f"{self.folder}/bgpd.sock",
            "-o",
            "json",
        ]
        answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=DEADLINE_S)
        return answer.returncode == 0 and json.loads(answer.stdout)["phase"]["name"] == "ready"

    def routes(self) -> set[str]:
        return {
            f"{route['dst']} {route.get('type', '')}" for route in self.node.ip_json("route", "show", "proto", "179")
        }

    def wait(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.1)

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        for space in (self.node, self.router):
            space.kill_all()
            space.close()
        self.log.close()

    def _bgpd(self, *command: str) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", "bgpd.cli.main", *command, "--config", str(self.config)]
        self.processes.append(self._start(self.node, *words))
        return self.processes[-1]

    def _start(self, space: Namespace, *command: str) -> subprocess.Popen[bytes]:
        words = ["ip", "netns", "exec", space.name, *command]
        return subprocess.Popen(words, stdout=self.log, stderr=self.log)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


def test_sessions_outlive_the_daemon_however_it_ends(site: Site) -> None:
    """Stopped in order or killed, the daemon leaves speaker, session and routes; the next one finds them and is ready."""
    speaker, daemon = site.speaker(), site.daemon()
    site.wait(site.established_since)
    site.wait(site.ready)
    site.wait(lambda: "198.51.100.0/24 " in site.routes())
    since, routes = site.established_since(), site.routes()

    for number, status in ((signal.SIGTERM, 0), (signal.SIGKILL, -signal.SIGKILL)):
        daemon.send_signal(number)
        assert status == daemon.wait(DEADLINE_S)
        assert speaker.poll() is None
        assert (since, routes) == (site.established_since(), site.routes())

        daemon = site.daemon()
        site.wait(site.ready)
        assert (since, routes) == (site.established_since(), site.routes())


def test_daemon_waits_for_its_speaker_and_starts_none(site: Site) -> None:
    """Without a speaker the daemon waits; one that comes gets the neighbors, and one that is replaced gets them again."""
    site.daemon()
    site.wait(lambda: "no speaker runs" in (site.folder / "log").read_text())
    assert not (site.folder / "speaker" / "exabgp.pid").exists()

    first = site.speaker()
    site.wait(site.established_since)
    site.wait(site.ready)
    first.kill()
    first.wait()
    site.wait(lambda: not site.established_since())
    site.speaker()

    site.wait(site.established_since)
    site.wait(lambda: "198.51.100.0/24 " in site.routes())
