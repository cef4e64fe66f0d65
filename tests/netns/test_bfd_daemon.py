"""A real daemon and a BIRD that speak BGP and BFD: a router cut off without a sign carries nothing after the detection time."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bgpd.sim.namespace import Namespace
from tests.netns.test_daemon import Host, wait

pytestmark = [pytest.mark.netns, pytest.mark.alone]

LEARNED = "198.51.100.0/24"
PEER = """
[[peer]]
name = "tor"
address = "192.0.2.2"
asn = 65100
local_address = "192.0.2.1"
bfd = { multiplier = 5 }
"""
BIRD = f"""
router id 192.0.2.2;
protocol device {{ }}
protocol static {{ ipv4; route {LEARNED} blackhole; }}
protocol bfd {{ interface "*" {{ min rx interval 300 ms; min tx interval 300 ms; multiplier 5; }}; }}
protocol bgp b {{
  local 192.0.2.2 as 65100; neighbor 192.0.2.1 as 65001; hold time 90; bfd on; connect retry time 1; error wait time 1, 2;
  ipv4 {{ import all; export where source = RTS_STATIC; }};
}}
"""


class Router(Namespace):
    """A BIRD at the far end of the host's wire."""

    def __init__(self, host: Host, folder: Path) -> None:
        super().__init__(f"bgpd-t{os.getpid()}-r")
        host.netns.ip("link", "set", "up1", "netns", self.name)
        self.ip("address", "add", "192.0.2.2/24", "dev", "up1")
        self.ip("link", "set", "up1", "up")
        file = folder / "bird.conf"
        file.write_text(BIRD)
        self.control = folder / "bird.ctl"
        self.bird = self.start("bird", "-f", "-c", str(file), "-s", str(self.control))

    def close(self) -> None:
        self.bird.terminate()
        self.bird.wait(10)
        assert self.bird.stdout is not None
        self.bird.stdout.close()
        super().close()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Host, Router]]:
    host = Host("a", tmp_path, "node1", "10.0.0.1")
    try:
        with Router(host, tmp_path) as router:
            host.config.write_text(host.config.read_text() + PEER)
            host.start()
            yield host, router
    finally:
        host.close()


def bfd(host: Host) -> str:
    peers = host.ask("peers")
    return str(peers[0]["bfd"]["state"]) if isinstance(peers, list) and peers[0]["bfd"] else ""


def learned(host: Host) -> bool:
    return any(route.startswith(LEARNED) for route in host.routes())


def test_a_silently_cut_router_carries_nothing_within_the_detection_time(pair: tuple[Host, Router]) -> None:
    """All packets dropped with the link up: the route leaves the kernel long before the hold time, and is back with the path."""
    host, router = pair
    wait(lambda: host.ready() and learned(host) and bfd(host) == "up", host)
    router.execute("nft", "add table inet cut")
    for hook in ("input", "output"):
        router.execute("nft", f"add chain inet cut {hook} {{ type filter hook {hook} priority 0; policy drop; }}")
    cut = time.monotonic()
    wait(lambda: not learned(host), host)
    assert time.monotonic() - cut < 20  # the hold time is 90 s
    wait(lambda: bfd(host) == "down", host)
    router.execute("nft", "delete table inet cut")
    wait(lambda: learned(host) and bfd(host) == "up", host)


def test_a_killed_daemon_keeps_bfd_up(pair: tuple[Host, Router]) -> None:
    """kill -9 and a new daemon: the router sees neither its BFD nor its BGP session go."""
    host, router = pair
    wait(lambda: host.ready() and bfd(host) == "up", host)

    def since() -> list[list[str]]:
        """The session's row without the time that passes: address, interface, state, since."""
        rows = router.execute("birdc", "-s", str(router.control), "show", "bfd", "sessions").splitlines()
        return [row.split()[:4] for row in rows if row.startswith("192.0.2.1 ")]

    before = since()
    host.end(signal.SIGKILL)
    host.start()
    wait(lambda: host.ready() and bfd(host) == "up", host)
    assert [row[2] for row in before] == ["Up"]
    assert before == since()
