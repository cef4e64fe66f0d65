"""etcd away from a running topology: three daemons, a ToR (BIRD) and the store (etcd), each in a namespace of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import pytest

from bgpd.sim.namespace import Namespace
from tests.adapters.store.etcd_server import Etcd
from tests.netns.asking import asked

pytestmark = [pytest.mark.lab, pytest.mark.timeout(400)]

OUTAGE_S = float(os.environ.get("STORE_OUTAGE_S", "8"))
"""Longer than OPERATION_S and WATCH_LOST_S, so that all wait and none looks; by hand with 60."""
BACK_S = float(os.environ.get("STORE_BACK_S", "5"))
"""From the store's return to new blocks in every kernel: below 1 on a machine that does nothing else."""
DEADLINE_S = 60.0
STORE = "10.9.9.9"
RETURN = Path(__file__).with_name("store_return.py")
NODES = ("node1", "node2", "node3")
BLOCK_ADDRESSES = 4

CONFIG = """
[node]
name = "{name}"
address = "10.0.0.{number}/32"
asn = 6500{number}

[store]
url = "etcd://{store}"

[pool]
cidr = "10.65.0.0/16"
block_size = 30

[[peer]]
name = "tor"
address = "10.1.{number}.0"
asn = 65100
local_address = "10.1.{number}.1"
hold_time_s = 9

[startup]
peers_learned_ceiling_s = 20

[speaker]
runtime_dir = "{folder}/speaker"

[api]
socket = "{folder}/bgpd.sock"

[log]
format = "json"
"""

BIRD = """
router id 10.0.0.100;
timeformat protocol iso long ms;
protocol device {{ }}
protocol kernel {{ merge paths yes; graceful restart yes; ipv4 {{ import none; export where source = RTS_BGP; }}; }}
template bgp node {{
  local as 65100; hold time 9; connect delay time 1; connect retry time 2; error wait time 1, 4;
  graceful restart yes; graceful restart time 120;
  ipv4 {{ import all; export where source = RTS_BGP; }};
}}
{sessions}
"""


class Machine:
    """A namespace, and what the kernel says of routes and nexthops in it."""

    def __init__(self, label: str, folder: Path) -> None:
        self.netns = Namespace(f"bgpd-o{os.getpid()}-{label}")
        self.folder = folder / label
        self.folder.mkdir()
        self.monitor: subprocess.Popen[bytes] | None = None

    def watch(self) -> None:
        """Write down every change of a route or nexthop from now on."""
        with (self.folder / "monitor").open("wb") as out:
            command = ["ip", "netns", "exec", self.netns.name, "ip", "-ts", "monitor", "route", "nexthop"]
            self.monitor = subprocess.Popen(command, stdout=out)

    def changes(self) -> list[str]:
        return (self.folder / "monitor").read_text().splitlines()

    def seen(self, address: str) -> float | None:
        """When the kernel got a route to the block of *address* (epoch seconds)."""
        block = re.escape(address.rpartition(".")[0]) + r"\.\d+/30"
        for line in self.changes():
            if re.search(block, line) and "Deleted" not in line:
                return datetime.fromisoformat(line[1 : line.index("]")]).timestamp()
        return None

    def close(self) -> None:
        if self.monitor is not None:
            self.monitor.kill()
            self.monitor.wait()
        self.netns.kill_all()
        self.netns.close()


class Node(Machine):
    """A host with a daemon on it."""

    def __init__(self, number: int, folder: Path, tor: Machine) -> None:
        super().__init__(f"n{number}", folder)
        self.name = f"node{number}"
        self.socket = self.folder / "bgpd.sock"
        self.log = self.folder / "log"
        self.number = number
        self.process: subprocess.Popen[bytes] | None = None
        ours, theirs = f"10.1.{number}.1", f"10.1.{number}.0"
        port = f"to{number}"
        tor.netns.ip("link", "add", port, "type", "veth", "peer", "name", "up0", "netns", self.netns.name)
        tor.netns.ip("address", "add", f"{theirs}/31", "dev", port)
        tor.netns.ip("link", "set", port, "up")
        tor.netns.ip("route", "add", f"10.0.0.{number}/32", "via", ours)
        self.netns.ip("address", "add", f"{ours}/31", "dev", "up0")
        self.netns.ip("address", "add", f"10.0.0.{number}/32", "dev", "lo")
        self.netns.ip("link", "set", "up0", "up")
        self.netns.ip("route", "add", "default", "via", theirs, "src", f"10.0.0.{number}")

    def configure(self, store: str) -> None:
        text = CONFIG.format(name=self.name, number=self.number, store=store, folder=self.folder)
        (self.folder / "bgpd.toml").write_text(text)

    def start(self) -> None:
        command = ["ip", "netns", "exec", self.netns.name, sys.executable, "-m", "bgpd.cli.main", "run"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([*command, "--config", str(self.folder / "bgpd.toml")], stderr=log)

    def end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)

    def ask(self, *command: str) -> Any:
        """The JSON answer of a reading command; None while the daemon does not answer."""
        return asked(self.socket, *command, deadline_s=DEADLINE_S)

    def ready(self) -> bool:
        status = self.ask("status")
        return status is not None and status["phase"]["name"] == "ready" and status["peers_established"] == 1

    def close(self) -> None:
        super().close()
        if self.process is not None:
            self.process.wait(DEADLINE_S)

    def store(self) -> str:
        status = self.ask("status")
        return str(status["store"]) if status is not None else ""


class Topology:
    """Owns the namespaces, BIRD and etcd."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.machines: list[Machine] = []

    def __enter__(self) -> Self:
        self.tor = Machine("tor", self.folder)
        self.machines.append(self.tor)
        self.tor.netns.ip("address", "add", f"{STORE}/32", "dev", "lo")
        self.tor.netns.execute("sysctl", "-qw", "net.ipv4.ip_forward=1")
        self.nodes = []
        for number in range(1, len(NODES) + 1):
            self.nodes.append(Node(number, self.folder, self.tor))
            self.machines.append(self.nodes[-1])
        sessions = "\n".join(
            f"protocol bgp {node.name} from node {{ neighbor 10.1.{node.number}.1 as 6500{node.number}; }}"
            for node in self.nodes
        )
        (self.folder / "bird.conf").write_text(BIRD.format(sessions=sessions))
        self.bird = self.tor.netns.start(
            "bird", "-f", "-c", str(self.folder / "bird.conf"), "-s", str(self.folder / "bird.ctl")
        )
        self.etcd = Etcd(within=("ip", "netns", "exec", self.tor.netns.name), host=STORE).__enter__()
        for node in self.nodes:
            node.configure(self.etcd.members[0].address)
        return self

    def __exit__(self, *_: object) -> None:
        self.etcd.__exit__()
        for machine in self.machines:
            machine.close()
        self.bird.wait(10)
        assert self.bird.stdout is not None
        self.bird.stdout.close()

    def sessions(self) -> dict[str, str]:
        """Since when each session is as it is, as the ToR sees it."""
        answer = self.tor.netns.execute("birdc", "-s", str(self.folder / "bird.ctl"), "show", "protocols")
        fields = [line.split() for line in answer.splitlines() if " BGP " in line]
        return {field[0]: " ".join(field[3:]) for field in fields}

    def helper(self, handle: str, *nodes: str) -> subprocess.Popen[str]:
        """Start a process that waits for the store, then has *nodes* assign an address each; its lines say when."""
        address = self.etcd.members[0].address
        made = self.tor.netns.start(sys.executable, str(RETURN), address, handle, *nodes)
        assert made.stdout is not None
        assert "waiting\n" == made.stdout.readline()
        return made

    def fill(self) -> None:
        """Use up the nodes' blocks, so that the next address takes a new one."""
        for number in range(BLOCK_ADDRESSES):
            with self.helper(f"fill{number}", *NODES) as filling:
                assert filling.stdout is not None
                filling.stdout.read()
                assert 0 == filling.wait(DEADLINE_S)

    def logs(self) -> str:
        return "\n".join(f"{node.name}: {node.log.read_text()[-3000:]}" for node in self.nodes)


@pytest.fixture
def topology(tmp_path: Path) -> Iterator[Topology]:
    made = Topology(tmp_path)
    try:
        yield made.__enter__()
    finally:
        made.__exit__()


def wait(condition: Callable[[], bool], topology: Topology, what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what}\n{topology.logs()}"
        time.sleep(0.05)


def routes(machine: Machine) -> list[str]:
    return sorted(json.dumps(route, sort_keys=True) for route in machine.netns.ip_json("route"))


def forwarding(found: list[str]) -> set[str]:
    """Routes without the numbers of their groups."""
    return {re.sub(r' "nhid": \d+,', "", route) for route in found}


def blocks(machine: Machine) -> int:
    return sum("/30" in route or "blackhole" in route for route in routes(machine))


def test_an_outage_of_the_store_changes_nothing_and_its_return_is_noticed_at_once(topology: Topology) -> None:
    """While etcd is away and one daemon is killed and another one stopped in order, each started again: no route and no
    nexthop changes anywhere, no session of a running speaker resets, `bgpd status` says so; new blocks follow its return."""
    first, second, third = topology.nodes
    for node in topology.nodes:
        node.start()
    wait(lambda: all(node.ready() for node in topology.nodes), topology, "ready")
    topology.fill()
    wait(lambda: all(blocks(machine) == 3 for machine in topology.machines), topology, "three blocks everywhere")
    wait(
        lambda: all(not m.netns.ip_json("-6", "address", "show", "tentative") for m in topology.machines), topology, ""
    )
    before = {machine: routes(machine) for machine in topology.machines}
    sessions = topology.sessions()
    assert set(NODES) == {name for name, state in sessions.items() if "Established" in state}
    for machine in topology.machines:
        machine.watch()

    began = time.monotonic()
    topology.etcd.members[0].end(signal.SIGTERM)
    wait(lambda: all(node.store().startswith("lost: ") for node in topology.nodes), topology, "status tells")
    second.end(signal.SIGKILL)
    assert 0 == third.end(signal.SIGTERM)
    for node in (second, third):
        node.start()
    for node in (second, third):
        wait(lambda node=node: node.store().startswith("lost: "), topology, "a daemon that was started again tells")
        status = node.ask("status")
        assert ("store-wait", ["store"]) == (status["phase"]["name"], status["phase"]["waiting_for"])
        wait(lambda node=node: node.ask("status")["peers_established"] == 1, topology, "its session")
    time.sleep(max(0.0, began + OUTAGE_S - time.monotonic()))

    for machine in topology.machines:
        assert [] == machine.changes(), topology.logs()
        assert before[machine] == routes(machine)
    after = topology.sessions()
    assert {name: sessions[name] for name in ("node1", "node2")} == {name: after[name] for name in ("node1", "node2")}
    assert 1 == first.ask("peers")[0]["transitions"]

    with topology.helper("new", "node1", "node2") as helper:
        topology.etcd.members[0].start()
        assert helper.stdout is not None
        returned = float(helper.stdout.readline())
        told = [line.split() for line in helper.stdout]
    assert ["node1", "node2"] == [name for name, _, _ in told], told
    for name, address, at in told:
        wait(lambda address=address: all(m.seen(address) for m in topology.machines), topology, f"{name}'s new block")
        spent = {machine.netns.name: (machine.seen(address) or 0.0) - returned for machine in topology.machines}
        print(f"{name}: written {float(at) - returned:.3f} s after the return; in each kernel after", end=" ")
        print(", ".join(f"{seconds:.3f}" for seconds in spent.values()), "s")
        assert max(spent.values()) < BACK_S, spent

    wait(lambda: all(node.store() == "synced" and node.ready() for node in topology.nodes), topology, "synced")
    for machine in topology.machines:
        # The numbers of nexthop groups may be others where a node has a block more.
        assert forwarding(before[machine]) <= forwarding(routes(machine)), (machine.changes(), topology.logs())
        assert [] == [line for line in machine.changes() if "Deleted" in line and "/30" in line]
    after = topology.sessions()
    assert {name: sessions[name] for name in ("node1", "node2")} == {name: after[name] for name in ("node1", "node2")}
