"""A node that reflects N routes to M clients, beside BIRD that does the same in the same run: from which size is BIRD better?

Run it by name: ``BENCH_REFLECT=1000x5,1000x20,10000x20 python -m pytest -s tests/bench/bench_reflect.py``. The clients are BIRDs, each in a
namespace; one of them announces the table once all sessions stand. CPU is that of the reflector's processes (ours: daemon, ExaBGP, shim)
until the last client has the last route; ours also writes the routes into the kernel, as a node does. Asserts only that everything arrived.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import pytest

from bgpd.model.prefix import Address, Prefix
from bgpd.sim.namespace import Namespace
from tests.bench.bench_bgp import Usage, tree
from tests.netns.test_reflector import PEER, REFLECTOR
from tests.netns.test_resources import CONFIGURATION, Cluster, plug

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

SIZES = [tuple(map(int, size.split("x"))) for size in os.environ.get("BENCH_REFLECT", "200x3").split(",")]
"""(routes, clients) of each measurement."""
DEADLINE_S = 300.0
FIRST = 101
"""Last byte of the first client's address; it announces the table."""

CLIENT = """
router id 10.55.0.{number};
protocol device {{ }}
protocol direct {{ ipv4; }}
protocol static table4 {{ disabled; ipv4; {routes} }}
protocol bgp reflector {{
  local 10.55.0.{number} as 64512; neighbor 10.55.0.1 as 64512; passive on;
  hold time 240; connect retry time 1; error wait time 1, 2;
  ipv4 {{ import all; export where source = RTS_STATIC; }};
}}
"""
BIRD = """
router id 10.55.0.1;
protocol device {{ }}
protocol direct {{ ipv4; }}
template bgp client_of_ours {{
  local 10.55.0.1 as 64512; rr client; hold time 240; connect retry time 1; connect delay time 1; error wait time 1, 2;
  ipv4 {{ import all; export all; }};
}}
{clients}
"""


class Measured(msgspec.Struct):
    cpu_s: float
    wall_s: float
    peak_mib: float


class Bird:
    """A BIRD in a namespace of the LAN."""

    def __init__(self, cluster: Cluster, number: int, config: str, netns: Namespace) -> None:
        self.control = cluster.folder / f"b{number}.ctl"
        file = cluster.folder / f"b{number}.conf"
        file.write_text(config)
        command = ["ip", "netns", "exec", netns.name, "bird", "-f", "-c", str(file), "-s", str(self.control)]
        self.process = subprocess.Popen(command)

    def birdc(self, *command: str) -> str:
        line = ["birdc", "-s", str(self.control), *command]
        return subprocess.run(line, capture_output=True, text=True, check=False).stdout

    def count(self) -> int:
        """Routes that it has."""
        found = re.search(r"(\d+) of \d+ routes", self.birdc("show", "route", "count"))
        return int(found[1]) if found is not None else 0

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(30)


@contextmanager
def clients(cluster: Cluster, routes: int, number: int) -> Iterator[list[Bird]]:
    base = Address.parse("11.0.0.0")
    table = "\n".join(f"route {Prefix.of(Address(base + 64 * at), 26)} blackhole;" for at in range(routes))
    with ExitStack() as stack:
        made = []
        for at in range(FIRST, FIRST + number):
            netns = Namespace(f"bgpd-b{os.getpid()}-c{at}")
            stack.callback(netns.close)
            plug(cluster.lan, netns, f"10.55.0.{at}")
            made.append(Bird(cluster, at, CLIENT.format(number=at, routes=table if at == FIRST else ""), netns))
            stack.callback(made[-1].close)
        yield made


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def measure(there: list[Bird], routes: int, pids: list[int]) -> Measured:
    """Have the first client announce the table; returns what it cost until the last client has it."""
    usage, began = Usage(pids), time.monotonic()
    there[0].birdc("enable", "table4")
    for one in there:
        until(lambda one=one: one.count() > routes, "the whole table")  # type: ignore[misc]
    return Measured(usage.cpu_s, time.monotonic() - began, usage.peak_mib)


def ours(folder: Path, routes: int, number: int) -> Measured:
    cluster = Cluster(folder)
    try:
        with clients(cluster, routes, number) as there:
            host = cluster.hosts[0]
            cluster.apply(CONFIGURATION.format(spec="{nodeToNodeMeshEnabled: false}"), REFLECTOR)
            cluster.apply(*(PEER.format(number=at) for at in range(FIRST, FIRST + number)))
            host.start()
            until(lambda: len(host.established()) == number, "sessions")
            assert host.process is not None
            exabgp = int((host.folder / "speaker" / "exabgp.pid").read_text())
            return measure(there, routes, [*tree(host.process.pid), *tree(exabgp)])
    finally:
        cluster.close()


def bird(folder: Path, routes: int, number: int) -> Measured:
    cluster = Cluster(folder)
    try:
        with clients(cluster, routes, number) as there:
            peers = "\n".join(
                f"protocol bgp c{at} from client_of_ours {{ neighbor 10.55.0.{at} as 64512; }}"
                for at in range(FIRST, FIRST + number)
            )
            reflector = Bird(cluster, 1, BIRD.format(clients=peers), cluster.hosts[0].netns)
            try:
                until(lambda: reflector.birdc("show", "protocols").count("Established") == number, "sessions")
                return measure(there, routes, [reflector.process.pid])
            finally:
                reflector.close()
    finally:
        cluster.close()


@pytest.mark.parametrize(("routes", "number"), SIZES, ids=[f"{routes}x{number}" for routes, number in SIZES])
def test_a_table_is_reflected(tmp_path: Path, routes: int, number: int) -> None:
    """Every client gets the whole table of one of them, by either reflector."""
    load = os.getloadavg()[0]
    print(f"\n{routes} routes to {number} clients, load {load:.1f}")
    for name, run in (("bgpd", ours), ("BIRD", bird)):
        folder = tmp_path / name
        folder.mkdir()
        found = run(folder, routes, number)
        print(
            f"{name:<6} CPU {found.cpu_s:8.2f} s  wall {found.wall_s:8.2f} s  peak {found.peak_mib:6.0f} MiB",
            flush=True,
        )
