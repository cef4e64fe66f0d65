"""How fast routes get into the kernel, what a start with all of them there costs, and what the loss of a router does.

Run it by name: ``python -m pytest -s tests/bench/bench_fib.py``. BENCH_ROUTES sets the number of routes (20,000). Asserts only on what is
there afterwards, and on messages and writes, never on time.

Rows of the first: our target (from desired values, with read-back of refusals), the same behind table and reconciler, ``ip -batch``,
BIRD's kernel protocol (from its first route to its last), and messages encoded beforehand, which is the kernel's own limit. All in one
namespace of the same run. Of our own rows the processor time (user, system) of an added route is told, too: a busy machine leaves it alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import subprocess
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bgpd.adapters import clock
from bgpd.adapters.netlink import encode
from bgpd.adapters.netlink.routes import Kernel
from bgpd.adapters.netlink.socket import NetlinkSocket
from bgpd.adapters.reconciler import Reconciler
from bgpd.flow.table import Table
from bgpd.model.event import Event
from bgpd.model.forwarding import (
    Group,
    GroupKey,
    KernelKey,
    KernelRoute,
    KernelValue,
    Leg,
    Present,
    RouteKey,
    RouteKind,
)
from bgpd.model.prefix import Address, Prefix
from bgpd.sim.namespace import Namespace
from tests.netns.kernel_world import heard, monitoring

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

ROUTES = int(os.environ.get("BENCH_ROUTES", "20000"))
WAIT_S = 300.0
VERBS = ("add", "replace", "remove")
LEGS = tuple(Leg(f"up{number}", Address.parse(f"10.{number + 1}.0.2")) for number in range(2))
LEG = LEGS[0]
NODE = GroupKey("node")
VIA = KernelRoute(RouteKind.UNICAST, NODE)
PREFIXES = [Prefix.of(Address(Address.parse("20.0.0.0") + 64 * number), 26) for number in range(ROUTES)]
WANTED: dict[KernelKey, KernelValue] = {
    **{leg: Present() for leg in LEGS},
    NODE: Group(LEGS),
    **dict.fromkeys((RouteKey(prefix) for prefix in PREFIXES), VIA),
}


@pytest.fixture
def space() -> Iterator[Namespace]:
    with Namespace(f"bgpdfib{os.getpid()}") as made:
        made.execute("sysctl", "-qw", "net.ipv4.nexthop_compat_mode=0")
        for number in range(2):
            made.ip("link", "add", f"up{number}", "type", "veth", "peer", "name", f"far{number}")
            made.ip("link", "set", f"far{number}", "up")
            made.ip("link", "set", f"up{number}", "up")
            made.ip("address", "add", f"10.{number + 1}.0.1/24", "dev", f"up{number}")
        yield made


def test_routes_into_the_fib(space: Namespace) -> None:
    """All routes are in the kernel by our target, by ip -batch, by BIRD and by messages encoded beforehand; and gone again."""
    rates = {"bgpd": space.run(lambda: _own(space)), "bgpd with reconciler": space.run(_reconciled)}
    space.ip("nexthop", "add", "id", "1", "via", "10.1.0.2", "dev", "up0", "proto", "179")
    space.ip("nexthop", "add", "id", "2", "group", "1", "proto", "179")
    batch = (
        _batch(space, "add", " nhid 2 proto 179"),
        _batch(space, "replace", " nhid 2 proto 179"),
        _batch(space, "delete", ""),
    )
    rates["ip -batch"] = {verb: ROUTES / took_s for verb, took_s in zip(VERBS, batch, strict=True)}
    rates["pre-encoded"] = space.run(lambda: _encoded(space))
    rates["BIRD"] = {"add": ROUTES / _bird(space)}

    limit = rates["pre-encoded"]
    head = f"{'add/s':>10} {'replace/s':>10} {'remove/s':>10} {'add: part of the limit':>24} {'add: CPU us':>12}"
    print(f"\n{f'{ROUTES} routes':<23}{head}")
    for name, row in rates.items():
        cells = "".join(f"{row[verb]:>10.0f} " if verb in row else f"{'-':>10} " for verb in VERBS)
        cpu = f"{row['cpu_us']:>13.2f}" if "cpu_us" in row else ""
        print(f"{name:<23}{cells}{row['add'] / limit['add']:>24.2f}{cpu}")


def test_start_with_all_routes_there(space: Namespace) -> None:
    """A start finds every route unchanged: nothing is written, and a comparison finds nothing."""

    async def fill() -> None:
        await (await _filled()).close()

    async def start() -> tuple[float, float, int, float]:
        writes = 0
        table: Table[KernelKey, KernelValue] = Table("kernel")
        for key, value in WANTED.items():
            table.set(key, value)
        kernel = Kernel(_nowhere, lambda _: None)
        stock = kernel.apply

        async def counted(changes: list[tuple[KernelKey, KernelValue | None]]) -> dict[KernelKey, str]:
            nonlocal writes
            writes += len(changes)
            return await stock(changes)

        kernel.apply = counted  # type: ignore[assignment,method-assign]
        synced = asyncio.Event()

        async def converged() -> None:
            synced.set()

        def adopt(keys: object) -> None:
            kernel.adopt((key, VIA) for key in keys if type(key) is RouteKey)  # type: ignore[attr-defined]

        reconciler: Reconciler[KernelKey, KernelValue] = Reconciler(
            table, kernel, clock=clock.monotonic, prepare=adopt, converged=converged, notice=print
        )
        began = time.perf_counter()
        await kernel.open()
        read_s = time.perf_counter() - began
        running = asyncio.create_task(reconciler.run())
        reconciler.wake()
        await synced.wait()
        synced_s = time.perf_counter() - began
        again = time.perf_counter()
        assert await kernel.compare() == 0
        assert await reconciler.recheck() == 0
        compared_s = time.perf_counter() - again
        running.cancel()
        await kernel.close()
        return read_s, synced_s, writes, compared_s

    space.run(fill)
    read_s, synced_s, writes, compared_s = space.run(start)

    print(f"\nstart with {ROUTES} unchanged routes: read {read_s:.2f} s, synced {synced_s:.2f} s, writes {writes}")
    print(f"comparison of {ROUTES} routes, beside what goes on: {compared_s:.2f} s")
    assert writes == 0


def test_loss_of_one_of_two_routers(space: Namespace) -> None:
    """One leg of two is lost with all routes behind both: what the kernel says is of the group alone, and not of any route."""

    async def scenario() -> tuple[float, list[str]]:
        kernel = await _filled()
        async with monitoring(space, "route", "nexthop") as watcher:
            began = time.perf_counter()
            assert await kernel.apply([(NODE, Group(LEGS[1:])), (LEG, None)]) == {}
            took_s = time.perf_counter() - began
            await kernel.close()
            space.ip("route", "add", "192.0.2.0/24", "via", "10.2.0.2")
            lines = [heard(watcher, WAIT_S)]
            while "192.0.2.0/24" not in lines[-1]:
                assert lines[-1], "ip monitor says no more"
                lines.append(heard(watcher, WAIT_S))
            assert "via 10.2.0.2 dev up1" in space.ip("route", "get", str(PREFIXES[-1].network))
            return took_s, lines[:-1]

    took_s, lines = space.run(scenario)

    print(f"\none of two routers lost, {ROUTES} routes behind both: {len(lines)} messages, {took_s * 1000:.1f} ms")
    assert len(lines) <= 3, lines[:5]


def test_memory_of_a_route() -> None:
    """What a route takes: the desired value in its table, and ours of the kernel (the mirror)."""

    async def scenario() -> tuple[int, int]:
        gc.collect()
        tracemalloc.start()
        table: Table[KernelKey, KernelValue] = Table("kernel")
        for prefix in PREFIXES:
            table.set(RouteKey(prefix), VIA)
        table.take()
        desired, _ = tracemalloc.get_traced_memory()
        kernel = Kernel(_nowhere, lambda _: None)
        kernel._mirror.claim(NODE, 0x62670000)
        for prefix in PREFIXES:  # as read back from the kernel: keys of its own
            entry = encode.RouteEntry(prefix, 254, 179, 1, 0, 0, 0x62670000, ())
            kernel._mirror.observe_route(entry)
        kernel._mirror.take_drifted()
        both, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return desired, both - desired

    desired, mirror = asyncio.run(scenario())

    print(f"\nmemory of a route: {desired / ROUTES:.0f} bytes desired, {mirror / ROUTES:.0f} bytes in the mirror")


async def _filled() -> Kernel:
    """Put all that is wanted into the kernel."""
    kernel = Kernel(_nowhere, lambda _: None)
    await kernel.open()
    assert await kernel.apply(list(WANTED.items())) == {}
    return kernel


async def _nowhere(_: Event) -> None: ...


class _Stopwatch:
    """Owns the rates of verbs, and the processor time of an added route."""

    def __init__(self) -> None:
        self.rates: dict[str, float] = {}

    @contextlib.contextmanager
    def timing(self, verb: str) -> Iterator[None]:
        gc.collect()
        start, cpu = time.perf_counter(), time.process_time()
        yield
        self.rates[verb] = ROUTES / (time.perf_counter() - start)
        if verb == "add":
            self.rates["cpu_us"] = (time.process_time() - cpu) / ROUTES * 1e6


async def _reconciled() -> dict[str, float]:
    """Let the reconciler bring what a table desires into the kernel."""
    table: Table[KernelKey, KernelValue] = Table("kernel")
    kernel = Kernel(_nowhere, lambda _: None)
    await kernel.open()
    rounds = asyncio.Queue[None]()

    async def converged() -> None:
        rounds.put_nowait(None)

    reconciler: Reconciler[KernelKey, KernelValue] = Reconciler(
        table, kernel, clock=clock.monotonic, converged=converged, notice=print
    )
    running = asyncio.create_task(reconciler.run())
    table.set(LEG, Present())
    table.set(NODE, Group((LEG,)))
    await rounds.get()
    keys, watch = [RouteKey(prefix) for prefix in PREFIXES], _Stopwatch()
    with watch.timing("add"):
        for key in keys:
            table.set(key, VIA)
        await rounds.get()
    assert table.snapshot() == kernel.actual
    with watch.timing("remove"):
        for key in keys:
            table.discard(key)
        await rounds.get()
    assert table.snapshot() == kernel.actual
    running.cancel()
    await kernel.apply([(NODE, None), (LEG, None)])
    await kernel.close()
    return watch.rates


async def _own(space: Namespace) -> dict[str, float]:
    before = _prefixes(space)
    kernel = Kernel(_nowhere, lambda _: None)
    await kernel.open()
    assert await kernel.apply([(LEG, Present()), (NODE, Group((LEG,)))]) == {}
    wanted: list[tuple[KernelKey, KernelValue | None]] = [(RouteKey(prefix), VIA) for prefix in PREFIXES]
    unwanted: list[tuple[KernelKey, KernelValue | None]] = [(key, None) for key, _ in wanted]
    watch = _Stopwatch()
    for verb, changes, there in zip(VERBS, (wanted, wanted, unwanted), (ROUTES, ROUTES, 0), strict=True):
        with watch.timing(verb):
            assert await kernel.apply(changes) == {}
        assert _prefixes(space) - before == there
    await kernel.apply([(NODE, None), (LEG, None)])
    await kernel.close()
    return watch.rates


async def _encoded(space: Namespace) -> dict[str, float]:
    """Send messages that are bytes already."""
    before = _prefixes(space)
    keys = [RouteKey(prefix) for prefix in PREFIXES]
    socket = NetlinkSocket()
    watch = _Stopwatch()
    for verb, messages, there in zip(
        VERBS,
        (
            [encode.put_route(key, VIA, 2, 179, encode.CREATE) for key in keys],
            [encode.put_route(key, VIA, 2, 179, encode.REPLACE) for key in keys],
            [encode.remove_route(key, 179) for key in keys],
        ),
        (ROUTES, ROUTES, 0),
        strict=True,
    ):
        with watch.timing(verb):
            assert await socket.transact(messages) == {}
        assert _prefixes(space) - before == there
    socket.close()
    return watch.rates


def _batch(space: Namespace, verb: str, tail: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "batch"
        script.write_text("".join(f"route {verb} {prefix}{tail}\n" for prefix in PREFIXES))
        command = ["ip", "-n", space.name, "-batch", str(script)]
        return _timed(lambda: subprocess.run(command, check=True, capture_output=True, timeout=WAIT_S))


def _bird(space: Namespace) -> float:
    """Let BIRD export as many static routes to the kernel; returns the time from its first to its last route."""
    before = _prefixes(space)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bird.conf"
        routes = "".join(f"route {prefix} via 10.1.0.2;\n" for prefix in PREFIXES)
        kernel = "protocol kernel { scan time 3600; ipv4 { import none; export all; }; }\n"
        file.write_text(f"router id 1.1.1.1;\nprotocol device {{}}\n{kernel}protocol static {{ ipv4; {routes} }}\n")
        bird = space.start("bird", "-f", "-c", str(file), "-s", str(Path(folder) / "ctl"))
        try:
            _until(lambda: _prefixes(space) > before)
            first, start = _prefixes(space) - before, time.perf_counter()
            _until(lambda: _prefixes(space) - before == ROUTES)
            took_s = time.perf_counter() - start
        finally:
            bird.terminate()
            bird.communicate()
    return took_s * ROUTES / max(1, ROUTES - first)


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _prefixes(space: Namespace) -> int:
    """Count the IPv4 routes of the main table, cheaply: the kernel keeps the number of its trie's entries."""
    lines = space.execute("cat", "/proc/net/fib_triestat").splitlines()
    main = lines.index("Main:")
    return int(next(line for line in lines[main:] if "Prefixes:" in line).split()[1])
