"""Without nexthop objects, or with ``kernel.nexthop_objects = "off"``: the same desired state as hops written into each route."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from bgpd.adapters.netlink.options import DEFAULTS, KernelOptions, NexthopObjects
from bgpd.model.forwarding import Group, KernelKey, KernelValue
from bgpd.sim.namespace import Namespace
from tests.netns.kernel_world import LEGS, NODE, blocks, heard, keeping, make_space, monitoring, through

pytestmark = [pytest.mark.netns, pytest.mark.vm]

CLASSIC = KernelOptions(objects=NexthopObjects.OFF)
BLOCKS = blocks(30)


@pytest.fixture
def space() -> Iterator[Namespace]:
    made = make_space(f"bgpdcm{os.getpid()}")
    yield made
    made.close()


def ours(space: Namespace) -> str:
    return space.ip("route", "show", "proto", "179")


def test_restart_writes_nothing_and_failover_a_message_a_route(space: Namespace) -> None:
    """There are no objects; a restart adopts every route unwritten; a lost leg is gone from each route, and back with the leg."""

    async def scenario() -> None:
        async with keeping(through(LEGS, BLOCKS), options=CLASSIC):
            assert space.ip_json("nexthop") == []
            assert ours(space).count("nexthop via 10.2.0.2 dev up1 weight 1") == 30
        async with (
            monitoring(space, "route", "nexthop") as watcher,
            keeping(through(LEGS, BLOCKS), options=CLASSIC, compare_s=0.2) as kept,
        ):
            assert heard(watcher, 1.0) == ""
            assert kept.notices == []
        async with keeping(through(LEGS, BLOCKS), options=CLASSIC) as kept:
            kept.want(through(LEGS[1:], BLOCKS))
            await kept.until(kept.right)
            assert ours(space).count("via 10.2.0.2 dev up1") == 30
            assert "up0" not in ours(space)
            kept.table.set(LEGS[0], kept.table.snapshot()[LEGS[1]])
            kept.table.set(NODE, Group(LEGS, (1, 3)))
            await kept.until(kept.right)
            assert ours(space).count("weight 3") == 30
            assert await kept.kernel.compare() == 0

    space.run(scenario)


def test_links_that_come_back_get_all_that_was_on_them(space: Namespace) -> None:
    """A link that goes down or away, and a route whose hops another changes: all is as desired again."""

    async def scenario() -> None:
        async with keeping(through(LEGS, BLOCKS), options=CLASSIC) as kept:
            space.ip("link", "set", "up0", "down")
            await kept.until(lambda: LEGS[0] not in kept.kernel.actual)
            space.ip("link", "set", "up0", "up")
            await kept.until(kept.right)

            space.ip("link", "delete", "up1")
            await kept.until(lambda: LEGS[1] not in kept.kernel.actual)
            space.ip("link", "add", "up1", "type", "veth", "peer", "name", "far1")
            for command in ("link set far1 up", "link set up1 up", "address add 10.2.0.1/24 dev up1"):
                space.ip(*command.split())
            await kept.until(kept.right)

            # what the kernel took along without a word is known once it was read again
            await kept.until(lambda: kept.kernel._due_in_s() is None and kept.right())
            kept.drift.clear()
            space.ip("route", "replace", str(BLOCKS[3].prefix), "via", "10.1.0.7", "proto", "179")
            space.ip("route", "delete", str(BLOCKS[4].prefix), "proto", "179")
            await kept.until(lambda: {BLOCKS[3], BLOCKS[4]} <= set(kept.drift))
            await kept.until(kept.right)
            kept.drift.clear()
            assert (await kept.kernel.compare(), kept.drift) == (0, [])

    space.run(scenario)

    assert ours(space).count("nexthop via 10.1.0.2 dev up0 weight 1") == 30
    assert ours(space).count("nexthop via 10.2.0.2 dev up1 weight 1") == 30
    assert "dead" not in ours(space)


@pytest.mark.parametrize(("before", "after"), [(DEFAULTS, CLASSIC), (CLASSIC, DEFAULTS)], ids=["to hops", "to objects"])
def test_change_of_mode_moves_every_route(space: Namespace, before: KernelOptions, after: KernelOptions) -> None:
    """A restart with the other setting rewrites each route in place, and leaves no object behind that nobody uses."""
    target: dict[KernelKey, KernelValue] = through(LEGS, BLOCKS)

    async def scenario() -> None:
        async with keeping(target, options=before):
            pass
        async with monitoring(space, "route") as watcher, keeping(target, options=after) as kept:
            await kept.until(lambda: len(space.ip_json("nexthop")) == (0 if after is CLASSIC else 3))
            space.ip("link", "set", "up0", "mtu", "1400")
            lines = []
            while line := heard(watcher):
                lines.append(line)
            assert not any("Deleted" in line for line in lines)
            assert kept.right()

    space.run(scenario)

    assert len(ours(space).splitlines()) == 30 * 3
    assert (" nhid " in ours(space)) is (after is DEFAULTS)
