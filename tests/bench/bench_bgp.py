"""A table from BIRD into our adj-rib-in, beside BIRD and GoBGP that receive the same; and how fast a withdrawal is decided.

Run it by name: ``BENCH_BGP_ROUTES=100000 python -m pytest -s tests/bench/bench_bgp.py``. CPU is that of the receiver's processes
(ours: ExaBGP, its shim and the daemon's side) from the moment on at which the sender may send; memory is their peak, with what the
process needs anyway. Asserts only that everything arrived, never on time.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from msgspec.structs import replace

from bgpd.adapters.exabgp.process import Speaker, SpeakerOptions
from bgpd.core.pipeline import Pipeline
from bgpd.model import event as ev
from bgpd.model.node import Node
from bgpd.model.prefix import Address, Prefix
from tests.netns.exabgp_world import OURS, PEER, THEIRS, World, sh

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

ROUTES = int(os.environ.get("BENCH_BGP_ROUTES", "1000"))
SAMPLES = int(os.environ.get("BENCH_BGP_SAMPLES", "20"))
FULL = 10_000
"""From so many routes on, each number of attribute sets is measured: 1, a hundredth of them, one for each."""
DEADLINE_S = 300.0
TICKS = os.sysconf("SC_CLK_TCK")

BIRD = """
router id {id};
protocol device {{ }}
protocol direct {{ ipv4; }}
{more}
protocol bgp b {{
  {disabled} local {local} as {asn}; neighbor {remote} as {peer}; hold time 240; {passive}
  connect retry time 1; connect delay time 1; error wait time 1, 2;
  ipv4 {{ import {imports}; export {exports}; }};
}}
"""
GOBGP = f"""
[global.config]
  as = 65000
  router-id = "{OURS}"
  local-address-list = ["{OURS}"]
[[neighbors]]
  [neighbors.config]
    neighbor-address = "{THEIRS}"
    peer-as = 65001
  [neighbors.timers.config]
    connect-retry = 1
    hold-time = 240
  [neighbors.transport.config]
    passive-mode = true
"""


@pytest.fixture
def world() -> Iterator[World]:
    with World() as made:
        yield made


def _routes(count: int, sets: int) -> str:
    lines = (
        f"route {Prefix.of(Address(Address.parse('11.0.0.0') + 64 * number), 26)} blackhole "
        f"{{ bgp_community.add(({number % sets // 65536 + 1}, {number % sets % 65536})); }};"
        for number in range(count)
    )
    one = "protocol static one { ipv4; route 10.99.0.0/24 blackhole; }"
    return f"protocol static many {{ ipv4; {chr(10).join(lines)} }}\n{one}"


def _sender(world: World, sets: int, *, passive: bool) -> None:
    more = _routes(ROUTES, sets)
    world.bird(
        BIRD.format(
            id=THEIRS,
            local=THEIRS,
            asn=65001,
            remote=OURS,
            peer=65000,
            more=more,
            imports="none",
            disabled="disabled;",
            exports="where source = RTS_STATIC",
            passive="passive on;" if passive else "",
        )
    )


class Usage:
    """CPU seconds since the start, and peak memory, of some processes."""

    def __init__(self, pids: list[int]) -> None:
        self.pids = pids
        self.before = self._cpu()

    def _cpu(self) -> float:
        stats = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in self.pids)
        return sum(int(fields[11]) + int(fields[12]) for fields in stats) / TICKS

    @property
    def cpu_s(self) -> float:
        return self._cpu() - self.before

    @property
    def peak_mib(self) -> float:
        texts = (Path(f"/proc/{pid}/status").read_text() for pid in self.pids)
        return sum(int(text.partition("VmHWM:")[2].split()[0]) for text in texts) / 1024


def tree(pid: int) -> list[int]:
    """The processes below *pid*, and itself."""
    below = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [pid, *(each for child in below for each in tree(child))]


def _until(holds: Callable[[], bool], what: str, pause_s: float = 0.2) -> float:
    began = time.monotonic()
    while not holds():
        assert time.monotonic() < began + DEADLINE_S, what
        time.sleep(pause_s)
    return time.monotonic() - began


# ------------------------------------------------------------------ the receivers


def _ours(world: World, sets: int, mode: str) -> tuple[float, float, float]:
    _sender(world, sets, passive=True)
    command = [sys.executable, "-c", "from tests.bench.bench_bgp import receiver; receiver()", str(world.runtime)]
    with subprocess.Popen(
        [*command, world.ours, str(ROUTES), mode], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        exabgp = int((world.runtime / "exabgp.pid").read_text())
        usage = Usage([process.pid, *tree(exabgp)])
        world.birdc("enable b")
        wall_s = float(json.loads(process.stdout.readline()))
        found = wall_s, usage.cpu_s, usage.peak_mib
        process.communicate("end\n", timeout=30)
        return found


def _bird(world: World, sets: int) -> tuple[float, float, float]:
    _sender(world, sets, passive=False)
    file = world.folder / "receiver.conf"
    file.write_text(
        BIRD.format(
            id=OURS,
            local=OURS,
            asn=65000,
            remote=THEIRS,
            peer=65001,
            more="",
            imports="all",
            exports="none",
            disabled="",
            passive="passive on;",
        )
    )
    control = world.folder / "receiver.ctl"
    process = subprocess.Popen(
        ["ip", "netns", "exec", world.ours, "bird", "-f", "-c", str(file), "-s", str(control)],
        stderr=subprocess.DEVNULL,
    )
    try:
        _until(control.exists, "BIRD starts")
        usage = Usage([process.pid])
        world.birdc("enable b")
        counted = f"{ROUTES + 1} imported"
        wall_s = _until(lambda: counted in sh(f"birdc -s {control} show protocols all b"), "BIRD has all", 0.05)
        return wall_s, usage.cpu_s, usage.peak_mib
    finally:
        process.terminate()
        process.wait(10)


def _gobgp(world: World, sets: int) -> tuple[float, float, float]:
    _sender(world, sets, passive=False)
    file = world.folder / "receiver.toml"
    file.write_text(GOBGP)
    inside = ["ip", "netns", "exec", world.ours]
    process = subprocess.Popen([*inside, "gobgpd", "-f", str(file), "--disable-stdlog"], stderr=subprocess.DEVNULL)

    def gobgp(*words: str) -> str:
        return subprocess.run([*inside, "gobgp", *words], capture_output=True, text=True, check=False).stdout

    try:
        _until(lambda: "Peer" in gobgp("neighbor"), "GoBGP starts")
        usage = Usage([process.pid])
        world.birdc("enable b")
        counted = f"Destination: {ROUTES + 1},"
        wall_s = _until(lambda: counted in gobgp("global", "rib", "summary"), "GoBGP has all")
        return wall_s, usage.cpu_s, usage.peak_mib
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.parametrize("sets", [1, ROUTES // 100, ROUTES] if ROUTES >= FULL else [ROUTES])
def test_a_table_from_bird(sets: int) -> None:
    """Everybody gets the whole table, whatever the number of attribute sets."""
    receivers: dict[str, Callable[[World], tuple[float, float, float]]] = {
        "bgpd adj-rib-in": lambda world: _ours(world, sets, "adj-rib-in"),
        "bgpd decided": lambda world: _ours(world, sets, "decided"),
        "BIRD": lambda world: _bird(world, sets),
        "GoBGP": lambda world: _gobgp(world, sets),
    }
    print(f"\n{ROUTES} routes, {sets} attribute sets\n{'receiver':<16} {'wall s':>7} {'CPU s':>7} {'peak MiB':>9}")
    for name, receive in receivers.items():
        with World() as world:
            wall_s, cpu_s, peak_mib = receive(world)
        print(f"{name:<16} {wall_s:>7.2f} {cpu_s:>7.2f} {peak_mib:>9.0f}")


def test_a_withdrawal_is_decided(world: World) -> None:
    """From the command at the router to the new decision here, with the table in place."""
    _sender(world, 1, passive=True)
    command = [sys.executable, "-c", "from tests.bench.bench_bgp import receiver; receiver()", str(world.runtime)]
    with subprocess.Popen(
        [*command, world.ours, str(ROUTES), "latency", str(world.folder / "bird.ctl")],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        world.birdc("enable b")
        process.stdout.readline()
        samples = sorted(json.loads(process.stdout.readline()))
        process.communicate("end\n", timeout=30)
    assert len(samples) == SAMPLES
    p50, p99 = samples[SAMPLES // 2], samples[SAMPLES * 99 // 100]
    print(
        f"\nwithdraw to decision, {ROUTES} routes: p50 {p50 * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms, {SAMPLES} samples"
    )


# ------------------------------------------------------------------ our side, in a process of its own


def receiver() -> None:
    """Take routes into a pipeline until all are there; ``python -c .. RUNTIME NETNS ROUTES MODE [BIRD]``."""
    runtime, netns, routes, mode, *control = sys.argv[1:]
    asyncio.run(_receive(Path(runtime), netns, int(routes), mode=mode, control=control))


async def _receive(runtime: Path, netns: str, routes: int, *, mode: str, control: list[str]) -> None:
    pipeline = Pipeline()
    peer = replace(PEER, hold_time_s=240, graceful_restart_s=0)
    link = ev.LinkChanged(name="xa", index=2, up=True, mtu_bytes=1500)
    subnet = ev.ForeignRouteChanged(prefix=Prefix.parse("10.255.77.0/24"), metric=0, hops=(("xa", None),))
    facts = (
        ev.Configured(node=Node(name="n", asn=65000, ipv4_address=OURS), peers=(peer,)),
        ev.KernelSynced(),
        link,
        subnet,
    )
    for fact in (*facts, ev.StoreSynced()):
        pipeline.handle(fact, time.monotonic())
    began = 0.0
    arrived = asyncio.Event()
    one = Prefix.parse("10.99.0.0/24")
    gone = asyncio.Event()

    async def deliver(event: ev.Event) -> None:
        nonlocal began
        now = time.monotonic()
        if isinstance(event, ev.PeerUp):
            began = now
        pipeline.handle(event, now)
        if mode != "adj-rib-in":
            while pipeline.settle(4096):
                pass
        if len(pipeline.state.adj_in) > routes:
            arrived.set()
        (gone.clear if pipeline.state.selection(one).chosen else gone.set)()

    speaker = Speaker(SpeakerOptions(runtime_dir=runtime, router_id=OURS, netns=netns), deliver)
    running = asyncio.create_task(speaker.run())
    assert await speaker.neighbors.apply([(THEIRS, peer)]) == {}
    while speaker.pid is None:
        await asyncio.sleep(0.01)
    print("ready", flush=True)
    await arrived.wait()
    print(json.dumps(time.monotonic() - began), flush=True)
    if control:
        print(json.dumps([await _withdrawal(control[0], gone) for _ in range(SAMPLES)]), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    await speaker.stop()


async def _withdrawal(control: str, gone: asyncio.Event) -> float:
    """Have BIRD withdraw one route, and announce it again; returns the seconds from the command to our decision."""
    with socket.socket(socket.AF_UNIX) as bird:
        bird.connect(control)
        bird.recv(4096)
        began = time.monotonic()
        bird.sendall(b"disable one\n")
        await gone.wait()
        took = time.monotonic() - began
        bird.sendall(b"enable one\n")
        while gone.is_set():
            await asyncio.sleep(0.005)
    return took
