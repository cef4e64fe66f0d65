"""The daemon as a process, on a real kernel: start, restart, refusal, exit. Its routers are in test_exabgp_*.py and the lab."""

from __future__ import annotations

import hashlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bgpd.api.client import ApiError, Client
from bgpd.api.protocol import Refused
from bgpd.model.event import Configured, Converged
from bgpd.sim.namespace import Namespace
from bgpd.sim.replay import read, replay
from tests.netns.asking import asked
from tests.vm.patience import PATIENCE

pytestmark = pytest.mark.netns

DEADLINE_S = 30.0 * PATIENCE

CONFIG = """
[node]
name = "{name}"
address = "{address}/32"
asn = 65001

[store]
url = "sqlite:///{folder}/store.db"

[pool]
cidr = "10.65.0.0/16"

[speaker]
runtime_dir = "{folder}/{label}/speaker"

[api]
socket = "{folder}/{label}/bgpd.sock"

[log]
format = "json"
"""


class Host:
    """A namespace with a default route of somebody else's, and a daemon to start and kill in it."""

    def __init__(self, label: str, folder: Path, name: str, address: str) -> None:
        self.netns = Namespace(f"bgpd-t{os.getpid()}-{label}")
        self.netns.ip("link", "add", "up0", "type", "veth", "peer", "name", "up1")
        for command in ("link set up0 up", "link set up1 up", "address add 192.0.2.1/24 dev up0"):
            self.netns.ip(*command.split())
        self.netns.ip("route", "add", "default", "via", "192.0.2.254")
        self.folder = folder / label
        self.folder.mkdir()
        self.socket = self.folder / "bgpd.sock"
        self.config = self.folder / "bgpd.toml"
        self.config.write_text(CONFIG.format(name=name, address=address, folder=folder, label=label))
        self.log = self.folder / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        """Start the daemon in the namespace."""
        command = ["ip", "netns", "exec", self.netns.name, sys.executable, "-m", "bgpd.cli.main", "run"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([*command, "--config", str(self.config), *options], stderr=log)

    def ask(self, *command: str) -> object:
        """Run a reading command; its JSON, or None while the daemon cannot be reached."""
        answer: object = asked(self.socket, *command, deadline_s=DEADLINE_S)
        return answer

    def ready(self) -> bool:
        """Ask without a process for it: an emulated machine has no time to waste."""
        try:
            return Client(self.socket).status().phase.name == "ready"
        except (ApiError, Refused):
            return False

    def end(self, number: signal.Signals) -> int:
        """Send a signal and return the exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)

    def routes(self) -> list[str]:
        return sorted(
            f"{r['dst']} {r.get('type', 'unicast')} {r.get('protocol', 'boot')}" for r in self.netns.ip_json("route")
        )

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.end(signal.SIGKILL)
        self.netns.kill_all()
        self.netns.close()


def wait(condition: Callable[[], bool], host: Host) -> None:
    """Poll until *condition* holds; fail with the daemon's log."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, host.log.read_text()
        time.sleep(0.05 if PATIENCE == 1 else 0.5)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Callable[..., Host]]:
    made: list[Host] = []

    def make(label: str, name: str = "node1", address: str = "10.0.0.1") -> Host:
        made.append(Host(label, tmp_path, name, address))
        return made[-1]

    yield make
    for host in made:
        host.close()


@pytest.mark.vm
def test_daemon_claims_its_block_and_leaves_the_kernel_alone_when_it_ends(hosts: Callable[..., Host]) -> None:
    """Its block is a blackhole of ours; a default route of another's survives; SIGTERM exits 0 and removes nothing."""
    host = hosts("a")
    before = host.routes()
    host.start()
    wait(host.ready, host)
    running = host.routes()

    assert 0 == host.end(signal.SIGTERM)

    ours = [route for route in running if route not in before]
    assert 1 == len(ours)
    assert ours[0].startswith("10.65.")
    assert "blackhole" in ours[0]
    assert sorted([*before, *ours]) == running == host.routes()


@pytest.mark.vm
def test_kill_and_restart_writes_nothing(hosts: Callable[..., Host]) -> None:
    """After kill -9 the next daemon finds all as it should be: the kernel sees no route, nexthop, link or neighbour change."""
    host = hosts("a")
    host.start()
    wait(host.ready, host)
    # The kernel's own address detection on new links is no doing of ours: let it end first.
    wait(lambda: not host.netns.ip_json("-6", "address", "show", "tentative"), host)
    assert -signal.SIGKILL == host.end(signal.SIGKILL)

    with host.netns.start("ip", "monitor", "route", "nexthop", "link", "neigh") as monitor:
        try:
            host.start()
            wait(host.ready, host)
            assert monitor.stdout is not None
            heard, _, _ = select.select([monitor.stdout], [], [], 1.0)
            assert [] == heard, monitor.stdout.readline()
        finally:
            monitor.kill()


def test_second_daemon_of_a_living_node_is_refused(hosts: Callable[..., Host]) -> None:
    """A name whose lease another living daemon holds is not taken over: one sentence, exit status 2."""
    first, second = hosts("a"), hosts("b")
    first.start()
    wait(first.ready, first)

    second.start()
    assert second.process is not None
    assert 2 == second.process.wait(DEADLINE_S)

    refused = [json.loads(line) for line in second.log.read_text().splitlines() if "daemon.refused" in line]
    assert 1 == len(refused)
    assert "node name 'node1' is held by process" in refused[0]["reason"]
    assert first.ready()


def test_nodes_of_one_store_take_different_blocks_and_see_each_other(hosts: Callable[..., Host]) -> None:
    """Two daemons on one SQLite file own a block each; without BGP the other's falls back, since a default route leads to it."""
    first, second = hosts("a"), hosts("b", "node2", "10.0.0.2")
    for host in (first, second):
        host.start()

    def both_known() -> bool:
        routes = first.ask("routes")
        return isinstance(routes, list) and {"own", "fallback"} == {route["kind"] for route in routes}

    wait(both_known, first)
    routes = first.ask("routes")
    assert isinstance(routes, list)
    assert 2 == len({route["prefix"] for route in routes})
    (other,) = (route for route in routes if route["kind"] == "fallback")
    assert "node2" == other["node"]
    assert "no BGP peer announces it" in other["reason"]
    wait(lambda: f"{other['prefix']} unicast 179" in first.routes(), first)


def test_recording_of_a_live_daemon_replays_to_its_tables(hosts: Callable[..., Host], tmp_path: Path) -> None:
    """``run --record`` holds all that the core was told: replaying it desires the routes that the kernel has."""
    host = hosts("a")
    recording = tmp_path / "events.jsonl"
    host.start("--record", str(recording))
    wait(host.ready, host)
    routes = host.ask("routes")
    assert 0 == host.end(signal.SIGTERM)

    pipeline = replay(recording)

    events = [item.event for item in read(recording)]
    assert isinstance(events[0], Configured)
    assert any(isinstance(event, Converged) for event in events)
    assert isinstance(routes, list)
    assert [route["prefix"] for route in routes] == [str(prefix) for prefix in sorted(pipeline.forwarder.reached)]


def test_node_address_is_found_at_start(hosts: Callable[..., Host]) -> None:
    """A method instead of an address is carried out at start; one that fits nothing ends the daemon with its reason, status 2."""
    found, lost = hosts("a"), hosts("b", "node2")
    found.config.write_text(found.config.read_text().replace('"10.0.0.1/32"', '"first-found"'))
    lost.config.write_text(lost.config.read_text().replace('"10.0.0.1/32"', '"cidr=203.0.113.0/24"'))

    found.start()
    lost.start()

    wait(found.ready, found)
    status = found.ask("status")
    assert isinstance(status, dict)
    assert "192.0.2.1" == status["router_id"]
    assert lost.process is not None
    assert 2 == lost.process.wait(DEADLINE_S)
    assert "no address of this host fits cidr=203.0.113.0/24; it has 192.0.2.1/24 on up0" in lost.log.read_text()


def test_daemon_registers_its_node_beside_what_others_keep_there(hosts: Callable[..., Host]) -> None:
    """At start its Node has the found address with its subnet's length, AS number, VTEP MAC and configured labels; others' stay."""
    host = hosts("a")
    text = host.config.read_text().replace('"10.0.0.1/32"', '"interface=up.*"')
    host.config.write_text(text.replace("asn = 65001", "asn = 65001\nlabels = { gpu = true, rack = 7 }"))
    store = ("--store", f"sqlite://{host.folder.parent}/store.db")
    bgpd = [sys.executable, "-m", "bgpd.cli.main"]
    spec = "{bgp: {ipv4Address: 10.9.9.9/32, routeReflectorClusterID: 244.0.0.1}, x: [1]}"
    theirs = f"metadata: {{name: node1, labels: {{site: a}}}}\nspec: {spec}\n"
    node = f"apiVersion: projectcalico.org/v3\nkind: Node\n{theirs}"
    subprocess.run([*bgpd, "apply", "-f", "-", *store], input=node, text=True, check=True, capture_output=True)

    host.start()
    wait(host.ready, host)

    shown = subprocess.run(
        [*bgpd, "get", "node", "node1", "-o", "json", *store], capture_output=True, check=True
    ).stdout
    found = json.loads(shown)
    assert {"gpu": "true", "rack": "7", "site": "a"} == found["metadata"]["labels"]
    bgp = {"asNumber": 65001, "ipv4Address": "192.0.2.1/24", "routeReflectorClusterID": "244.0.0.1"}
    # The first five bytes of the name's SHA-1, as Calico makes the address of a VXLAN device.
    mac = "66:" + ":".join(f"{octet:02x}" for octet in hashlib.sha1(b"node1").digest()[:5])
    assert (bgp, [1], mac) == (found["spec"]["bgp"], found["spec"]["x"], found["spec"]["vxlanTunnelMACAddr"])


def test_bad_configuration_starts_nothing(hosts: Callable[..., Host]) -> None:
    """An unknown key and a bad CIDR are both named with file, path and rule; exit status 2; no socket, no store, no route."""
    host = hosts("a")
    before = host.routes()
    text = host.config.read_text().replace('cidr = "10.65.0.0/16"', 'cidr = "10.65.0.1/16"\nblocksize = 26')
    host.config.write_text(text)

    host.start()
    assert host.process is not None
    assert 2 == host.process.wait(DEADLINE_S)

    told = host.log.read_text()
    assert str(host.config) in told
    assert "pool.cidr" in told
    assert "pool.blocksize" in told
    assert not host.socket.exists()
    assert not (host.folder.parent / "store.db").exists()
    assert before == host.routes()
