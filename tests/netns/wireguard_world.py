"""Two nodes on a link, each with a daemon, a workload and a place of its own for the control socket of ``wireguard-go``; no routers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bgpd.model.prefix import Address, Prefix
from bgpd.sim.namespace import Namespace
from tests.netns.asking import asked

DEADLINE_S = 30.0
CONFIG = """
[node]
name = "{name}"
address = "192.0.2.{number}/24"
{more}
asn = 6500{number}

[store]
url = "sqlite:///{folder}/store.db"

[pool]
cidr = "10.65.0.0/16"

[fallback]
kind = "{kind}"

[speaker]
runtime_dir = "{folder}/{name}/speaker"

[api]
socket = "{folder}/{name}/bgpd.sock"

[state]
directory = "{folder}/{name}/state"

[log]
format = "json"
"""
_PLACE = 'mkdir -p /run/wireguard && mount -t tmpfs none /run/wireguard && exec "$@"'
"""Run a command with its own /run/wireguard: the control sockets of two nodes have the same name."""


def private(*command: str) -> list[str]:
    """Have *command* run where nobody else's control sockets are."""
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", _PLACE, "sh", *command]


def wireguard_go(space: Namespace) -> list[str]:
    """Return the process ids of ``wireguard-go`` in a namespace."""
    return [pid for pid in processes(space) if Path(f"/proc/{pid}/comm").read_text().strip() == "wireguard-go"]


def processes(space: Namespace) -> list[str]:
    """Return the process ids in a namespace."""
    line = ["ip", "netns", "pids", space.name]
    return subprocess.run(line, capture_output=True, text=True, check=True, timeout=DEADLINE_S).stdout.split()


class Node:
    """Owns a namespace with an uplink (up0, 192.0.2.N) and a workload (in a namespace of its own), and the daemon in it."""

    def __init__(self, number: int, folder: Path, *, kind: str, more: str = "") -> None:
        self.name, self.number = f"node{number}", number
        self.netns = Namespace(f"bgpdwg{os.getpid()}n{number}")
        self.workload = Namespace(f"bgpdwg{os.getpid()}w{number}")
        self.folder = folder / self.name
        self.folder.mkdir()
        self.config = self.folder / "bgpd.toml"
        self.config.write_text(
            CONFIG.format(name=self.name, number=number, folder=folder, kind=kind, more=more.format(number=number))
        )
        self.log = self.folder / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self.netns.execute(
            "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv4.conf.all.rp_filter=2"
        )

    def start(self) -> None:
        """Start the daemon."""
        daemon = [sys.executable, "-m", "bgpd.cli.main", "run", "--config", str(self.config)]
        running = wireguard_go(self.netns)
        command = ["nsenter", "-t", running[0], "-m", "-r", *daemon] if running else private(*daemon)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(["ip", "netns", "exec", self.netns.name, *command], stderr=log)

    def kill(self) -> None:
        """End the daemon with SIGKILL; what it started goes on."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(DEADLINE_S)

    def ask(self, *command: str) -> Any:
        """Run a command of the daemon's; its JSON, or None while it is refused."""
        return asked(self.folder / "bgpd.sock", *command, deadline_s=DEADLINE_S)

    def block(self, family: str = ".") -> str:
        """Return the node's own block of the family whose addresses have *family* in them; empty while it has none."""
        status = self.ask("status") or {"blocks_own": []}
        return next((block for block in status["blocks_own"] if family in block), "")

    def attach(self, address: str) -> None:
        """Give the workload *address*, and the node the route to it, as a CNI plugin does."""
        bits = 128 if ":" in address else 32
        gateway = "fe80::1" if ":" in address else "169.254.1.1"
        if not self.netns.attempt("link", "show", "cali0"):
            self.netns.ip("link", "add", "cali0", "type", "veth", "peer", "name", "eth0", "netns", self.workload.name)
            self.netns.ip("link", "set", "cali0", "up")
            self.workload.ip("link", "set", "eth0", "up")
            self.netns.ip("address", "add", "169.254.1.1/32", "dev", "cali0")
            self.netns.ip("address", "add", "fe80::1/64", "dev", "cali0", "nodad")
            self.workload.ip("route", "add", "169.254.1.1", "dev", "eth0")
        self.workload.ip("address", "add", f"{address}/{bits}", "dev", "eth0", *(["nodad"] if bits == 128 else []))
        if bits == 128:
            self.workload.ip("-6", "route", "replace", "default", "via", gateway, "dev", "eth0")
        elif not self.workload.attempt("route", "get", "192.0.2.99"):
            self.workload.ip("route", "replace", "default", "via", gateway, "dev", "eth0")
        self.netns.ip("route", "replace", f"{address}/{bits}", "dev", "cali0")

    def store(self, *command: str, given: str = "") -> str:
        """Run a command on the store; raises CalledProcessError where it is refused."""
        url = f"sqlite:///{self.folder.parent}/store.db"
        line = [sys.executable, "-m", "bgpd.cli.main", *command, "--store", url]
        return subprocess.run(line, input=given, capture_output=True, text=True, check=True, timeout=DEADLINE_S).stdout

    def counters(self, device: str) -> tuple[int, int]:
        """Return the packets that a device has received and sent."""
        (link,) = self.netns.ip_json("-s", "link", "show", "dev", device)
        return link["stats64"]["rx"]["packets"], link["stats64"]["tx"]["packets"]

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(DEADLINE_S)
        self.netns.kill_all()
        self.netns.close()
        self.workload.close()


class Pair:
    """Owns both nodes, on one link, and the addresses of their workloads."""

    def __init__(self, folder: Path, *, kind: str, subnet: bool, more: str = "") -> None:
        """*subnet*: each node sees the other in its own subnet, and reaches its blocks directly; else only their addresses."""
        self.nodes = (Node(1, folder, kind=kind, more=more), Node(2, folder, kind=kind, more=more))
        one, two = self.nodes
        one.netns.ip("link", "add", "up0", "type", "veth", "peer", "name", "up0", "netns", two.netns.name)
        for node in self.nodes:
            length = 24 if subnet else 32
            node.netns.ip("address", "add", f"192.0.2.{node.number}/{length}", "dev", "up0")
            node.netns.ip("link", "set", "up0", "up")
            node.netns.ip("address", "add", f"fd00::{node.number}/64", "dev", "up0", "nodad")
            if not subnet:
                node.netns.ip("route", "add", f"192.0.2.{3 - node.number}", "dev", "up0")
                text = node.config.read_text()
                node.config.write_text(text.replace(f"192.0.2.{node.number}/24", f"192.0.2.{node.number}/32"))
        self.addresses: list[str] = []

    def start(self) -> None:
        """Start the daemons, and let their workloads reach each other."""
        for node in self.nodes:
            node.start()
        for node in self.nodes:
            wait(node.block, *self.nodes)
            block = Prefix.parse(node.block())
            self.addresses.append(str(Address(block.network + 5)))
            node.attach(self.addresses[-1])
        wait(lambda: ping(self.nodes[0], self.addresses[1], "-c", "1"), *self.nodes)

    def close(self) -> None:
        for node in self.nodes:
            node.close()


TCP_BYTES = 3_000_000
_SINK = """
import socket
family = socket.AF_INET6 if ":" in "{address}" else socket.AF_INET
listener = socket.create_server(("{address}", 5000), family=family)
print("listens", flush=True)
stream, _ = listener.accept()
taken = 0
while part := stream.recv(65536):
    taken += len(part)
print(taken, flush=True)
"""
_SOURCE = """
import socket
with socket.create_connection(("{address}", 5000), timeout=20) as stream:
    stream.sendall(bytes({count}))
"""


def transfer(source: Node, sink: Node, address: str) -> int:
    """Send TCP_BYTES by TCP from one node's workload to the other's; returns how many arrived."""
    with sink.workload.start(sys.executable, "-c", _SINK.format(address=address)) as server:
        try:
            assert server.stdout is not None
            assert "listens" == server.stdout.readline().strip()
            source.workload.execute(sys.executable, "-c", _SOURCE.format(address=address, count=TCP_BYTES))
            return int(server.communicate(timeout=DEADLINE_S)[0])
        finally:
            server.kill()


def ping(node: Node, target: str, *options: str) -> bool:
    """Whether the node's workload gets two answers from *target*."""
    command = ["ip", "netns", "exec", node.workload.name, "ping", "-c", "2", "-i", "0.2", "-W", "5", *options, target]
    return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0


def wait(condition: Callable[[], object], *nodes: Node) -> None:
    """Poll until *condition* holds; fail with the daemons' logs."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "\n".join(node.log.read_text()[-3000:] for node in nodes)
        time.sleep(0.05)
