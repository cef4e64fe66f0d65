"""The daemon ends and begins again under thousands of routes and a stream of packets: the kernel sees nothing of it, and no packet is lost.

KERNEL_ROUTES sets the number of routes (1,000; by hand 10,000). In the virtual machine ExaBGP takes a minute to start: a restart
without neighbors (test_daemon.py) and one under systemd (tests/vm/test_systemd.py) say the same.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import bgpd
from bgpd.model.prefix import Address, Prefix
from bgpd.sim.namespace import Namespace
from tests.netns.kernel_world import listens
from tests.netns.test_daemon import DEADLINE_S, Host, wait

pytestmark = [pytest.mark.netns, pytest.mark.timeout(300)]

ROUTES = int(os.environ.get("KERNEL_ROUTES", "1000"))
TARGET = "10.200.0.1"
PEER = """
[[peer]]
name = "tor"
address = "192.0.2.2"
asn = 65100
local_address = "192.0.2.1"
"""
BIRD = """
router id 192.0.2.2;
protocol device {{ }}
protocol static {{ ipv4;
{routes}
}}
protocol bgp b {{
  local 192.0.2.2 as 65100; neighbor 192.0.2.1 as 65001; connect retry time 1; error wait time 1, 2; connect delay time 1;
  ipv4 {{ import all; export where source = RTS_STATIC; }};
}}
"""


class Tor(Namespace):
    """A BIRD at the far end of the host's wire, which has the routes and answers pings."""

    def __init__(self, host: Host, folder: Path) -> None:
        super().__init__(f"bgpd-t{os.getpid()}-r")
        host.netns.ip("link", "set", "up1", "netns", self.name)
        for command in ("address add 192.0.2.2/24 dev up1", "link set up1 up", f"address add {TARGET}/32 dev lo"):
            self.ip(*command.split())
        first = Address.parse("10.200.0.0")
        routes = "\n".join(
            f"route {Prefix.of(Address(first + 64 * number), 26)} blackhole;" for number in range(ROUTES)
        )
        file = folder / "bird.conf"
        file.write_text(BIRD.format(routes=routes))
        self.bird = self.start("bird", "-f", "-c", str(file), "-s", str(folder / "bird.ctl"))

    def close(self) -> None:
        self.bird.terminate()
        self.bird.wait(10)
        assert self.bird.stdout is not None
        self.bird.stdout.close()
        super().close()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host("a", tmp_path, "node1", "10.0.0.1")
    made.netns.execute("sysctl", "-qw", "net.ipv4.nexthop_compat_mode=0")
    try:
        with Tor(made, tmp_path):
            made.config.write_text(made.config.read_text() + PEER)
            # what others have: a default route as DHCP makes it, and static ones
            made.netns.ip("route", "replace", "default", "via", "192.0.2.254", "proto", "dhcp", "metric", "100")
            for number in range(50):
                made.netns.ip("route", "add", f"203.0.113.{number}/32", "via", "192.0.2.254", "proto", "static")
            yield made
    finally:
        made.close()


def ours(host: Host) -> list[str]:
    return sorted(host.netns.ip("route", "show", "proto", "179").splitlines())


def converged(host: Host) -> bool:
    return len(ours(host)) == ROUTES + 1 and host.ready()


class Watch:
    """A stream of pings and an ``ip monitor``, until it is read."""

    def __init__(self, host: Host) -> None:
        self.ping = host.netns.start("ping", "-q", "-i", "0.01", TARGET)
        self.monitor = host.netns.start("ip", "monitor", "route", "nexthop", "link", "address", "rule")
        wait(lambda: listens(host.netns, self.monitor.pid), host)

    def heard(self) -> str:
        """Return what the kernel has said so far; empty where nothing."""
        assert self.monitor.stdout is not None
        ready, _, _ = select.select([self.monitor.stdout], [], [], 0.5)
        return self.monitor.stdout.readline() if ready else ""

    def lost(self) -> tuple[int, int]:
        """End the stream; return packets sent and packets lost."""
        self.ping.send_signal(signal.SIGINT)
        told, _ = self.ping.communicate(timeout=30)
        found = re.search(r"(\d+) packets transmitted, (\d+) received", told)
        assert found is not None, told
        return int(found[1]), int(found[1]) - int(found[2])

    def close(self) -> None:
        for process in (self.ping, self.monitor):
            process.kill()
            process.communicate()


@pytest.fixture
def watch(host: Host) -> Iterator[Watch]:
    host.start()
    wait(lambda: converged(host), host)
    # The kernel's own address detection on new links is no doing of ours: let it end first.
    wait(lambda: not host.netns.ip_json("-6", "address", "show", "tentative"), host)
    made = Watch(host)
    yield made
    made.close()


def test_kill_restart_and_upgrade_are_silent(
    host: Host, watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9, a stop in order, and a start of another version: no message of the kernel's, no packet lost, the same routes."""
    before = ours(host)
    figures: list[str] = []

    def again(name: str, number: signal.Signals) -> None:
        host.end(number)
        started = time.monotonic()
        host.start()
        wait(lambda: converged(host), host)
        figures.append(f"{name} {time.monotonic() - started:.1f} s")
        assert watch.heard() == "", name
        assert ours(host) == before

    again("kill -9", signal.SIGKILL)
    again("restart", signal.SIGTERM)
    newer = tmp_path / "newer"
    shutil.copytree(Path(bgpd.__file__).parent, newer / "bgpd", ignore=shutil.ignore_patterns("__pycache__"))
    module = newer / "bgpd" / "__init__.py"
    module.write_text(module.read_text().replace(f'"{bgpd.__version__}"', '"99.0"'))
    monkeypatch.setenv("PYTHONPATH", str(newer))
    monkeypatch.chdir(newer)
    again("upgrade", signal.SIGTERM)
    status = host.ask("status")
    assert isinstance(status, dict)
    assert status["version"] == "99.0"

    sent, lost = watch.lost()
    print(f"\n{ROUTES} routes: {', '.join(figures)}; {sent} packets, {lost} lost")
    assert lost == 0
    assert sent > 100


def test_others_routes_are_theirs(host: Host, watch: Watch) -> None:
    """Another flushes its static routes and renews its DHCP route: ours stay, and neither a restart nor a cleanup touches theirs."""
    before = ours(host)
    host.netns.ip("route", "flush", "proto", "static")
    host.netns.ip("route", "replace", "default", "via", "192.0.2.253", "proto", "dhcp", "metric", "100")
    host.netns.ip("route", "add", "198.51.100.0/24", "via", "192.0.2.254", "proto", "static", "metric", "7")
    theirs = host.netns.ip("route", "show", "proto", "dhcp"), host.netns.ip("route", "show", "proto", "static")

    host.end(signal.SIGKILL)
    host.start()
    wait(lambda: converged(host), host)

    assert ours(host) == before
    now = host.netns.ip("route", "show", "proto", "dhcp"), host.netns.ip("route", "show", "proto", "static")
    assert now == theirs
    assert "198.51.100.0/24" in theirs[1]
    assert watch.lost()[1] == 0
    cleanup_is_for_afterwards(host)
    assert host.netns.ip("route", "show", "proto", "static") == theirs[1]


def cleanup_is_for_afterwards(host: Host) -> None:
    """The stopped daemon leaves every route; ``bgpd cleanup`` refuses while it runs, and removes all of them after it."""
    command = ["ip", "netns", "exec", host.netns.name, sys.executable, "-m", "bgpd.cli.main", "cleanup"]
    command += ["--socket", str(host.socket), "--config", str(host.config)]
    refused = subprocess.run(command, capture_output=True, text=True, check=False, timeout=DEADLINE_S)
    assert (1, ROUTES + 1) == (refused.returncode, len(ours(host)))

    host.end(signal.SIGTERM)
    assert ROUTES + 1 == len(ours(host))
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=DEADLINE_S)

    assert (0, "") == (done.returncode, done.stderr)
    assert f"{ROUTES + 1} route, 1 group, 1 nexthop" in done.stdout.splitlines()[-1]
    assert [] == ours(host)
