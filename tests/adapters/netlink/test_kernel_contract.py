"""The contract of the kernel target: the fake and the real kernel answer alike. The real one is read back by ``ip``, from outside."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from msgspec.structs import replace

from bgpd.adapters.netlink.options import KernelOptions, NexthopObjects
from bgpd.adapters.netlink.routes import Kernel
from bgpd.adapters.wireguard_keys import WireguardKeys
from bgpd.model.event import (
    AddressAdded,
    AddressRemoved,
    Event,
    ForeignRouteChanged,
    ForeignRouteRemoved,
    KernelSynced,
    LinkChanged,
    LinkRemoved,
)
from bgpd.model.forwarding import (
    WIREGUARD_DEVICE,
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
    RuleKey,
    VxlanDevice,
    WireguardDevice,
    WireguardPeer,
    WireguardPeerKey,
)
from bgpd.model.prefix import Address, Family, Prefix
from bgpd.sim.kernel import FakeKernel
from bgpd.sim.namespace import Namespace
from tests.vm.patience import PATIENCE

DEADLINE_S = 10.0 * PATIENCE
A, P = Address.parse, Prefix.parse
LEG0 = Leg("up0", A("10.1.0.2"))
LEG1 = Leg("up1", A("10.2.0.2"))
LEG6 = Leg("up0", A("fd01::2"))
NODE = GroupKey("node")
VIA_NODE = KernelRoute(RouteKind.UNICAST, NODE)
BLACKHOLE = KernelRoute(RouteKind.BLACKHOLE)
UNREACHABLE = KernelRoute(RouteKind.UNREACHABLE)
BLOCK = RouteKey(P("10.65.1.0/26"))
DEVICE = DeviceKey("vxlan.bgpd")
VXLAN = VxlanDevice(vni=4096, port=4789, local=A("10.1.0.1"), mac="66:00:00:00:00:01", mtu_bytes=1450)
NATIVE: list[tuple[KernelKey, KernelValue | None]] = [
    (LEG0, Present()),
    (LEG1, Present()),
    (NODE, Group((LEG0, LEG1))),
    (BLOCK, VIA_NODE),
]

Lines = set[tuple[str, str, tuple[str, ...]]]
"""Routes of ours seen from outside: prefix, kind, legs as "device gateway"."""


Peers = dict[str, tuple[str, ...]]
"""WireGuard peers seen from outside: public key to allowed IPs."""


class World(Protocol):
    """What surrounds a target: two uplinks (10.1.0.1/24, fd01::1/64 on up0; 10.2.0.1/24 on up1), and what others do."""

    objects: bool
    """Whether legs and groups are nexthop objects, which others can remove and which the kernel judges one by one."""

    def target(self, deliver: Callable[[Event], Awaitable[None]], drifted: Callable[..., None]) -> Any: ...
    def run(self, scenario: Callable[[], Any]) -> None: ...
    def set_link(self, name: str, *, up: bool) -> None: ...
    def remove_link(self, name: str) -> None: ...
    def add_address(self, device: str, interface: str) -> None: ...
    def remove_address(self, device: str, interface: str) -> None: ...
    def add_foreign(self, prefix: str, *hops: tuple[str, str]) -> None: ...
    def remove_foreign(self, prefix: str) -> None: ...
    def remove(self, key: KernelKey) -> None: ...
    def lines(self) -> Lines: ...
    def wireguard_key(self) -> str: ...
    def wireguard_peers(self) -> Peers: ...
    def close(self) -> None: ...


class FakeWorld:
    objects = True

    def __init__(self) -> None:
        self.kernel = FakeKernel(_nowhere, lambda _: None)
        for number in (0, 1):
            self.kernel.add_link(f"up{number}")
            self.kernel.add_address(f"up{number}", f"10.{number + 1}.0.1/24")
        self.kernel.add_address("up0", "fd01::1/64")

    def target(self, deliver: Callable[[Event], Awaitable[None]], drifted: Callable[..., None]) -> Any:
        self.kernel.deliver, self.kernel.drifted = deliver, drifted
        return self.kernel

    def run(self, scenario: Callable[[], Any]) -> None:
        asyncio.run(scenario())

    def set_link(self, name: str, *, up: bool) -> None:
        self.kernel.set_link(name, up=up)

    def remove_link(self, name: str) -> None:
        self.kernel.remove_link(name)

    def add_address(self, device: str, interface: str) -> None:
        self.kernel.add_address(device, interface)

    def remove_address(self, device: str, interface: str) -> None:
        self.kernel.remove_address(device, interface)

    def add_foreign(self, prefix: str, *hops: tuple[str, str]) -> None:
        self.kernel.add_foreign(P(prefix), tuple((device, A(gateway)) for device, gateway in hops))

    def remove_foreign(self, prefix: str) -> None:
        self.kernel.remove_foreign(P(prefix))

    def remove(self, key: KernelKey) -> None:
        self.kernel.remove(key)

    def lines(self) -> Lines:
        held = self.kernel.actual
        found: Lines = set()
        for key, value in held.items():
            if isinstance(key, RouteKey) and isinstance(value, KernelRoute):
                group = held[value.group] if value.group else None
                legs = group.legs if isinstance(group, Group) else ()
                found.add((str(key.prefix), value.kind.value, tuple(f"{leg.device} {leg.gateway}" for leg in legs)))
        return found

    def wireguard_key(self) -> str:
        return "".join(("b2xk" * 10, "b2w="))

    def wireguard_peers(self) -> Peers:
        held = self.kernel.actual.items()
        peers = [(key, value) for key, value in held if isinstance(key, WireguardPeerKey)]
        return {
            key.public_key: tuple(map(str, value.allowed)) for key, value in peers if isinstance(value, WireguardPeer)
        }

    def close(self) -> None:
        pass


class RealWorld:
    def __init__(self, objects: NexthopObjects) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="bgpdnl")
        self.options = KernelOptions(objects=objects, wireguard_keys=Path(self.folder.name))
        self.objects = objects is not NexthopObjects.OFF
        self.space = Namespace(f"bgpdnl{os.getpid()}")
        self.space.batch(
            *(
                line
                for number in (0, 1)
                for line in (
                    f"link add up{number} type veth peer name far{number}",
                    f"link set far{number} up",
                    f"link set up{number} up",
                    f"address add 10.{number + 1}.0.1/24 dev up{number}",
                )
            ),
            "address add fd01::1/64 dev up0 nodad",
        )

    def target(self, deliver: Callable[[Event], Awaitable[None]], drifted: Callable[..., None]) -> Any:
        return Kernel(deliver, drifted, self.options)

    def run(self, scenario: Callable[[], Any]) -> None:
        self.space.run(scenario)

    def set_link(self, name: str, *, up: bool) -> None:
        self.space.ip("link", "set", name, "up" if up else "down")
        if up and name == "up0" and "fd01::1" not in self.space.ip("-6", "address", "show", "dev", "up0"):
            self.space.ip("address", "add", "fd01::1/64", "dev", "up0", "nodad")

    def remove_link(self, name: str) -> None:
        self.space.ip("link", "delete", name)

    def add_address(self, device: str, interface: str) -> None:
        self.space.ip("address", "add", interface, "dev", device)

    def remove_address(self, device: str, interface: str) -> None:
        self.space.ip("address", "delete", interface, "dev", device)

    def add_foreign(self, prefix: str, *hops: tuple[str, str]) -> None:
        paths = [word for device, gateway in hops for word in ("nexthop", "via", gateway, "dev", device)]
        self.space.ip("route", "replace", prefix, "proto", "static", *paths)

    def remove_foreign(self, prefix: str) -> None:
        self.space.ip("route", "delete", prefix, "proto", "static")

    def remove(self, key: KernelKey) -> None:
        match key:
            case RouteKey():
                self.space.ip("route", "delete", str(key.prefix), "proto", "179")
            case NeighbourKey():
                self.space.ip("neighbour", "delete", str(key.address), "dev", key.device)
            case FdbKey():
                self.space.execute("bridge", "fdb", "delete", key.mac, "dev", key.device)
            case DeviceKey():
                self.space.ip("link", "delete", key.name)
            case RuleKey():
                self.space.ip(f"-{key.family.value}", "rule", "delete", "priority", str(key.priority))
            case Leg():
                (found,) = [each for each in self.space.ip_json("nexthop") if each.get("gateway") == str(key.gateway)]
                self.space.ip("nexthop", "delete", "id", str(found["id"]))
            case GroupKey():
                (found,) = [each for each in self.space.ip_json("nexthop") if "group" in each]
                self.space.ip("nexthop", "delete", "id", str(found["id"]))

    def lines(self) -> Lines:
        found: Lines = set()
        for family, bits in (("-4", 32), ("-6", 128)):
            for route in self.space.ip_json(family, "-d", "route", "show", "table", "all", "proto", "179"):
                hops = route.get("nexthops") or ([route] if "gateway" in route else [])
                hops = [hop for hop in hops if "dead" not in hop["flags"]]
                legs = tuple(sorted(f"{hop['dev']} {hop['gateway']}" for hop in hops))
                prefix = route["dst"] if "/" in route["dst"] else f"{route['dst']}/{bits}"
                found.add((prefix, route.get("type", "unicast"), legs))
        return found

    def wireguard_key(self) -> str:
        return WireguardKeys(self.options.wireguard_keys).public()

    def wireguard_peers(self) -> Peers:
        lines = self.space.execute("wg", "show", WIREGUARD_DEVICE, "allowed-ips").splitlines()
        peers = (line.split("\t") for line in lines)
        return {key: tuple(sorted(allowed.split(), key=P)) for key, allowed in peers}

    def close(self) -> None:
        self.space.attempt("link", "delete", WIREGUARD_DEVICE)
        self.space.close()
        self.folder.cleanup()


async def _nowhere(_: Event) -> None:
    pass


class Session:
    """A target that is open and running, with what it told."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.events: list[Event] = []
        self.drift: list[KernelKey] = []
        self.target = world.target(self._deliver, self.drift.extend)

    async def _deliver(self, event: Event) -> None:
        self.events.append(event)

    async def apply(self, *changes: tuple[KernelKey, KernelValue | None]) -> None:
        """Apply changes that must succeed."""
        assert await self.target.apply(changes) == {}

    async def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, (self.events[-5:], self.drift, self.target.actual)
            await asyncio.sleep(0.01)

    async def told(self, event: Event) -> None:
        await self.until(lambda: event in self.events)

    async def settled(self) -> None:
        """Wait until everything that others did so far is told: an address comes last."""
        mark = A("127.9.9.9")
        self.world.add_address("lo", "127.9.9.9/32")
        await self.until(
            lambda: any(isinstance(event, AddressAdded) and event.address == mark for event in self.events)
        )
        self.world.remove_address("lo", "127.9.9.9/32")
        await self.until(
            lambda: any(isinstance(event, AddressRemoved) and event.address == mark for event in self.events)
        )
        self.events[:] = [event for event in self.events if getattr(event, "address", None) != mark]


@contextlib.asynccontextmanager
async def session(world: World) -> AsyncIterator[Session]:
    opened = Session(world)
    await opened.target.open()
    task = asyncio.create_task(opened.target.run())
    try:
        yield opened
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await opened.target.close()


@pytest.fixture(
    params=[
        pytest.param("fake", marks=pytest.mark.core),
        pytest.param("real", marks=(pytest.mark.netns, pytest.mark.vm)),
    ]
)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    made: World
    if request.param == "fake":
        made = FakeWorld()
        made.kernel.add_link("lo")
    else:
        made = RealWorld(NexthopObjects.AUTO if request.param == "real" else NexthopObjects.OFF)
    yield made
    made.close()


def test_open_tells_what_is_there(world: World) -> None:
    """Opening tells links, addresses and connected routes, and then KernelSynced."""

    async def scenario() -> None:
        async with session(world) as s:
            names = {event.name for event in s.events if isinstance(event, LinkChanged) and event.up}
            assert names >= {"up0", "up1", "lo"}
            assert AddressAdded("up0", A("10.1.0.1"), P("10.1.0.0/24")) in s.events
            assert ForeignRouteChanged(prefix=P("10.1.0.0/24"), metric=0, hops=(("up0", None),)) in s.events
            assert ForeignRouteChanged(prefix=P("fd01::/64"), metric=256, hops=(("up0", None),)) in s.events
            assert s.events[-1] == KernelSynced()
            assert s.target.actual == {}

    world.run(scenario)


def test_route_follows_its_group(world: World) -> None:
    """A route, its group and its legs are added, replaced and removed, and the kernel shows it."""

    async def scenario() -> None:
        async with session(world) as s:
            await s.apply(*NATIVE)
            assert world.lines() == {("10.65.1.0/26", "unicast", ("up0 10.1.0.2", "up1 10.2.0.2"))}
            assert s.target.actual == dict(NATIVE)

            await s.apply((NODE, Group((LEG1,))))
            assert world.lines() == {("10.65.1.0/26", "unicast", ("up1 10.2.0.2",))}

            await s.apply((BLOCK, None), (NODE, None), (LEG0, None), (LEG1, None))
            assert world.lines() == set()
            assert s.target.actual == {}
            await s.settled()
            assert s.drift == []
            assert s.target.actual == {}

    world.run(scenario)


def test_route_changes_its_kind(world: World) -> None:
    """A route changes between unicast, blackhole and unreachable in place, in both families and any table."""

    async def scenario() -> None:
        async with session(world) as s:
            group6 = GroupKey("node6")
            await s.apply(*NATIVE, (LEG6, Present()), (group6, Group((LEG6,))))
            block6, other = RouteKey(P("fd65::/64")), RouteKey(P("10.66.0.0/16"), 1000)
            await s.apply((block6, KernelRoute(RouteKind.UNICAST, group6)), (other, UNREACHABLE))
            assert ("fd65::/64", "unicast", ("up0 fd01::2",)) in world.lines()
            assert ("10.66.0.0/16", "unreachable", ()) in world.lines()

            for kind in (BLACKHOLE, UNREACHABLE):
                await s.apply((BLOCK, kind), (block6, kind))
                assert ("10.65.1.0/26", kind.kind.value, ()) in world.lines()
                assert ("fd65::/64", kind.kind.value, ()) in world.lines()

            await s.apply((BLOCK, VIA_NODE), (block6, KernelRoute(RouteKind.UNICAST, group6)), (other, None))
            assert world.lines() == {
                ("10.65.1.0/26", "unicast", ("up0 10.1.0.2", "up1 10.2.0.2")),
                ("fd65::/64", "unicast", ("up0 fd01::2",)),
            }

            await s.settled()
            assert s.drift == []

    world.run(scenario)


def test_vxlan_device_and_what_is_on_it(world: World) -> None:
    """Device, neighbour, FDB entry and an onlink leg are made, changed, and removed."""

    async def scenario() -> None:
        async with session(world) as s:
            far = A("10.65.1.0")
            leg = Leg(DEVICE.name, far, onlink=True)
            neighbour, fdb = NeighbourKey(DEVICE.name, far), FdbKey(DEVICE.name, "66:00:00:00:00:02")
            made: list[tuple[KernelKey, KernelValue | None]] = [
                (DEVICE, VXLAN),
                (neighbour, Neighbour("66:00:00:00:00:02")),
                (fdb, Fdb(A("10.1.0.2"))),
                (leg, Present()),
                (NODE, Group((leg,))),
                (BLOCK, VIA_NODE),
            ]
            await s.apply(*made)
            assert s.target.actual == dict(made)
            assert world.lines() == {("10.65.1.0/26", "unicast", ("vxlan.bgpd 10.65.1.0",))}
            await s.until(lambda: any(isinstance(e, LinkChanged) and e.name == DEVICE.name for e in s.events))

            await s.apply((fdb, Fdb(A("10.1.0.3"))), (neighbour, Neighbour("66:00:00:00:00:03")))
            await s.settled()
            assert s.target.actual == {**dict(made), fdb: Fdb(A("10.1.0.3")), neighbour: Neighbour("66:00:00:00:00:03")}
            assert s.drift == []

            await s.apply(*((key, None) for key, _ in reversed(made)))
            await s.told(LinkRemoved(DEVICE.name))
            assert s.target.actual == {}

    world.run(scenario)


def test_restart_adopts(world: World) -> None:
    """After a restart groups are found without names; adopting gives them back, and nothing is left to write."""

    async def scenario() -> None:
        async with session(world) as s:
            await s.apply(*NATIVE)
        async with session(world) as s:
            found = next(key for key in s.target.actual if isinstance(key, GroupKey))
            assert found.name.startswith("#")
            assert s.target.actual[BLOCK] == KernelRoute(RouteKind.UNICAST, found)
            assert s.target.actual[found] == Group((LEG0, LEG1))

            s.target.adopt([(BLOCK, VIA_NODE), (RouteKey(P("10.65.9.0/26")), VIA_NODE)])

            assert s.target.actual == dict(NATIVE)
            await s.apply((NODE, Group((LEG0,))))
            assert world.lines() == {("10.65.1.0/26", "unicast", ("up0 10.1.0.2",))}
            await s.settled()
            assert s.drift == []

    world.run(scenario)


def test_unadopted_group_is_removable(world: World) -> None:
    """A group that nobody desires any more is removed by the name it was found with."""

    async def scenario() -> None:
        async with session(world) as s:
            await s.apply(*NATIVE)
        async with session(world) as s:
            found = next(key for key in s.target.actual if isinstance(key, GroupKey))
            s.target.adopt([(BLOCK, BLACKHOLE)])
            await s.apply((BLOCK, None), (found, None), (LEG0, None), (LEG1, None))
            assert s.target.actual == {}
            assert world.lines() == set()

    world.run(scenario)


def test_link_down_is_mirrored_and_repaired(world: World) -> None:
    """A link that goes down takes its legs, shrinks groups, and takes routes of groups left empty; all can be put back."""

    async def scenario() -> None:
        async with session(world) as s:
            only, lone = GroupKey("only"), RouteKey(P("10.65.2.0/26"))
            await s.apply(*NATIVE, (only, Group((LEG0,))), (lone, KernelRoute(RouteKind.UNICAST, only)))

            world.set_link("up0", up=False)
            await s.until(lambda: {LEG0, NODE, only, lone} <= set(s.drift))
            assert s.target.actual == {LEG1: Present(), NODE: Group((LEG1,)), BLOCK: VIA_NODE}
            assert world.lines() == {("10.65.1.0/26", "unicast", ("up1 10.2.0.2",))}
            assert BLOCK not in s.drift
            await s.told(ForeignRouteRemoved(prefix=P("10.1.0.0/24"), metric=0))
            assert set(await s.target.apply([(LEG0, Present())])) == {LEG0}

            s.events.clear()
            world.set_link("up0", up=True)
            await s.told(ForeignRouteChanged(prefix=P("10.1.0.0/24"), metric=0, hops=(("up0", None),)))
            await s.apply(
                (LEG0, Present()),
                (NODE, Group((LEG0, LEG1))),
                (only, Group((LEG0,))),
                (lone, KernelRoute(RouteKind.UNICAST, only)),
            )
            assert world.lines() == {
                ("10.65.1.0/26", "unicast", ("up0 10.1.0.2", "up1 10.2.0.2")),
                ("10.65.2.0/26", "unicast", ("up0 10.1.0.2",)),
            }

    world.run(scenario)


def test_link_that_vanishes(world: World) -> None:
    """A removed link is told with its addresses, and its legs drift."""

    async def scenario() -> None:
        async with session(world) as s:
            await s.apply(*NATIVE)
            world.remove_link("up1")
            await s.told(LinkRemoved("up1"))
            assert AddressRemoved("up1", A("10.2.0.1"), P("10.2.0.0/24")) in s.events
            await s.until(lambda: {LEG1, NODE} <= set(s.drift))
            assert s.target.actual == {LEG0: Present(), NODE: Group((LEG0,)), BLOCK: VIA_NODE}

    world.run(scenario)


def test_foreign_route_is_told_and_not_touched(world: World) -> None:
    """A route of another is told with all hops, once per change; ours in its place is refused, and its own is never removed."""

    async def scenario() -> None:
        async with session(world) as s:
            hops = (("up0", "10.1.0.2"), ("up1", "10.2.0.2"))
            world.add_foreign("10.65.1.0/26", *hops)
            told = ForeignRouteChanged(
                prefix=BLOCK.prefix, metric=0, hops=(("up0", A("10.1.0.2")), ("up1", A("10.2.0.2")))
            )
            await s.told(told)
            await s.apply(*NATIVE[:3])
            failed = await s.target.apply([NATIVE[3]])
            assert list(failed) == [BLOCK]
            assert failed[BLOCK].startswith("EEXIST: File exists")
            await s.target.apply([(BLOCK, None)])
            await s.settled()
            assert s.events.count(told) == 1
            assert BLOCK not in s.target.actual

            world.add_foreign("10.65.1.0/26", hops[0])
            await s.told(ForeignRouteChanged(prefix=BLOCK.prefix, metric=0, hops=(("up0", A("10.1.0.2")),)))
            world.remove_foreign("10.65.1.0/26")
            await s.told(ForeignRouteRemoved(prefix=BLOCK.prefix, metric=0))
            await s.apply(NATIVE[3])

    world.run(scenario)


@pytest.mark.parametrize("key", [BLOCK, LEG0, NODE])
def test_what_another_removes_is_drift(world: World, key: KernelKey) -> None:
    """An object of ours that another removes is reported, with all that the kernel removes along with it."""
    if not isinstance(key, RouteKey) and not world.objects:
        return  # there is no such object that could be removed

    async def scenario() -> None:
        async with session(world) as s:
            await s.apply(*NATIVE)
            world.remove(key)
            await s.until(lambda: key in s.drift)
            assert key not in s.target.actual
            assert (BLOCK in s.target.actual) == bool(world.lines())
            await s.apply(*((k, v) for k, v in NATIVE if s.target.actual.get(k) != v))
            assert world.lines() == {("10.65.1.0/26", "unicast", ("up0 10.1.0.2", "up1 10.2.0.2"))}

    world.run(scenario)


RULES = (
    RuleKey(Family.IPV4, 1000, 1000),
    RuleKey(Family.IPV6, 1000, 100_000),
    RuleKey(Family.IPV4, 99, 200, 0x100000, 0x100000),
    RuleKey(Family.IPV6, 99, 200, 0, 0xFF, inverted=True),
)


def test_rules_are_made_found_again_and_repaired(world: World) -> None:
    """A rule of either family, with and without a firewall mark, is made, found by a restart, told if another removes it, and removed."""

    async def scenario() -> None:
        async with session(world) as s:
            await s.apply(*((rule, Present()) for rule in RULES))
            assert s.target.actual == dict.fromkeys(RULES, Present())
            world.remove(RULES[0])
            await s.until(lambda: s.drift == [RULES[0]])
            await s.apply((RULES[0], Present()))
        async with session(world) as s:
            assert s.target.actual == dict.fromkeys(RULES, Present())
            await s.apply(*((rule, None) for rule in RULES[1:]))
            await s.settled()
            assert s.drift == []
            assert s.target.actual == {RULES[0]: Present()}
            await s.apply((RULES[0], None), (RULES[1], None))

    world.run(scenario)


@pytest.mark.parametrize("name", ["neighbour", "fdb", "device"])
def test_what_another_removes_from_the_tunnel_is_drift(world: World, name: str) -> None:
    """A neighbour, an FDB entry or the device itself that another removes is reported."""
    neighbour, fdb = NeighbourKey(DEVICE.name, A("10.65.1.0")), FdbKey(DEVICE.name, "66:00:00:00:00:02")
    key = {"neighbour": neighbour, "fdb": fdb, "device": DEVICE}[name]

    async def scenario() -> None:
        async with session(world) as s:
            await s.apply((DEVICE, VXLAN), (neighbour, Neighbour(fdb.mac)), (fdb, Fdb(A("10.1.0.2"))))
            world.remove(key)
            await s.until(lambda: key in s.drift)
            assert key not in s.target.actual
            if key == DEVICE:
                assert s.target.actual == {}
                assert {neighbour, fdb} <= set(s.drift)

    world.run(scenario)


def test_bad_changes_fail_apart(world: World) -> None:
    """Of 10,000 routes the three bad ones fail, each with a reason, and the others are there."""

    async def scenario() -> None:
        async with session(world) as s:
            await s.apply(*NATIVE[:3])
            changes: list[tuple[KernelKey, KernelValue | None]] = [
                (RouteKey(Prefix.of(Address(A("10.128.0.0") + 64 * number), 26)), VIA_NODE) for number in range(10_000)
            ]
            for number in (0, 4_999, 9_999):
                world.add_foreign(str(changes[number][0].prefix), ("up0", "10.1.0.2"))

            failed = await s.target.apply(changes)

            assert set(failed) == {changes[number][0] for number in (0, 4_999, 9_999)}
            assert all(reason.startswith("EEXIST: File exists") for reason in failed.values())
            assert len([key for key in s.target.actual if isinstance(key, RouteKey)]) == 9_997
            assert len(world.lines()) == 9_997

            assert await s.target.apply([(key, None) for key, _ in changes if key not in failed]) == {}
            assert world.lines() == set()

    world.run(scenario)


def test_refusals_have_reasons(world: World) -> None:
    """What cannot be is refused in words: no such device, gateway or group; what depends on it is refused, too."""

    async def scenario() -> None:
        async with session(world) as s:
            nowhere, strange = Leg("eth9", A("10.9.0.1")), Leg("up0", A("203.0.113.1"))
            group = GroupKey("strange")
            failed = await s.target.apply(
                [
                    (nowhere, Present()),
                    (strange, Present()),
                    (group, Group((strange,))),
                    (BLOCK, KernelRoute(RouteKind.UNICAST, group)),
                    (NeighbourKey("vxlan.bgpd", A("10.65.1.0")), Neighbour("66:00:00:00:00:02")),
                    (RouteKey(P("10.65.3.0/26")), BLACKHOLE),
                ]
            )
            assert failed[nowhere] == "no device eth9"
            # without objects the kernel judges a gateway where it meets it: at the route
            assert failed[strange if world.objects else BLOCK].startswith("ENETUNREACH: Network is unreachable")
            assert BLOCK in failed
            s.target.actual.pop(strange, None)
            s.target.actual.pop(group, None)
            assert failed[NeighbourKey("vxlan.bgpd", A("10.65.1.0"))] == "no device vxlan.bgpd"
            assert s.target.actual == {RouteKey(P("10.65.3.0/26")): BLACKHOLE}
            assert await s.target.apply([(nowhere, None), (group, None), (BLOCK, None)]) == {}

    world.run(scenario)


DEVICE_ONLY = Leg("up0")
ONLINK = Leg("up0", A("203.0.113.1"), onlink=True)
WAYS: dict[str, list[tuple[KernelKey, KernelValue | None]]] = {
    "weights": [
        (LEG0, Present()),
        (LEG1, Present()),
        (NODE, Group((LEG0, LEG1), (1, 3))),
        (BLOCK, VIA_NODE),
    ],
    "IPv4 through an IPv6 next hop": [(LEG6, Present()), (NODE, Group((LEG6,))), (BLOCK, VIA_NODE)],
    "gateway of no subnet": [(ONLINK, Present()), (NODE, Group((ONLINK,))), (BLOCK, VIA_NODE)],
    "no gateway": [
        (DEVICE_ONLY, Present()),
        (NODE, Group((DEVICE_ONLY,))),
        (BLOCK, VIA_NODE),
        (RouteKey(P("fd65::/64")), VIA_NODE),
    ],
    "metric, source and MTU": [
        (LEG0, Present()),
        (LEG6, Present()),
        (NODE, Group((LEG0,))),
        (GroupKey("node6"), Group((LEG6,))),
        (RouteKey(BLOCK.prefix, metric=512), KernelRoute(RouteKind.UNICAST, NODE, A("10.1.0.1"), 1400)),
        (RouteKey(BLOCK.prefix, 1000, 7), KernelRoute(RouteKind.UNICAST, NODE, None, 1300)),
        (
            RouteKey(P("fd65::/64"), metric=512),
            KernelRoute(RouteKind.UNICAST, GroupKey("node6"), A("fd01::1"), 1400),
        ),
    ],
    "what drops": [
        (BLOCK, BLACKHOLE),
        (RouteKey(P("10.65.2.0/26")), UNREACHABLE),
        (RouteKey(P("10.65.3.0/26")), KernelRoute(RouteKind.PROHIBIT)),
        (RouteKey(P("fd65::/64")), KernelRoute(RouteKind.PROHIBIT)),
        (RouteKey(P("fd65::/64"), metric=7), BLACKHOLE),
    ],
}
"""Every form that a route of ours has."""


@pytest.mark.parametrize("made", WAYS.values(), ids=WAYS)
def test_every_form_of_route_is_found_again(world: World, made: list[tuple[KernelKey, KernelValue | None]]) -> None:
    """A restart finds every form of route as it was made, adopts it without a write, and can take it away."""

    async def scenario() -> None:
        async with session(world) as s:
            await s.apply(*made)
            assert s.target.actual == dict(made)
            await s.settled()
            assert s.drift == []
        async with session(world) as s:
            s.target.adopt([(key, value) for key, value in made if isinstance(value, KernelRoute)])
            assert s.target.actual == dict(made)

            await s.apply(*((key, None) for key, _ in reversed(made)))
            await s.settled()
            assert s.target.actual == {}
            assert s.drift == []
            assert world.lines() == set()

    world.run(scenario)


def test_metrics_are_keys_of_their_own(world: World) -> None:
    """A route is removed by its metric: ours with another metric, and another's, stay."""

    async def scenario() -> None:
        async with session(world) as s:
            blocks = [
                RouteKey(P(prefix), metric=metric) for prefix in ("10.65.1.0/26", "fd65::/64") for metric in (0, 9)
            ]
            await s.apply(*((block, BLACKHOLE) for block in blocks))

            await s.apply((blocks[1], None), (blocks[2], None))

            assert s.target.actual == {blocks[0]: BLACKHOLE, blocks[3]: BLACKHOLE}
            await s.settled()
            assert s.drift == []
            assert len(world.lines()) == 2

    world.run(scenario)


def test_impossible_routes_are_refused(world: World) -> None:
    """An IPv6 route by an IPv4 leg, and a source address that is not ours, are refused; the route beside them is made."""

    async def scenario() -> None:
        async with session(world) as s:
            wrong, strange = RouteKey(P("fd65::/64")), RouteKey(P("10.65.2.0/26"))
            await s.apply(*NATIVE[:3])
            failed = await s.target.apply(
                [(wrong, VIA_NODE), (strange, KernelRoute(RouteKind.UNICAST, NODE, A("192.0.2.9"))), NATIVE[3]]
            )
            assert set(failed) == {wrong, strange}
            assert all(reason.startswith("EINVAL: Invalid argument") for reason in failed.values())
            assert s.target.actual == dict(NATIVE)

    world.run(scenario)


WIREGUARD = DeviceKey(WIREGUARD_DEVICE)
KEYS = ("".join(("ZmFy" * 10, "ZmE=")), "".join(("bmVh" * 10, "bmU=")))
"""Public keys of others: 32 bytes each."""


def test_wireguard_device_and_peers_are_made_changed_and_removed(world: World) -> None:
    """A device with its key, peers with what is allowed from them; a peer that changes, moves a block, goes; then all of it."""
    far, near = (WireguardPeerKey(key) for key in KEYS)
    device = WireguardDevice(local=A("10.1.0.1"), public_key=world.wireguard_key(), port=51820, mtu_bytes=1440)
    one = WireguardPeer(
        endpoint=A("10.1.0.2"),
        port=51820,
        allowed=(P("10.1.0.2/32"), P("10.65.1.0/26"), P("fd65::/122")),
        keepalive_s=5,
    )
    two = WireguardPeer(endpoint=A("fd01::2"), port=51821, allowed=(P("10.65.2.0/26"),))

    async def scenario() -> None:
        async with session(world) as s:
            await s.apply((WIREGUARD, device), (far, one), (near, two))
            assert {WIREGUARD: device, far: one, near: two} == s.target.actual
            assert {
                KEYS[0]: ("10.1.0.2/32", "10.65.1.0/26", "fd65::/122"),
                KEYS[1]: ("10.65.2.0/26",),
            } == world.wireguard_peers()
            await s.until(lambda: any(isinstance(e, LinkChanged) and e.name == WIREGUARD_DEVICE for e in s.events))

            less, more = replace(one, allowed=one.allowed[:1]), replace(two, allowed=(P("10.65.1.0/26"), *two.allowed))
            await s.apply((far, less), (near, more))
            assert {KEYS[0]: ("10.1.0.2/32",), KEYS[1]: ("10.65.1.0/26", "10.65.2.0/26")} == world.wireguard_peers()

            await s.apply((far, None), (WIREGUARD, replace(device, mtu_bytes=1380)))
            assert {WIREGUARD: replace(device, mtu_bytes=1380), near: more} == s.target.actual
            assert {KEYS[1]} == set(world.wireguard_peers())
            await s.settled()
            assert [] == s.drift

            await s.apply((near, None), (WIREGUARD, None))
            assert {} == s.target.actual

    world.run(scenario)


def test_wireguard_is_found_again_after_a_restart(world: World) -> None:
    """A next daemon finds the device and its peers as they are, a thousand allowed IPs too; one removed takes its peers along."""
    far = WireguardPeerKey(KEYS[0])
    device = WireguardDevice(local=A("10.1.0.1"), public_key=world.wireguard_key(), port=51820, mtu_bytes=1440)
    blocks = tuple(Prefix.of(Address(A("10.65.0.0") + 64 * number), 26) for number in range(1000))
    peer = WireguardPeer(endpoint=A("10.1.0.2"), port=51820, allowed=blocks)

    async def scenario() -> None:
        async with session(world) as s:
            await s.apply((WIREGUARD, device), (far, peer))
        async with session(world) as s:
            assert {WIREGUARD: device, far: peer} == s.target.actual
            assert 0 == await s.target.compare()

            world.remove(WIREGUARD)
            await s.until(lambda: {WIREGUARD, far} <= set(s.drift))
            assert {} == s.target.actual
            await s.apply((WIREGUARD, device), (far, peer))
            assert {KEYS[0]: tuple(map(str, blocks))} == world.wireguard_peers()

    world.run(scenario)
