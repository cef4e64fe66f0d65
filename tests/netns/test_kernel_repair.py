"""What others do to what is ours in a real kernel is repaired: at once by the monitor, else by comparing; and fights are damped."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bgpd.adapters.netlink.options import DEFAULTS, KernelOptions, NexthopObjects
from bgpd.daemon.fib import FibViews
from bgpd.model.event import ForeignRouteChanged
from bgpd.model.forwarding import (
    DeviceKey,
    Fdb,
    FdbKey,
    KernelKey,
    KernelValue,
    Neighbour,
    NeighbourKey,
    Present,
    RouteKey,
    RouteSettings,
    RuleKey,
    VxlanDevice,
)
from bgpd.model.prefix import Family
from bgpd.model.view import FibQuery
from bgpd.sim.namespace import Namespace
from tests.netns.kernel_world import (
    LEGS,
    NODE,
    VIA_NODE,
    A,
    Kept,
    P,
    blocks,
    heard,
    keeping,
    make_space,
    monitoring,
    through,
)
from tests.vm.patience import PATIENCE

pytestmark = [pytest.mark.netns, pytest.mark.vm]

DROP_MEMBERSHIP = 2
ATTEMPTS = 3
"""The quickest of so many counts: a busy machine may be late once. One more would be a fight."""
DEVICE = DeviceKey("vxlan.bgpd")
TUNNEL: dict[KernelKey, KernelValue] = {
    DEVICE: VxlanDevice(vni=4096, port=4789, local=A("10.1.0.1"), mac="66:00:00:00:00:01", mtu_bytes=1450),
    NeighbourKey(DEVICE.name, A("10.9.0.2")): Neighbour("66:00:00:00:00:02"),
    FdbKey(DEVICE.name, "66:00:00:00:00:02"): Fdb(A("10.9.0.2")),
}

RULES: dict[KernelKey, KernelValue] = {RuleKey(family, 1000, 1000): Present() for family in Family}


@pytest.fixture
def space() -> Iterator[Namespace]:
    made = make_space(f"bgpdrp{os.getpid()}")
    yield made
    made.close()


@pytest.mark.parametrize(
    "deed",
    [
        "route delete 10.128.0.0/26 proto 179",
        "route replace 10.128.0.0/26 nhid NHID proto 179 metric 0 mtu 1300",
        "nexthop flush proto 179",
        "link delete vxlan.bgpd",
        "link set vxlan.bgpd down",
        "neighbour flush dev vxlan.bgpd nud permanent",
        "rule delete priority 1000",
        "-6 rule flush protocol 179",
    ],
)
def test_what_others_do_is_repaired_within_a_second(space: Namespace, deed: str) -> None:
    """A route, a nexthop, a group, the device, an entry or a rule that another changes or removes is as it was within a second."""

    async def scenario() -> float:
        async with keeping({**through(LEGS, blocks(20)), **TUNNEL, **RULES}) as kept:
            took_s: list[float] = []
            for _ in range(ATTEMPTS):
                group = next(each["id"] for each in space.ip_json("nexthop") if "group" in each)
                kept.drift.clear()
                space.ip(*deed.replace("NHID", str(group)).split())
                started = time.monotonic()
                await kept.until(lambda: bool(kept.drift))
                await kept.until(kept.right)
                took_s.append(time.monotonic() - started)
                assert await kept.kernel.compare() == 0
                assert kept.right()
            return min(took_s)

    took_s = space.run(scenario)

    print(f"repaired after {took_s:.3f} s: ip {deed}")
    assert took_s < 1.0 * PATIENCE


def test_an_own_table_is_led_to_by_rules(space: Namespace) -> None:
    """With a table of our own the rule leads packets to its routes, and to the main table's where it has none; another's rule stays."""
    key = RouteKey(P("10.128.0.0/26"), 1000)
    rules: dict[KernelKey, KernelValue] = {
        rule: Present() for rule in RouteSettings(table=1000, rule_priority=900).rules()
    }
    theirs = "from all lookup 1000 proto 179"
    for command in ("route add 10.128.0.0/16 via 10.2.0.2", "rule add priority 901 table 1000 protocol static"):
        space.ip(*command.split())

    async def scenario() -> None:
        own = KernelOptions(table=1000)
        async with keeping({**through(LEGS[:1], []), **rules, key: VIA_NODE}, options=own) as kept:
            space.ip("route", "add", "10.128.0.64/26", "via", "10.2.0.2", "table", "1000", "proto", "static")
            hops = (("up1", A("10.2.0.2")),)
            told = ForeignRouteChanged(prefix=P("10.128.0.64/26"), metric=0, hops=hops, resolves=False)
            await kept.until(lambda: told in kept.events)
            place = RouteKey(told.prefix, 1000)
            assert list(await kept.kernel.apply([(place, VIA_NODE)])) == [place]
            assert kept.kernel._due_in_s() is None
            lines = [space.ip("-4", "rule"), space.ip("-6", "rule")]
            assert all(f"900:\t{theirs}" in line for line in lines), lines
            assert "dev up0 table 1000" in space.ip("route", "get", "10.128.0.9")
            assert "dev up1" in space.ip("route", "get", "10.128.1.9")

            assert await kept.kernel.apply([(RuleKey(Family.IPV4, 901, 1000), None)]) == {}
            kept.want({})
            await kept.until(kept.right)

    space.run(scenario)

    assert "901:\tfrom all lookup 1000 proto static" in space.ip("rule")
    assert "proto 179" not in space.ip("rule") + space.ip("-6", "rule")


def test_links_that_come_back_get_all_that_was_on_them(space: Namespace) -> None:
    """Down and up, losing its address, and removed and made again as a container's: what was on the link is back each time."""

    async def scenario() -> None:
        wanted = through(LEGS, blocks(20))
        async with keeping(wanted) as kept:
            space.ip("link", "set", "up0", "down")
            await kept.until(lambda: LEGS[0] not in kept.kernel.actual)
            space.ip("link", "set", "up0", "up")
            await kept.until(kept.right)

            space.ip("address", "delete", "10.1.0.1/24", "dev", "up0")
            space.ip("nexthop", "flush", "dev", "up0")
            await kept.until(lambda: LEGS[0] not in kept.kernel.actual)
            space.ip("address", "add", "10.1.0.1/24", "dev", "up0")
            await kept.until(kept.right)

            space.ip("link", "delete", "up0")
            await kept.until(lambda: LEGS[0] not in kept.kernel.actual)
            space.ip("link", "add", "up0", "type", "veth", "peer", "name", "far0")
            for command in ("link set far0 up", "link set up0 up", "address add 10.1.0.1/24 dev up0"):
                space.ip(*command.split())
            await kept.until(kept.right)

    space.run(scenario)

    assert space.ip("route", "show", "proto", "179").count("dev up0") == 20


def test_comparison_finds_what_nobody_told_of(space: Namespace) -> None:
    """What the monitor missed is found by the periodic comparison, which writes and says nothing where nothing differs."""
    keys = blocks(300)

    async def scenario() -> None:
        async with keeping(through(LEGS, keys), compare_s=0.1) as kept:
            async with monitoring(space, "route", "nexthop", "link", "neigh") as watcher:
                assert heard(watcher, 1.0) == ""  # some ten comparisons

            listener = kept.kernel._listener._socket
            for group in (7, 32):  # routes and nexthops
                listener.setsockopt(270, DROP_MEMBERSHIP, group)
            space.ip("route", "delete", str(keys[7].prefix), "proto", "179")
            space.ip("route", "replace", "blackhole", str(keys[8].prefix), "proto", "179")
            space.ip("route", "add", "blackhole", "192.0.2.0/24", "proto", "179")
            await kept.until(lambda: any(notice.name == "fib.differed" for notice in kept.notices))
            await kept.until(kept.right)
            assert kept.notices[0].fields["drifted"] == 3

            space.ip("nexthop", "flush", "proto", "179")
            await kept.until(lambda: len(kept.notices) > 1)
            await kept.until(kept.right)

    space.run(scenario)

    assert space.ip("route", "show", "proto", "179").count("10.1.0.2") == 300
    assert "192.0.2.0/24" not in space.ip("route")


def test_comparison_does_not_keep_writing_waiting(space: Namespace) -> None:
    """Routes that change while a comparison reads are neither called different nor kept back."""
    keys = blocks(2000)

    async def scenario() -> None:
        async with keeping(through(LEGS, keys)) as kept:
            comparing = asyncio.create_task(kept.kernel.compare())
            rounds = 0
            while not comparing.done():
                rounds += 1
                kept.want(through(LEGS, keys[: 1000 + 500 * (rounds % 3)]))
                await kept.until(kept.right)
            assert await comparing == 0
            assert rounds > 0

    space.run(scenario)


def test_a_fight_is_noticed_damped_and_told(space: Namespace) -> None:
    """Another that replaces our route again and again is named once, and our repairs wait; other routes are not held up."""
    keys = blocks(2)
    fought = str(keys[0].prefix)

    async def scenario() -> None:
        async with keeping(through(LEGS, keys[:1])) as kept:
            while not kept.notices:
                rounds = len(kept.drift)
                space.ip("route", "delete", fought, "proto", "179")
                await kept.until(lambda: len(kept.drift) > rounds)  # noqa: B023 - waited for at once
                await kept.until(lambda: kept.right() or bool(kept.notices))
            assert kept.drift == [keys[0]] * 4
            (notice,) = kept.notices
            assert notice.name == "fib.contested"
            assert notice.fields["key"] == fought
            assert "netlink port" in str(notice.fields["by"])
            assert kept.reconciler.contest.get(keys[0], time.monotonic()) is not None

            kept.want(through(LEGS, keys))
            await kept.until(lambda: keys[1] in kept.kernel.actual)
            assert keys[0] not in kept.kernel.actual
            await kept.until(kept.right)

    space.run(scenario)


def test_another_daemon_that_replaces_our_route_is_named(space: Namespace) -> None:
    """A route of another protocol in the place of ours is told with the name of who marks routes so."""
    keys = blocks(1)

    async def scenario() -> None:
        async with keeping(through(LEGS, keys)) as kept:
            while not kept.notices or kept.notices[-1].name != "fib.contested":
                rounds = len(kept.drift)
                space.ip("route", "replace", str(keys[0].prefix), "via", "10.1.0.2", "proto", "bird")
                await kept.until(lambda: len(kept.drift) > rounds)  # noqa: B023 - waited for at once
                space.ip("route", "delete", str(keys[0].prefix), "proto", "bird")
                await kept.until(lambda: kept.right() or kept.notices[-1].name == "fib.contested")
            assert kept.notices[-1].fields["by"] == "BIRD"

    space.run(scenario)


def test_lost_notifications_of_routes_are_repaired(space: Namespace, tmp_path: Path) -> None:
    """Even if the kernel drops notifications, what another removed meanwhile is back."""
    keys = blocks(500)
    script = tmp_path / "batch"
    script.write_text("".join(f"route delete {key.prefix} proto 179\n" for key in keys))

    async def scenario() -> None:
        async with keeping(through(LEGS, keys)) as kept:
            kept.kernel._listener._socket.setsockopt(socket.SOL_SOCKET, 33, 4096)
            space.ip("-batch", str(script))  # the event loop stands meanwhile, and the small buffer overflows
            await kept.until(lambda: len(kept.drift) >= 500)
            await kept.until(kept.right)

    space.run(scenario)

    assert space.ip("route", "show", "proto", "179").count("10.1.0.2") == 500


def test_diff_reads_the_kernel_anew(space: Namespace) -> None:
    """``bgpd fib --diff`` finds nothing where all is right, groups by their names, and else what ``ip`` did behind our back."""
    keys = blocks(50)

    async def scenario() -> None:
        async with keeping({**through(LEGS, keys), **TUNNEL}) as kept:
            views = FibViews(kept.reconciler, kept.kernel)
            assert (await views.diff(100)).rows == ()
            page = await views.page(FibQuery(limit=1))
            assert (page.total, page.rows[0].nexthop_id) == (50, kept.kernel.nexthop_id(NODE))

            async with kept.kernel._lock:  # nothing of it is heard, nor repaired, meanwhile
                space.ip("route", "delete", str(keys[7].prefix), "proto", "179")
                space.ip("neighbour", "flush", "dev", DEVICE.name, "nud", "permanent")
                rows = (await views.diff(100)).rows
            assert [(row.object, row.key, row.actual) for row in rows] == [
                ("neighbour", "vxlan.bgpd 10.9.0.2", ""),
                ("route", str(keys[7].prefix), ""),
            ]

    space.run(scenario)


def test_bad_routes_delay_no_good_one(space: Namespace, tmp_path: Path) -> None:
    """With hundreds of routes refused and retried, a good one is there at once; and they are, once their cause is gone."""
    bad, good = blocks(400), blocks(5, "10.140.0.0")
    script = tmp_path / "batch"
    lines = [f"{{}} {key.prefix} via 10.1.0.2 proto static\n" for key in bad]
    script.write_text("".join(line.format("route add") for line in lines))
    space.ip("-batch", str(script))

    async def scenario() -> None:
        async with keeping(through(LEGS, good[:1])) as kept:
            kept.want(through(LEGS, [*bad, good[0]]))
            await kept.until(lambda: len(kept.reconciler.failures) == 400)
            failure = kept.reconciler.failure(bad[7])
            assert failure is not None
            assert failure.reason.startswith("EEXIST: File exists")
            for number in range(1, 5):
                kept.want(through(LEGS, [*bad, *good[: number + 1]]))
                await kept.until(lambda: good[number] in kept.kernel.actual)  # noqa: B023 - waited for at once
            assert len(kept.reconciler.failures) == 400

            script.write_text("".join(line.format("route delete") for line in lines))
            space.ip("-batch", str(script))
            await asyncio.wait_for(until_right(kept), 90)

    space.run(scenario)


async def until_right(kept: Kept) -> None:
    while not kept.right():
        await asyncio.sleep(0.05)


def test_kernel_is_remarked_upon(space: Namespace) -> None:
    """What the kernel costs its listeners, or lacks, is said once at the start, with how to mend it."""

    async def scenario() -> list[str]:
        names: list[str] = []
        for mode, options in (("0", DEFAULTS), ("1", DEFAULTS), ("1", KernelOptions(objects=NexthopObjects.OFF))):
            space.execute("sysctl", "-qw", f"net.ipv4.nexthop_compat_mode={mode}")
            async with keeping({}, options=options) as kept:
                names += [remark.name for remark in kept.kernel.remarks()]
        return names

    assert space.run(scenario) == ["fib.compat_mode", "fib.without_objects"]
