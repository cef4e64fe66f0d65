"""BFD with a BIRD and an FRR while a storm of routes goes through the daemon, and packets are lost on both wires."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bgpd.sim.namespace import Namespace
from tests.netns.test_daemon import Host, wait

pytestmark = [pytest.mark.netns, pytest.mark.alone, pytest.mark.timeout(900)]

INTERVAL_MS = int(os.environ.get("BFD_MS", "1000"))
"""100 is what a router is to keep; a machine that tests run on beside other work starves the routers' own BFD then."""
SECONDS = float(os.environ.get("BFD_S", "5"))
CHANGES = int(os.environ.get("BFD_CHANGES", "8000"))
"""Routes announced and withdrawn, at least."""
ROUTES = int(os.environ.get("BFD_ROUTES", "2000"))
LOST_PERCENT = 1
PEERS = f"""
[[peer]]
name = "bird"
address = "192.0.2.2"
asn = 65100
local_address = "192.0.2.1"
bfd = {{ min_tx_ms = {INTERVAL_MS}, min_rx_ms = {INTERVAL_MS}, multiplier = 3 }}

[[peer]]
name = "frr"
address = "198.51.100.2"
asn = 65101
local_address = "198.51.100.1"
bfd = {{ min_tx_ms = {INTERVAL_MS}, min_rx_ms = {INTERVAL_MS}, multiplier = 3 }}
"""
BIRD = f"""
router id 192.0.2.2;
protocol device {{ }}
protocol bfd {{ interface "*" {{ min rx interval {INTERVAL_MS} ms; min tx interval {INTERVAL_MS} ms; multiplier 3; }}; }}
protocol static load {{ disabled; ipv4;
  include "routes.conf";
}}
protocol bgp b {{
  local 192.0.2.2 as 65100; neighbor 192.0.2.1 as 65001; hold time 90; bfd on; connect retry time 1; error wait time 1, 2;
  ipv4 {{ import all; export where source = RTS_STATIC; }};
}}
"""
FRR = f"""
hostname tor
bfd
 profile fast
  receive-interval {INTERVAL_MS}
  transmit-interval {INTERVAL_MS}
  detect-multiplier 3
router bgp 65101
 bgp router-id 198.51.100.2
 no bgp ebgp-requires-policy
 no bgp network import-check
 neighbor 198.51.100.1 remote-as 65001
 neighbor 198.51.100.1 timers 30 90
 neighbor 198.51.100.1 timers connect 1
 neighbor 198.51.100.1 bfd
 neighbor 198.51.100.1 bfd profile fast
 address-family ipv4 unicast
  network 203.0.113.0/24
"""


class Router:
    """A namespace at the far end of a wire of the host; owns its processes."""

    def __init__(self, host: Host, label: str, device: str, address: str) -> None:
        self.netns = Namespace(f"bgpd-t{os.getpid()}-{label}")
        self.folder = Path(tempfile.mkdtemp(prefix=f"bgpd-{label}-"))  # FRR's user cannot pass pytest's folders
        self.folder.chmod(0o755)
        self.running: list[subprocess.Popen[str]] = []
        host.netns.ip("link", "set", device, "netns", self.netns.name)
        self.netns.ip("address", "add", f"{address}/24", "dev", device)
        self.netns.ip("link", "set", device, "up")

    def lose(self) -> None:
        """Lose some BFD packets in each direction."""
        self.netns.execute("nft", "add table inet lossy")
        for hook in ("input", "output"):
            self.netns.execute("nft", f"add chain inet lossy {hook} {{ type filter hook {hook} priority 0; }}")
            for what in ("counter", f"numgen random mod 100 < {LOST_PERCENT} counter drop"):
                self.netns.execute("nft", f"add rule inet lossy {hook} udp dport 3784 {what}")

    def lost(self) -> tuple[int, int]:
        """Count the BFD packets, and those that were lost."""
        listed = json.loads(self.netns.execute("nft", "-j", "list", "table", "inet", "lossy"))["nftables"]
        rules = [one["rule"]["expr"] for one in listed if "rule" in one]
        counts = [next(part["counter"]["packets"] for part in rule if "counter" in part) for rule in rules]
        return sum(counts[::2]), sum(counts[1::2])

    def start(self, *command: str) -> None:
        """Start a router's process with real-time priority: a router's BFD has no machine's other work beside it."""
        self.running.append(self.netns.start("chrt", "--rr", "1", *command))

    def close(self) -> None:
        for process in self.running:
            process.terminate()
            process.wait(10)
            assert process.stdout is not None
            process.stdout.close()
        self.netns.close()
        shutil.rmtree(self.folder)


class Bird(Router):
    """A BIRD with routes to announce and to withdraw all at once."""

    def begin(self) -> None:
        hop = "route {}.{}.{}.0/24 blackhole;"
        lines = [hop.format(20 + at // 65536, at // 256 % 256, at % 256) for at in range(ROUTES)]
        (self.folder / "routes.conf").write_text("\n".join(lines))
        (self.folder / "bird.conf").write_text(BIRD)
        self.start("bird", "-f", "-c", str(self.folder / "bird.conf"), "-s", str(self.folder / "ctl"))

    def tell(self, *words: str) -> str:
        return self.netns.execute("birdc", "-s", str(self.folder / "ctl"), *words)

    def session(self) -> list[str]:
        """Return address, interface, state and since of the session with us."""
        rows = [line.split() for line in self.tell("show", "bfd", "sessions").splitlines()]
        return next((row[:4] for row in rows if row and row[0] == "192.0.2.1"), [])


class Frr(Router):
    """An FRR, whose bfdd counts how often a session went down."""

    def begin(self) -> None:
        shutil.chown(self.folder, "frr", "frrvty")
        file = self.folder / "frr.conf"
        file.write_text(FRR)
        for daemon, more in (
            ("zebra", ()),
            ("bfdd", ("--bfdctl", str(self.folder / "bfdd.ctl"))),
            ("bgpd", ("-p", "179")),
        ):
            common = ("-f", str(file), "-i", str(self.folder / f"{daemon}.pid"), "-z", str(self.folder / "zserv.api"))
            self.start(f"/usr/lib/frr/{daemon}", *common, "-P", "0", "--vty_socket", str(self.folder), *more)
            deadline = time.monotonic() + 30
            while not (self.folder / f"{daemon}.vty").exists():
                assert time.monotonic() < deadline, daemon
                time.sleep(0.05)

    def downs(self) -> int:
        said = self.netns.execute(
            "vtysh", "--vty_socket", str(self.folder), "-d", "bfdd", "-c", "show bfd peers counters json"
        )
        return sum(one["session-down"] for one in json.loads(said))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[tuple[Host, Bird, Frr]]:
    host = Host("a", tmp_path, "node1", "10.0.0.1")
    routers: list[Router] = []
    try:
        host.netns.ip("link", "add", "up2", "type", "veth", "peer", "name", "up3")
        host.netns.ip("link", "set", "up2", "up")
        host.netns.ip("address", "add", "198.51.100.1/24", "dev", "up2")
        bird = Bird(host, "r", "up1", "192.0.2.2")
        routers.append(bird)
        frr = Frr(host, "f", "up3", "198.51.100.2")
        routers.append(frr)
        bird.begin()
        frr.begin()
        host.config.write_text(host.config.read_text() + PEERS)
        host.start()
        yield host, bird, frr
    finally:
        host.close()
        for router in routers:
            router.close()


def bfd(host: Host) -> dict[str, tuple[str, float]]:
    """Return the state of each peer's BFD and since when it is so."""
    peers = host.ask("peers")
    assert isinstance(peers, list)
    return {one["name"]: (one["bfd"]["state"], one["bfd"]["since"]) for one in peers if one["bfd"]}


def installed(host: Host) -> int:
    """Count the routes in the main table, cheaply."""
    lines = host.netns.execute("cat", "/proc/net/fib_triestat").splitlines()
    main = lines.index("Main:")
    return int(next(line for line in lines[main:] if "Prefixes:" in line).split()[1])


def until(holds: Callable[[], bool], host: Host) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline, host.log.read_text()[-4000:]
        time.sleep(0.05)


def test_a_storm_of_routes_on_lossy_wires_takes_no_session_down(world: tuple[Host, Bird, Frr]) -> None:
    """Routes come and go by thousands, and one BFD packet in a hundred is lost: neither end of either session sees a failure."""
    host, bird, frr = world
    wait(lambda: host.ready() and {state for state, _ in bfd(host).values()} == {"up"} and len(bfd(host)) == 2, host)
    before = (bfd(host), bird.session(), frr.downs())
    few = installed(host)
    for router in (bird, frr):
        router.lose()
    began, changes = time.monotonic(), 0
    while changes < CHANGES or time.monotonic() < began + SECONDS:
        bird.tell("enable", "load")
        until(lambda: installed(host) >= few + ROUTES, host)
        bird.tell("disable", "load")
        until(lambda: installed(host) <= few, host)
        changes += 2 * ROUTES

    took_s = time.monotonic() - began
    load = Path("/proc/loadavg").read_text().split()[0]
    seen, lost = map(sum, zip(bird.lost(), frr.lost(), strict=True))
    print(
        f"\n{changes} changes of routes in {took_s:.0f} s at {INTERVAL_MS} ms x 3, {lost} of {seen} BFD packets lost, load {load}"
    )
    assert seen
    now = (bfd(host), bird.session(), frr.downs())
    told = [line for line in host.log.read_text().splitlines() if '"bfd.' in line]
    assert before[1:] == now[1:], "\n".join(told)
    for name, (state, since) in before[0].items():
        assert state == now[0][name][0]
        assert abs(since - now[0][name][1]) < 0.5, "a new state would be seconds away; the clock is read twice"
