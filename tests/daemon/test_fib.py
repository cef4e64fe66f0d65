"""What ``bgpd fib`` knows of each route, over the kernel in memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping

import pytest

from bgpd.adapters import clock
from bgpd.adapters.reconciler import Reconciler
from bgpd.core.reconcile.contest import CHANGES
from bgpd.daemon.fib import FibViews, key_text, parse_key
from bgpd.flow.table import Table
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
    RuleKey,
)
from bgpd.model.prefix import Address, Family, Prefix
from bgpd.model.view import FibQuery, FibRow, FibStatus
from bgpd.sim.kernel import FakeKernel

pytestmark = pytest.mark.adapter

A, P = Address.parse, Prefix.parse
DEADLINE_S = 30.0
LEG, TUNNEL = Leg("up0", A("10.1.0.2")), Leg("up1", A("10.2.0.2"))
NODE = GroupKey("node")
WANTED: dict[KernelKey, KernelValue] = {
    LEG: Present(),
    TUNNEL: Present(),
    NODE: Group((LEG, TUNNEL), (1, 3)),
    RouteKey(P("10.65.1.0/26")): KernelRoute(RouteKind.UNICAST, NODE, A("10.1.0.1"), 1400),
    RouteKey(P("10.65.2.0/26"), 1000, 5): KernelRoute(RouteKind.BLACKHOLE),
}


class World:
    """A kernel in memory with its reconciler, and the views of them."""

    def __init__(self) -> None:
        self.kernel = FakeKernel(self._deliver, self._meddled)
        for number in (0, 1):
            self.kernel.add_link(f"up{number}")
            self.kernel.add_address(f"up{number}", f"10.{number + 1}.0.1/24")
        self.table: Table[KernelKey, KernelValue] = Table("kernel")
        self.gate = True
        self.reconciler: Reconciler[KernelKey, KernelValue] = Reconciler(
            self.table,
            self.kernel,
            clock=clock.monotonic,
            gate=lambda: self.gate,
            converged=self._converged,
            notice=lambda _: None,
        )
        self.views = FibViews(self.reconciler, self.kernel)

    async def rows(self, query: FibQuery = FibQuery()) -> dict[str, FibRow]:  # noqa: B008 - frozen
        return {row.key: row for row in (await self.views.page(query)).rows}

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                await asyncio.sleep(0.01)

    def _meddled(self, keys: Mapping[KernelKey, str]) -> None:
        self.reconciler.meddled(keys)

    async def _deliver(self, _: object) -> None: ...

    async def _converged(self) -> None: ...


@contextlib.asynccontextmanager
async def running(wanted: dict[KernelKey, KernelValue], *, gate: bool = True) -> AsyncIterator[World]:
    world = World()
    world.gate = gate
    await world.kernel.open()
    for key, value in wanted.items():
        world.table.set(key, value)
    tasks = [asyncio.create_task(world.kernel.run()), asyncio.create_task(world.reconciler.run())]
    try:
        yield world
    finally:
        for task in tasks:
            task.cancel()


def test_rows_say_what_is_desired_and_there() -> None:
    """A route shows legs, weights, source and MTU, its place, whether it is native, and that it is programmed."""

    async def scenario() -> None:
        async with running(WANTED) as world:
            await world.until(lambda: world.kernel.actual == WANTED)
            rows = await world.rows()

            assert ["10.65.1.0/26", "10.65.2.0/26 table 1000 metric 5"] == list(rows)
            first, second = rows.values()
            text = "via 10.1.0.2 dev up0 weight 1, via 10.2.0.2 dev up1 weight 3 src 10.1.0.1 mtu 1400"
            assert (text, text, "native", FibStatus.PROGRAMMED) == (
                first.desired,
                first.actual,
                first.path,
                first.status,
            )
            assert ("blackhole", "drop") == (second.actual, second.path)

    asyncio.run(scenario())


def test_failures_have_reason_time_and_next_try() -> None:
    """A refused route fails with its reason; one whose leg was refused names the leg; the others are programmed."""
    bad = RouteKey(P("10.65.9.0/26"))
    away = Leg("up9", A("10.9.0.2"))
    lost: dict[KernelKey, KernelValue] = {
        **WANTED,
        bad: KernelRoute(RouteKind.BLACKHOLE),
        away: Present(),
        GroupKey("away"): Group((away,)),
        RouteKey(P("10.65.8.0/26")): KernelRoute(RouteKind.UNICAST, GroupKey("away")),
    }

    async def scenario() -> None:
        world_failures = {bad: "ENETUNREACH: Network is unreachable"}
        async with running({}) as world:
            world.kernel.failures = dict(world_failures)
            for key, value in lost.items():
                world.table.set(key, value)
            await world.until(lambda: len(world.reconciler.failures) == 4)
            rows = await world.rows()

            assert FibStatus.PROGRAMMED is rows["10.65.1.0/26"].status
            row = rows["10.65.9.0/26"]
            assert (FibStatus.FAILED, world_failures[bad]) == (row.status, row.reason)
            assert row.since is not None
            assert row.retry_at is not None
            assert row.since < row.retry_at
            assert ("", "drop") == (row.actual, row.path)
            assert "nexthop up9 10.9.0.2: no device up9" == rows["10.65.8.0/26"].reason

            assert ["10.65.8.0/26", "10.65.9.0/26"] == list(await world.rows(FibQuery(status=FibStatus.FAILED)))
            world.kernel.failures = {}
            await world.until(lambda: world.kernel.actual.get(bad) is not None)
            assert FibStatus.PROGRAMMED is (await world.rows())["10.65.9.0/26"].status

    asyncio.run(scenario())


def test_contested_route_says_by_whom() -> None:
    """A route that another keeps removing is contested, not merely failed."""
    key = RouteKey(P("10.65.2.0/26"), 1000, 5)

    async def scenario() -> None:
        async with running(WANTED) as world:
            for _ in range(CHANGES):
                await world.until(lambda: world.kernel.actual == WANTED)
                world.kernel.remove(key)
                await world.until(lambda: world.kernel.actual == WANTED or bool(world.reconciler.failures))
            row = (await world.rows())["10.65.2.0/26 table 1000 metric 5"]
            assert FibStatus.CONTESTED is row.status
            assert "contested: another changed it" in row.reason

    asyncio.run(scenario())


def test_strays_are_kept_while_the_gate_is_shut() -> None:
    """A route that is there and not desired is kept during start-up, and removed after it."""
    stray = RouteKey(P("10.65.7.0/26"))

    async def scenario() -> None:
        async with running({}, gate=False) as world:
            world.kernel.actual[stray] = KernelRoute(RouteKind.BLACKHOLE)
            assert FibStatus.KEPT is (await world.rows())["10.65.7.0/26"].status
            world.gate = True
            world.reconciler.wake()
            await world.until(lambda: not world.kernel.actual)
            assert {} == await world.rows()

    asyncio.run(scenario())


def test_pages_follow_each_other_without_gap() -> None:
    """Pages of a large table are in order, each goes on where the one before ended, and together they are all."""
    many: dict[KernelKey, KernelValue] = {
        RouteKey(Prefix.of(Address(A("10.128.0.0") + 64 * number), 26)): KernelRoute(RouteKind.BLACKHOLE)
        for number in range(2500)
    }

    async def scenario() -> None:
        async with running(many) as world:
            await world.until(lambda: world.kernel.actual == many)
            seen: list[str] = []
            after: str | None = None
            while True:
                page = await world.views.page(FibQuery(after=after, limit=999))
                assert 2500 == page.total
                seen += [row.key for row in page.rows]
                after = page.next
                if after is None:
                    break
            assert [str(prefix) for prefix in sorted(key.prefix for key in many if isinstance(key, RouteKey))] == seen
            assert 4 == (await world.views.page(FibQuery(prefix="10.128.1.0/24"))).total

    asyncio.run(scenario())


def test_diff_is_by_a_fresh_reading() -> None:
    """What is not as desired in the kernel is found although nobody told of it, with what is there instead."""
    block = RouteKey(P("10.65.1.0/26"))

    async def scenario() -> None:
        async with running(WANTED) as world:
            await world.until(lambda: world.kernel.actual == WANTED)
            assert 0 == (await world.views.diff(10)).total
            del world.kernel.actual[block]
            world.kernel.actual[RouteKey(P("192.0.2.0/24"))] = KernelRoute(RouteKind.PROHIBIT)

            page = await world.views.diff(1)

            assert (2, 1) == (page.total, len(page.rows))
            both = {row.key: (row.desired, row.actual) for row in (await world.views.diff(10)).rows}
            assert ("", "prohibit") == both["192.0.2.0/24"]
            assert "" == both["10.65.1.0/26"][1]

            world.kernel.actual[RuleKey(Family.IPV4, 900, 1000)] = Present()
            rule = next(row for row in (await world.views.diff(10)).rows if row.object == "rule")
            assert ("ipv4 priority 900 table 1000", "", "there") == (rule.key, rule.desired, rule.actual)

    asyncio.run(scenario())


@pytest.mark.parametrize("text", ["10.0.0.0/8", "10.0.0.0/8 table 7", "fd00::/8 metric 5", "::/0 table 1000 metric 9"])
def test_keys_survive_both_ways(text: str) -> None:
    """A route's place is read as it was written."""
    assert text == key_text(parse_key(text))


@pytest.mark.parametrize("text", ["10.0.0.0/8 table", "10.0.0.0/8 tos 5", "10.0.0.0/8 metric x"])
def test_bad_keys_say_the_rule(text: str) -> None:
    """What is no place of a route is refused with the form of one."""
    with pytest.raises(ValueError, match=r"PREFIX \[table NUMBER\] \[metric NUMBER\]"):
        parse_key(text)
