"""Another who deletes, replaces and adds at random what is ours and what is not: in the end ours is as desired, its own as it left it.

CHAOS_S sets for how long (20 s, in the virtual machine 8; by hand 120 s), CHAOS_SEED what happens; with CHAOS_OBJECTS=off there are no
nexthop objects.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bgpd.adapters.netlink.options import KernelOptions, NexthopObjects
from bgpd.adapters.netlink.routes import Kernel
from bgpd.model.forwarding import (
    DeviceKey,
    Fdb,
    FdbKey,
    Group,
    GroupKey,
    KernelKey,
    KernelRoute,
    KernelValue,
    Leg,
    Neighbour,
    NeighbourKey,
    Present,
    RouteKey,
    RouteKind,
    VxlanDevice,
)
from bgpd.model.prefix import Address, Prefix
from bgpd.sim.namespace import Namespace
from tests.netns.kernel_world import LEGS, A, Kept, blocks, keeping, make_space
from tests.vm.patience import PATIENCE

pytestmark = [pytest.mark.netns, pytest.mark.vm, pytest.mark.timeout(600)]

CHAOS_S = float(os.environ.get("CHAOS_S", "20" if PATIENCE == 1 else "8"))
SEED = int(os.environ.get("CHAOS_SEED", "1"))
OPTIONS = KernelOptions(objects=NexthopObjects(os.environ.get("CHAOS_OBJECTS", "auto")))
ROUND = 8
"""Deeds between two looks of the event loop."""
ROUTES = 300
LEGS6 = tuple(Leg(leg.device, A(f"fd0{number + 1}::2")) for number, leg in enumerate(LEGS))
DEVICE = DeviceKey("vxlan.bgpd")
TUNNEL = Leg(DEVICE.name, A("10.9.0.2"), onlink=True)


def wanted() -> dict[KernelKey, KernelValue]:
    """Want routes of both families through four groups, and some through a tunnel."""
    found: dict[KernelKey, KernelValue] = {
        DEVICE: VxlanDevice(vni=4096, port=4789, local=A("10.1.0.1"), mac="66:00:00:00:00:01", mtu_bytes=1450),
        NeighbourKey(DEVICE.name, A("10.9.0.2")): Neighbour("66:00:00:00:00:02"),
        FdbKey(DEVICE.name, "66:00:00:00:00:02"): Fdb(A("10.9.0.2")),
        **{leg: Present() for leg in (*LEGS, *LEGS6, TUNNEL)},
    }
    legs = {"a": LEGS[:1], "b": LEGS, "c": LEGS6[:1], "d": LEGS6, "t": (TUNNEL,)}
    found.update({GroupKey(name): Group(of) for name, of in legs.items()})
    for number, key in enumerate(blocks(ROUTES)):
        found[key] = KernelRoute(RouteKind.UNICAST, GroupKey("abt"[number % 3]))
    for number in range(ROUTES // 3):
        key6 = RouteKey(Prefix.of(Address(A("fd65::") + (number << 64)), 64))
        found[key6] = KernelRoute(RouteKind.UNICAST, GroupKey("cd"[number % 2]))
    return found


class Other:
    """Another program: what it does by chance, and how its own routes must be."""

    def __init__(self, space: Namespace, chance: random.Random) -> None:
        self.space = space
        self.chance = chance
        self.routes: dict[str, str] = {}
        """Its routes: prefix and metric, and how they are. They are on a link of its own that stays up."""
        self.counts: dict[str, int] = {}
        space.ip("link", "add", "oth0", "type", "veth", "peer", "name", "oth1")
        for command in ("link set oth1 up", "link set oth0 up", "address add 10.99.0.1/16 dev oth0"):
            space.ip(*command.split())
        for number in range(20):
            self._set(f"203.0.113.{number} metric 5", "via 10.99.0.9 dev oth0 proto static")
        self._set("default metric 100", "via 10.99.0.8 dev oth0 proto dhcp")

    def act(self, script: Path, nexthops: list[int]) -> None:
        """Do some deeds, as one batch; those that cannot be done are left out by ``ip``."""
        deeds: list[Callable[[], list[str]]] = [
            self._drop_route,
            self._replace_route,
            self._take_place,
            self._stray,
            lambda: [f"nexthop delete id {self.chance.choice(nexthops)}"] if nexthops else [],
            self._link,
            self._device,
            self._own_route,
            self._own_nexthop,
        ]
        weights = [8, 4, 2, 2, 2, 1, 1, 8, 2]
        lines: list[str] = []
        for _ in range(ROUND):
            (deed,) = self.chance.choices(deeds, weights)
            lines += deed()
        lines.sort(key=lambda line: "203.0.113." not in line)  # first what is its own: some errors end the batch
        script.write_text("\n".join(lines) + "\n")
        self.space.attempt("-force", "-batch", str(script))

    def end(self) -> None:
        """Mend links and addresses, and give back the places it took."""
        for number in range(2):
            if not self.space.attempt("link", "show", f"up{number}"):
                self.space.ip("link", "add", f"up{number}", "type", "veth", "peer", "name", f"far{number}")
            for command in (
                f"link set far{number} up",
                f"link set up{number} up",
                f"address replace 10.{number + 1}.0.1/24 dev up{number}",
                f"address replace fd0{number + 1}::1/64 dev up{number} nodad",
            ):
                self.space.ip(*command.split())
        self.space.attempt("route", "flush", "proto", "boot", "metric", "0", "via", "10.99.0.7")

    def strange(self) -> set[str]:
        """Return its routes that are not as it left them."""
        there = [line.split() for line in self.space.ip("route", "show", "dev", "oth0").splitlines()]
        found = {f"{line[0]} metric {line[line.index('metric') + 1]}" for line in there if "metric" in line}
        return found ^ set(self.routes)

    def _route(self) -> str:
        first = A("10.128.0.0")
        return str(Prefix.of(Address(first + 64 * self.chance.randrange(ROUTES)), 26))

    def _drop_route(self) -> list[str]:
        return [f"route delete {self._route()} proto 179"]

    def _replace_route(self) -> list[str]:
        kind = self.chance.choice(["blackhole", "unreachable", "prohibit"])
        return [f"route replace {kind} {self._route()} proto 179"]

    def _take_place(self) -> list[str]:
        return [f"route replace {self._route()} via 10.99.0.7 dev oth0"]

    def _stray(self) -> list[str]:
        number = self.chance.randrange(256)
        return [f"route add blackhole 198.51.100.{number} proto 179 metric {number}"]

    def _link(self) -> list[str]:
        number = self.chance.randrange(2)
        up = [f"link set far{number} up", f"link set up{number} up"]
        address = [f"address replace 10.{number + 1}.0.1/24 dev up{number}"]
        address6 = [f"address replace fd0{number + 1}::1/64 dev up{number} nodad"]
        match self.chance.randrange(4):
            case 0:
                return [f"link set up{number} down", *up, *address6]
            case 1:
                return [f"link set far{number} down", *up]
            case 2:
                return [f"address delete 10.{number + 1}.0.1/24 dev up{number}", *address]
            case _:
                add = f"link add up{number} type veth peer name far{number}"
                return [f"link delete up{number}", add, *up, *address, *address6]

    def _device(self) -> list[str]:
        deeds = ["link delete", "link set {} down", "link set {} mtu 1300", "neighbour flush dev", "address flush dev"]
        deed = self.chance.choice(deeds)
        return [deed.format(DEVICE.name) if "{}" in deed else f"{deed} {DEVICE.name}"]

    def _own_route(self) -> list[str]:
        key = f"203.0.113.{self.chance.randrange(256)} metric {self.chance.randrange(1, 4)}"
        if key in self.routes and self.chance.random() < 0.5:
            del self.routes[key]
            return [f"route delete {key} proto static"]
        self.routes[key] = "static"
        return [f"route replace {key} via 10.99.0.{self.chance.randrange(2, 250)} dev oth0 proto static"]

    def _own_nexthop(self) -> list[str]:
        number = self.chance.randrange(100, 120)
        if self.chance.random() < 0.5:
            return [f"nexthop delete id {number}"]
        return [f"nexthop replace id {number} via 10.99.0.{number} dev oth0 proto zebra"]

    def _set(self, key: str, how: str) -> None:
        self.space.ip("route", "replace", *key.split(), *how.split())
        self.routes[key] = how


@pytest.fixture
def space() -> Iterator[Namespace]:
    made = make_space(f"bgpdch{os.getpid()}")
    yield made
    made.close()


def test_ours_is_as_desired_and_others_as_left_after_chaos(space: Namespace, tmp_path: Path) -> None:
    """After routes, nexthops, links, addresses and the device were disturbed at random, a fresh reading finds what is desired."""
    other = Other(space, random.Random(SEED))
    target = wanted()

    async def scenario() -> tuple[int, float]:
        async with keeping(target, options=OPTIONS) as kept:
            deadline = time.monotonic() + CHAOS_S
            rounds = 0
            while time.monotonic() < deadline:
                ids = [each["id"] for each in space.ip_json("nexthop") if each["id"] > 0x62670000]
                await asyncio.to_thread(other.act, tmp_path / "deeds", ids)
                rounds += 1
            assert other.strange() == set()
            nexthops = others_nexthops(space)
            other.end()
            calm = time.monotonic()
            await settled(kept)
            took_s = time.monotonic() - calm
            assert other.strange() == set()
            assert others_nexthops(space) == nexthops
            assert await kept.kernel.compare() == 0
            return rounds, took_s

    rounds, took_s = space.run(scenario)

    print(f"\n{rounds * ROUND} deeds in {CHAOS_S:.0f} s, seed {SEED}; all right {took_s:.1f} s after the last")
    found = space.run(_fresh)
    assert anonymous(found) == anonymous(target)


async def settled(kept: Kept) -> None:
    """Wait until all is right: at most the longest wait of what was fought over, and then what hangs on it."""
    deadline = time.monotonic() + 90 * PATIENCE
    while not kept.right():
        if time.monotonic() >= deadline:
            await kept.until(kept.right)  # tells what is not
        await asyncio.sleep(0.05)


def others_nexthops(space: Namespace) -> list[int]:
    return sorted(each["id"] for each in space.ip_json("nexthop") if each["id"] < 0x62670000)


async def _fresh() -> dict[KernelKey, KernelValue]:
    async def nowhere(_: object) -> None: ...

    kernel = Kernel(nowhere, lambda _: None, OPTIONS)
    await kernel.open()
    await kernel.close()
    return kernel.actual


def anonymous(actual: dict[KernelKey, KernelValue]) -> dict[KernelKey, KernelValue]:
    """Call groups by their legs, since a fresh reading knows no names."""
    names = {key: GroupKey(str(value)) for key, value in actual.items() if isinstance(key, GroupKey)}
    plain: dict[KernelKey, KernelValue] = {}
    for key, value in actual.items():
        if isinstance(value, KernelRoute) and value.group is not None:
            value = KernelRoute(value.kind, names[value.group])  # noqa: PLW2901
        plain[names[key] if isinstance(key, GroupKey) else key] = value
    return plain
