"""Two routers, two nodes with an uplink to each and a workload behind, an etcd, and a default route that nothing may leave by.

Addresses: 10.0.0.N/32 node N, 10.1.TN.0/31 the link of router T and node N (the router .0), 10.9.N.0/31 node N's link to the store.
Router 1 is preferred (router 2 prepends), so that all traffic goes one way, and what happens to that way is seen in full.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import msgspec

from bgpd.model.prefix import Address, Prefix
from tests.adapters.store.etcd_server import Etcd
from tests.lab.test_store_outage import STORE, Machine
from tests.netns.asking import asked

DEADLINE_S = 90.0
PUMP = Path(__file__).with_name("pump.py")
POOL = "10.65.0.0/16"
HOLD_S = 3
RESTORE_S = 2

CONFIG = """
[node]
name = "node{number}"
address = "10.0.0.{number}/32"
asn = 6500{number}

[store]
url = "etcd://{store}"

[pool]
cidr = "{pool}"

{peers}
[fallback]
kind = "VXLAN"
restore_after_s = {restore}

[startup]
peers_learned_ceiling_s = 20

[speaker]
runtime_dir = "{folder}/speaker"

[api]
socket = "{folder}/bgpd.sock"

[log]
format = "json"
"""
PEER = """
[[peer]]
name = "tor{tor}"
address = "10.1.{tor}{number}.0"
asn = 6510{tor}
local_address = "10.1.{tor}{number}.1"
hold_time_s = {hold}
graceful_restart_s = 0
{bfd}
"""
BIRD = """
router id 10.0.0.10{tor};
protocol device {{ }}
protocol direct {{ disabled; }}
protocol kernel {{ persist; ipv4 {{ import none; export where source = RTS_BGP; }}; }}
{bfd}
template bgp node {{
  local as 6510{tor}; hold time {hold}; connect delay time 0; connect retry time 1; error wait time 1, 2; {bfd_on}
  ipv4 {{ import all; export filter {{ if source = RTS_BGP then {{ {prepend} accept; }} reject; }}; }};
}}
protocol bgp node1 from node {{ neighbor 10.1.{tor}1.1 as 65001; }}
protocol bgp node2 from node {{ neighbor 10.1.{tor}2.1 as 65002; }}
"""


def join(one: tuple[Machine, str, str], other: tuple[Machine, str, str]) -> None:
    """Make a link between two machines, each with the name of its device and its address, if any."""
    (machine, device, _), (peer, name, _) = one, other
    machine.netns.ip("link", "add", device, "type", "veth", "peer", "name", name, "netns", peer.netns.name)
    for at, link, own in (one, other):
        if own:
            at.netns.ip("address", "add", own, "dev", link)
        at.netns.ip("link", "set", link, "up")


class Router(Machine):
    """A BIRD."""

    def __init__(self, number: int, folder: Path, bfd_ms: int) -> None:
        super().__init__(f"t{number}", folder)
        self.number = number
        timers = f"min rx interval {bfd_ms} ms; min tx interval {bfd_ms} ms; multiplier 3;"
        text = BIRD.format(
            tor=number,
            hold=HOLD_S,
            bfd=f'protocol bfd {{ interface "*" {{ {timers} }}; }}' if bfd_ms else "",
            bfd_on="bfd on;" if bfd_ms else "",
            prepend="bgp_path.prepend(65102); bgp_path.prepend(65102);" if number == 2 else "",
        )
        (self.folder / "bird.conf").write_text(text)
        self.bird: subprocess.Popen[str] | None = None

    def start(self) -> None:
        control = self.folder / "bird.ctl"
        control.unlink(missing_ok=True)
        self.bird = self.netns.start("bird", "-f", "-c", str(self.folder / "bird.conf"), "-s", str(control))

    def kill(self) -> None:
        """End BIRD as a crash does; the kernel forwards on."""
        assert self.bird is not None
        (pid,) = [one for one in self._pids() if Path(f"/proc/{one}/comm").read_text().strip() == "bird"]
        subprocess.run(["kill", "-9", str(pid)], check=True)
        self._reap()

    def told(self, *words: str) -> subprocess.Popen[str]:
        """Begin to tell BIRD; the caller waits for it."""
        return self.netns.start("birdc", "-s", str(self.folder / "bird.ctl"), *words)

    def tell(self, *words: str) -> str:
        return self.netns.execute("birdc", "-s", str(self.folder / "bird.ctl"), *words)

    def cut(self) -> None:
        """Drop whatever comes in, with every link up."""
        self.netns.execute("nft", "add table netdev cut")
        for name in ("to1", "to2"):
            hook = f"type filter hook ingress device {name} priority 0; policy drop;"
            self.netns.execute("nft", f"add chain netdev cut {name} {{ {hook} }}")

    def mend(self) -> None:
        self.netns.execute("nft", "delete table netdev cut")

    def close(self) -> None:
        super().close()
        if self.bird is not None:
            self._reap()

    def _pids(self) -> list[int]:
        return [
            int(pid) for pid in subprocess.check_output(["ip", "netns", "pids", self.netns.name], text=True).split()
        ]

    def _reap(self) -> None:
        assert self.bird is not None
        self.bird.wait(10)
        assert self.bird.stdout is not None
        self.bird.stdout.close()
        self.bird = None


class Node(Machine):
    """A daemon, and a workload behind it."""

    def __init__(self, number: int, folder: Path) -> None:
        super().__init__(f"n{number}", folder)
        self.number = number
        self.workload = Machine(f"w{number}", folder)
        self.log = self.folder / "log"
        self.address = ""
        self.process: subprocess.Popen[bytes] | None = None

    def configure(self, store: str, bfd_ms: int) -> None:
        bfd = f"bfd = {{ min_tx_ms = {bfd_ms}, min_rx_ms = {bfd_ms}, multiplier = 3 }}" if bfd_ms else ""
        peers = "".join(PEER.format(tor=tor, number=self.number, hold=HOLD_S, bfd=bfd) for tor in (1, 2))
        text = CONFIG.format(
            number=self.number, store=store, peers=peers, folder=self.folder, pool=POOL, restore=RESTORE_S
        )
        (self.folder / "bgpd.toml").write_text(text)

    def start(self) -> None:
        command = ["ip", "netns", "exec", self.netns.name, sys.executable, "-m", "bgpd.cli.main", "run"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([*command, "--config", str(self.folder / "bgpd.toml")], stderr=log)

    def kill(self) -> None:
        """End the daemon and its children, as the end of the machine does."""
        self.netns.kill_all()
        if self.process is not None:
            self.process.wait(DEADLINE_S)
            self.process = None

    def ask(self, *command: str) -> Any:
        """The JSON answer of a command; None while the daemon does not answer."""
        return asked(self.folder / "bgpd.sock", *command, deadline_s=DEADLINE_S)

    def attach(self) -> None:
        """Give the workload an address of the node's block, as Calico does: /32, and a gateway that the node answers ARP for."""
        given = self.ask("ipam", "assign", "--handle", f"w{self.number}")
        self.address = given["address"].partition("/")[0]
        inside = self.workload.netns
        inside.ip("address", "add", f"{self.address}/32", "dev", "eth0")
        inside.ip("route", "add", "169.254.1.1", "dev", "eth0", "scope", "link")
        inside.ip("route", "add", "default", "via", "169.254.1.1", "dev", "eth0")
        self.netns.execute("sysctl", "-qw", "net.ipv4.conf.wl.proxy_arp=1", "net.ipv4.neigh.wl.proxy_delay=0")
        self.netns.ip("route", "add", f"{self.address}/32", "dev", "wl", "scope", "link")

    def way(self, other: Node) -> tuple[str, str]:
        """How the other's workload is reached, and by which device."""
        block = Prefix.of(Address.parse(other.address), 26)
        routes = self.ask("routes") or []
        kind = next((route["kind"] for route in routes if route["prefix"] == str(block)), "none")
        found = self.netns.attempt("route", "get", other.address)
        return kind, self.netns.ip_json("route", "get", other.address)[0]["dev"] if found else "none"

    def close(self) -> None:
        self.workload.close()
        super().close()
        if self.process is not None:
            self.process.wait(DEADLINE_S)


class Loss(msgspec.Struct, frozen=True):
    """What was lost in one direction between two moments."""

    packets: int
    until_ms: float
    """From the first moment to the last packet that was lost; 0: none was."""


class Stream:
    """Packets between both workloads, a thousand a second each way."""

    def __init__(self, world: World) -> None:
        self._files = []
        self._pumps = []
        for here, there in (world.nodes, world.nodes[::-1]):
            file = here.folder / "pump"
            self._files.append(file)
            command = (sys.executable, str(PUMP), here.address, there.address, str(file))
            self._pumps.append(here.workload.netns.start(*command))
        self.sent: list[list[float]] = []
        self.received: list[set[int]] = []

    def end(self) -> None:
        for pump in self._pumps:
            pump.send_signal(signal.SIGTERM)
        for pump in self._pumps:
            assert pump.wait(DEADLINE_S) == 0
            assert pump.stdout is not None
            pump.stdout.close()
        for file in self._files:
            sent, received = file.read_text().splitlines()
            self.sent.append(json.loads(sent))
            self.received.append(set(json.loads(received)))
            file.unlink()

    def loss(self, direction: int, since: float, until: float) -> Loss:
        """Say what was lost of the packets that node 1's (0) or node 2's (1) workload sent in that time."""
        arrived = self.received[1 - direction]
        lost = [at for number, at in enumerate(self.sent[direction]) if since <= at < until and number not in arrived]
        return Loss(len(lost), round((lost[-1] - since) * 1e3, 1) if lost else 0.0)


class World:
    """Owns all machines, and the store."""

    def __init__(self, folder: Path, bfd_ms: int) -> None:
        self.folder = folder
        self.bfd_ms = bfd_ms
        self.machines: list[Machine] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as made:
            self._make(made)
            self._stack = made.pop_all()
        return self

    def _make(self, made: ExitStack) -> None:
        made.callback(self._close)
        self.outside = self._made(Machine("s", self.folder))
        self.outside.netns.ip("address", "add", f"{STORE}/32", "dev", "lo")
        self.routers = [self._made(Router(number, self.folder, self.bfd_ms)) for number in (1, 2)]
        self.nodes = [self._made(Node(number, self.folder)) for number in (1, 2)]
        for (
            router
        ) in self.routers:  # no check of sources: a router has no route to what it forwards for a neighbor that it lost
            router.netns.execute("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.fib_multipath_hash_policy=1")
            router.netns.execute("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0")
        for machine in self.nodes:
            sysctls = (
                "ip_forward=1",
                "conf.all.rp_filter=2",
                "conf.default.rp_filter=2",
                "fib_multipath_hash_policy=1",
            )
            more = ("conf.all.ignore_routes_with_linkdown=1", "conf.default.ignore_routes_with_linkdown=1")
            machine.netns.execute("sysctl", "-qw", *(f"net.ipv4.{one}" for one in (*sysctls, *more)))
        self._wire()
        self.etcd = Etcd(within=("ip", "netns", "exec", self.outside.netns.name), host=STORE)
        made.enter_context(self.etcd)
        for router in self.routers:
            router.start()
        for node in self.nodes:
            node.configure(self.etcd.members[0].address, self.bfd_ms)
            node.start()
        self.until(lambda: all(self._ready(node) for node in self.nodes), "ready")
        for node in self.nodes:
            node.attach()
        self.until(self.native, "native both ways")

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _close(self) -> None:
        for machine in reversed(self.machines):
            machine.close()

    def _made(self, machine: Any) -> Any:
        self.machines.append(machine)
        return machine

    def _wire(self) -> None:
        first, second = self.routers
        join((first, "tor", "10.1.0.0/31"), (second, "tor", "10.1.0.1/31"))
        for node in self.nodes:
            n = node.number
            for router in self.routers:
                t = router.number
                join((router, f"to{n}", f"10.1.{t}{n}.0/31"), (node, f"up{t}", f"10.1.{t}{n}.1/31"))
                router.netns.ip("route", "add", f"10.0.0.{n}/32", "via", f"10.1.{t}{n}.1")
                router.netns.ip("route", "add", f"10.0.0.{n}/32", "via", f"10.1.0.{2 - t}", "metric", "100")
            node.netns.ip("address", "add", f"10.0.0.{n}/32", "dev", "lo")
            hops = [word for t in (1, 2) for word in ("nexthop", "via", f"10.1.{t}{n}.0", "dev", f"up{t}")]
            node.netns.ip("route", "add", "10.0.0.0/24", "src", f"10.0.0.{n}", *hops)
            join((self.outside, f"to{n}", f"10.9.{n}.0/31"), (node, "mgmt", f"10.9.{n}.1/31"))
            node.netns.ip("route", "add", STORE, "via", f"10.9.{n}.0")
            node.netns.ip("route", "add", "default", "via", f"10.9.{n}.0")
            join((node, "wl", ""), (node.workload, "eth0", ""))
        self.outside.netns.execute("nft", "add table inet leak")
        self.outside.netns.execute("nft", "add chain inet leak out { type filter hook prerouting priority 0; }")
        self.outside.netns.execute("nft", f"add rule inet leak out ip daddr {POOL} counter")

    def _ready(self, node: Node) -> bool:
        status = node.ask("status")
        return status is not None and status["phase"]["name"] == "ready" and status["peers_established"] == 2

    def leaked(self) -> int:
        """Count the packets to workloads that left a node by its default route."""
        listed = json.loads(self.outside.netns.execute("nft", "-j", "list", "table", "inet", "leak"))["nftables"]
        rules = [one["rule"]["expr"] for one in listed if "rule" in one]
        return sum(part["counter"]["packets"] for rule in rules for part in rule if "counter" in part)

    def ways(self) -> list[tuple[str, str]]:
        first, second = self.nodes
        return [first.way(second), second.way(first)]

    def native(self) -> bool:
        """Whether both directions go by the preferred router."""
        return self.ways() == [("native", "up1"), ("native", "up1")]

    def until(self, holds: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not holds():
            logs = "\n".join(f"{node.number}: {node.log.read_text()[-3000:]}" for node in self.nodes)
            assert time.monotonic() < deadline, f"not {what}; {logs}"
            time.sleep(0.05)
