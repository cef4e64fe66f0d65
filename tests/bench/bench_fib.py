"""How fast routes get into the kernel: our target beside ``ip -batch``, in the same run and a fresh namespace each.

Run it by name: ``python -m pytest -s tests/bench/bench_fib.py``. BENCH_ROUTES sets the number of routes (20,000). Asserts only on
what is there afterwards, never on time.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bgpd.adapters.netlink.routes import Kernel
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

pytestmark = [pytest.mark.bench, pytest.mark.timeout(600)]

ROUTES = int(os.environ.get("BENCH_ROUTES", "20000"))
LEG = Leg("up0", Address.parse("10.1.0.2"))
NODE = GroupKey("node")
FIRST = Address.parse("10.128.0.0")


@pytest.fixture
def space() -> Iterator[Namespace]:
    with Namespace(f"bgpdfib{os.getpid()}") as made:
        made.ip("link", "add", "up0", "type", "veth", "peer", "name", "far0")
        made.ip("link", "set", "far0", "up")
        made.ip("link", "set", "up0", "up")
        made.ip("address", "add", "10.1.0.1/24", "dev", "up0")
        yield made


def test_fib_beside_ip_batch(space: Namespace) -> None:
    """All routes are in the kernel, and all are gone again, by our target and by ip -batch alike."""
    prefixes = [Prefix.of(Address(FIRST + 64 * number), 26) for number in range(ROUTES)]

    own_add_s, own_remove_s, own_replace_s, counted = space.run(lambda: _own(space, prefixes))
    assert counted == ROUTES

    space.ip("nexthop", "add", "id", "1", "via", "10.1.0.2", "dev", "up0", "proto", "179")
    space.ip("nexthop", "add", "id", "2", "group", "1", "proto", "179")
    peer_add_s = _batch(space, "add", prefixes, " nhid 2 proto 179")
    assert _count(space) == ROUTES
    peer_replace_s = _batch(space, "replace", prefixes, " nhid 2 proto 179")
    peer_remove_s = _batch(space, "delete", prefixes, "")
    assert _count(space) == 0

    rows = (
        ("add", own_add_s, peer_add_s),
        ("replace", own_replace_s, peer_replace_s),
        ("remove", own_remove_s, peer_remove_s),
    )
    print(f"\n{'routes':>8} {'verb':<8} {'bgpd/s':>9} {'ip -batch/s':>12} {'ratio':>6}")
    for verb, own_s, peer_s in rows:
        print(f"{ROUTES:>8} {verb:<8} {ROUTES / own_s:>9.0f} {ROUTES / peer_s:>12.0f} {peer_s / own_s:>6.2f}")


async def _own(space: Namespace, prefixes: list[Prefix]) -> tuple[float, float, float, int]:
    async def deliver(_: Event) -> None:
        pass

    kernel = Kernel(deliver, lambda _: None)
    await kernel.open()
    via = KernelRoute(RouteKind.UNICAST, NODE)
    assert await kernel.apply([(LEG, Present()), (NODE, Group((LEG,)))]) == {}
    wanted: list[tuple[KernelKey, KernelValue | None]] = [(RouteKey(prefix), via) for prefix in prefixes]
    unwanted: list[tuple[KernelKey, KernelValue | None]] = [(key, None) for key, _ in wanted]
    spent: list[float] = []
    counted = 0
    for changes in (wanted, wanted, unwanted):
        start = time.perf_counter()
        assert await kernel.apply(changes) == {}
        spent.append(time.perf_counter() - start)
        counted = max(counted, _count(space))
    assert _count(space) == 0
    await kernel.apply([(NODE, None), (LEG, None)])
    await kernel.close()
    return spent[0], spent[2], spent[1], counted


def _batch(space: Namespace, verb: str, prefixes: list[Prefix], tail: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "batch"
        script.write_text("".join(f"route {verb} {prefix}{tail}\n" for prefix in prefixes))
        return _timed(lambda: space.ip("-batch", str(script)))


def _timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _count(space: Namespace) -> int:
    return space.ip("route", "show", "proto", "179").count("10.1.0.2 dev up0")
