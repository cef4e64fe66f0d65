"""What the loss of both routers costs a node with many others behind them: from BFD's verdict to the last message that moves traffic.

Run it by name: ``python -m pytest -s tests/bench/bench_failover.py``. BENCH_NODES (1,000) and BENCH_BLOCKS (10 for each) set the size.
The real core, reconciler and kernel, turn by turn as in the daemon. Asserts on messages and on what is in the kernel, never on time.
"""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from bgpd.adapters import clock
from bgpd.adapters.netlink.routes import Kernel
from bgpd.adapters.reconciler import Reconciler
from bgpd.core.pipeline import Pipeline
from bgpd.daemon import loop
from bgpd.model import event as ev
from bgpd.model.bfd import BfdState, BfdStatus
from bgpd.model.forwarding import VXLAN_DEVICE, Group, GroupKey, KernelKey, KernelRoute, KernelValue, RouteKey
from bgpd.model.node import Node
from bgpd.model.pool import Pool
from bgpd.model.prefix import Address, Prefix
from bgpd.sim.namespace import Namespace
from tests.core import world as w

pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]

NODES = int(os.environ.get("BENCH_NODES", "1000"))
BLOCKS = int(os.environ.get("BENCH_BLOCKS", "10"))
FAILED = BfdStatus(diagnostic="control detection time expired", failed=True)
UP = BfdStatus(state=BfdState.UP)
POOL = Pool(name="default", cidr=w.P("10.64.0.0/10"))
WAIT_S = 300.0


@pytest.fixture
def space() -> Iterator[Namespace]:
    with Namespace(f"bgpdover{os.getpid()}") as made:
        made.execute("sysctl", "-qw", "net.ipv4.nexthop_compat_mode=0")
        for number, subnet in ((1, "10.1.11"), (2, "10.1.21")):
            made.ip("link", "add", f"eth{number}", "type", "veth", "peer", "name", f"far{number}")
            made.ip("link", "set", f"far{number}", "up")
            made.ip("link", "set", f"eth{number}", "up")
            made.ip("address", "add", f"{subnet}.1/31", "dev", f"eth{number}")
        made.ip("address", "add", "10.0.0.1/32", "dev", "lo")
        yield made


def test_loss_of_both_routers(space: Namespace) -> None:
    """All nodes' traffic moves by one message a node, and the way back is one a node, too; no route is touched."""
    space.run(_scenario)


def _load() -> str:
    return f"load {Path('/proc/loadavg').read_text().split()[0]}"


class Counted:
    """A kernel that counts the changes that it is given, by the type of their key."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.name = kernel.name
        self.groups = self.routes = self.others = 0
        self.last_group_at = self.last_group_cpu = 0.0

    @property
    def actual(self) -> Mapping[KernelKey, KernelValue]:
        return self._kernel.actual

    async def apply(self, changes: Sequence[tuple[KernelKey, KernelValue | None]]) -> dict[KernelKey, str]:
        refused = await self._kernel.apply(changes)
        groups = sum(isinstance(key, GroupKey) for key, _ in changes)
        routes = sum(isinstance(key, RouteKey) for key, _ in changes)
        self.groups += groups
        self.routes += routes
        self.others += len(changes) - groups - routes
        if groups:
            self.last_group_at, self.last_group_cpu = time.perf_counter(), time.process_time()
        return refused


async def _scenario() -> None:
    pipeline = _filled()
    kernel = Kernel(_nowhere, lambda _: None)
    await kernel.open()
    counted = Counted(kernel)
    table = pipeline.tables.kernel

    still = asyncio.Event()

    async def converged() -> None:
        still.set()

    def adopt(keys: object) -> None:
        routes = [(key, table.get(key)) for key in keys if isinstance(key, RouteKey)]  # type: ignore[attr-defined]
        kernel.adopt((key, route) for key, route in routes if isinstance(route, KernelRoute))

    reconciler: Reconciler[KernelKey, KernelValue] = Reconciler(
        table, counted, clock=clock.monotonic, prepare=adopt, converged=converged, notice=print
    )

    async def settle() -> None:
        async for _ in loop.settle(pipeline):
            pass
        async with asyncio.timeout(WAIT_S):
            while reconciler.pending or not still.is_set():
                still.clear()
                reconciler.wake()
                await still.wait()

    running = [asyncio.create_task(reconciler.run()), asyncio.create_task(kernel.run())]
    await settle()
    assert len(kernel.actual) == len(table)
    rows: list[tuple[str, list[ev.Event], float, str]] = [
        ("one router lost", [ev.BfdChanged(w.TOR1, FAILED)], 5.0, "eth2"),
        ("the other, too", [ev.BfdChanged(w.TOR2, FAILED)], 6.0, VXLAN_DEVICE),
        ("both return", [ev.BfdChanged(w.TOR1, UP), ev.BfdChanged(w.TOR2, UP)], 7.0, VXLAN_DEVICE),
        ("quiet time over", [ev.Tick()], 1000.0, "eth1"),
    ]
    print(f"\n{NODES} nodes, {NODES * BLOCKS} blocks, {_load()}; ms after the event")
    print(
        f"{'event':<18}{'traffic moved':>14}{'processor':>11}{'all decided':>13}{'processor':>11}{'groups':>8}{'routes':>8}{'others':>8}"
    )
    for name, events, now, device in rows:
        gc.collect()
        counted.groups = counted.routes = counted.others = 0
        still.clear()
        began, cpu = time.perf_counter(), time.process_time()
        counted.last_group_at, counted.last_group_cpu = began, cpu
        for event in events:
            pipeline.handle(event, now)
        await settle()
        spent = (time.perf_counter() - began, time.process_time() - cpu)
        moved = (counted.last_group_at - began, counted.last_group_cpu - cpu)
        print(
            f"{name:<18}{moved[0] * 1e3:>14.0f}{moved[1] * 1e3:>11.0f}{spent[0] * 1e3:>13.0f}{spent[1] * 1e3:>11.0f}"
            f"{counted.groups:>8}{counted.routes:>8}{counted.others:>8}"
        )
        assert table.snapshot() == kernel.actual
        _check(pipeline, device)
        assert counted.groups <= NODES
        assert counted.routes == 0
        assert counted.others <= 2, "the legs to the routers"
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await kernel.close()


def _check(pipeline: Pipeline, device: str) -> None:
    """Every node's group goes through *device*."""
    groups = {key: one for key, one in pipeline.tables.kernel.items() if isinstance(one, Group)}
    assert len(groups) == NODES
    assert all(device in {leg.device for leg in group.legs} for group in groups.values())


def _filled() -> Pipeline:
    """A pipeline that has decided: each node's blocks come in one UPDATE from each of two routers."""
    pipeline = Pipeline()
    underlay = ev.ForeignRouteChanged(prefix=w.P("10.0.0.0/16"), metric=0, hops=(("eth1", w.TOR1), ("eth2", w.TOR2)))
    events: list[ev.Event] = [w.WATCHED, *w.kernel(), underlay, ev.PoolChanged(POOL), ev.NodeChanged(w.node(1))]
    events += [ev.NodeAlive("node1"), *w.owned(w.OWN_BLOCK, "node1")]
    for number in range(NODES):
        address = Address(w.A("10.0.1.0") + number)
        mac = f"66:00:00:00:{number >> 8:02x}:{number & 255:02x}"
        node = Node(
            name=f"n{number}", asn=65000, ipv4_address=address, ipv4_subnet=Prefix.of(address, 32), vtep_mac=mac
        )
        events += [ev.NodeChanged(node), ev.NodeAlive(node.name)]
        events += [event for block in _blocks(number) for event in w.owned(block, node.name)]
    events += [ev.StoreSynced(), ev.SpeakerUp()]
    for router, tor in ((1, w.TOR1), (2, w.TOR2)):
        events += w.session(router, *(w.learned(tor, *_blocks(n), last=70_000 + n) for n in range(NODES)))
    for event in events:
        pipeline.handle(event, 0.0)
    while pipeline.settle(loop.SETTLE_BUDGET):
        pass
    return pipeline


def _blocks(number: int) -> list[Prefix]:
    first = w.A("10.96.0.0") + number * BLOCKS * 64
    return [Prefix.of(Address(first + at * 64), 26) for at in range(BLOCKS)]


async def _nowhere(_: ev.Event) -> None: ...
