"""What only a real kernel shows: silent failover, lost notifications, routes of other daemons, and the device's wire format."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from bgpd.adapters.netlink.encode import Resilience
from bgpd.adapters.netlink.options import DEFAULTS, KernelOptions, NexthopObjects
from bgpd.adapters.netlink.routes import RESYNC_GAP_S, Kernel
from bgpd.model.event import Event, ForeignRouteChanged, ForeignRouteRemoved, LinkChanged
from bgpd.model.forwarding import (
    DeviceKey,
    Group,
    GroupKey,
    KernelKey,
    KernelRoute,
    KernelValue,
    Leg,
    Present,
    RouteKey,
    RouteKind,
    VxlanDevice,
)
from bgpd.model.prefix import Address, Prefix
from bgpd.sim.namespace import Namespace
from tests.vm.patience import PATIENCE

pytestmark = [pytest.mark.netns, pytest.mark.vm]

DEADLINE_S = 10.0 * PATIENCE
A, P = Address.parse, Prefix.parse
LEGS = tuple(Leg(f"up{number}", A(f"10.{number + 1}.0.2")) for number in range(2))
NODE = GroupKey("node")
VIA_NODE = KernelRoute(RouteKind.UNICAST, NODE)
DEVICE = DeviceKey("vxlan.bgpd")
VXLAN = VxlanDevice(vni=4096, port=4789, local=A("10.1.0.1"), mac="66:00:00:00:00:01", mtu_bytes=1450)


@pytest.fixture
def space() -> Iterator[Namespace]:
    with Namespace(f"bgpdnk{os.getpid()}") as made:
        made.batch(
            *(
                line
                for number in range(2)
                for line in (
                    f"link add up{number} type veth peer name far{number}",
                    f"link set far{number} up",
                    f"link set up{number} up",
                    f"address add 10.{number + 1}.0.1/24 dev up{number}",
                    f"address add fd0{number + 1}::1/64 dev up{number} nodad",
                )
            )
        )
        yield made


class Opened:
    """A kernel that runs, with what it told."""

    def __init__(self, options: KernelOptions = DEFAULTS) -> None:
        self.events: list[Event] = []
        self.drift: list[KernelKey] = []
        self.kernel = Kernel(self._deliver, self.drift.extend, options)

    async def _deliver(self, event: Event) -> None:
        self.events.append(event)

    async def apply(self, *changes: tuple[KernelKey, KernelValue | None]) -> None:
        assert await self.kernel.apply(changes) == {}

    async def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, (self.events[-5:], self.drift[-5:])
            await asyncio.sleep(0.01)

    async def next(self, event: Event) -> None:
        """Wait for *event* and forget all that was told."""
        await self.until(lambda: event in self.events)
        self.events.clear()


@contextlib.asynccontextmanager
async def opened(*, running: bool = True, options: KernelOptions = DEFAULTS) -> AsyncIterator[Opened]:
    made = Opened(options)
    await made.kernel.open()
    task = asyncio.create_task(made.kernel.run()) if running else None
    try:
        yield made
    finally:
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await made.kernel.close()


async def fresh_reading() -> dict[KernelKey, KernelValue]:
    """What a daemon that starts now would find, with groups named by their legs."""
    async with opened(running=False) as made:
        return anonymous(made.kernel.actual)


def anonymous(actual: dict[KernelKey, KernelValue]) -> dict[KernelKey, KernelValue]:
    names = {key: GroupKey(str(value)) for key, value in actual.items() if isinstance(key, GroupKey)}
    plain: dict[KernelKey, KernelValue] = {}
    for key, value in actual.items():
        if isinstance(value, KernelRoute) and value.group is not None:
            value = KernelRoute(value.kind, names[value.group])  # noqa: PLW2901
        plain[names[key] if isinstance(key, GroupKey) else key] = value
    return plain


@pytest.mark.parametrize("compat", [0, 1])
def test_failover_of_a_group_is_one_message(space: Namespace, compat: int) -> None:
    """Replacing a group's legs moves its routes without touching one: no message of a route, or (compat) repetitions only."""
    space.execute("sysctl", "-q", "-w", f"net.ipv4.nexthop_compat_mode={compat}")
    routes: list[tuple[KernelKey, KernelValue | None]] = [
        (RouteKey(Prefix.of(Address(A("10.128.0.0") + 64 * number), 26)), VIA_NODE) for number in range(50)
    ]

    async def scenario() -> str:
        async with opened() as made:
            await made.apply(*((leg, Present()) for leg in LEGS), (NODE, Group(LEGS)), *routes)
            watcher = space.start("ip", "monitor", "route")
            try:
                await listening(space, watcher)
                await made.apply((NODE, Group(LEGS[1:])))
                space.ip("route", "add", "192.0.2.0/24", "via", "10.2.0.2")  # the mark at which to stop reading
                assert watcher.stdout is not None
                lines: list[str] = []
                while not lines or not lines[-1].startswith("192.0.2.0/24"):
                    lines.append(watcher.stdout.readline())
            finally:
                watcher.kill()
                watcher.communicate()
            path = space.ip("route", "get", "10.128.0.1")
            assert "via 10.2.0.2 dev up1" in path
            assert made.kernel.actual[NODE] == Group(LEGS[1:])
            assert made.drift == []
            # The kernel's own routes to the addresses that it gives new links come when it has checked those.
            return "".join(line for line in lines[:-1] if "proto kernel" not in line)

    heard = space.run(scenario)

    assert "Deleted" not in heard
    assert heard.count("10.1.0.2") == 0
    assert (heard == "") is (compat == 0)


async def listening(space: Namespace, watcher: subprocess.Popen[str]) -> None:
    """Wait until *watcher* has joined its multicast groups."""
    deadline = time.monotonic() + DEADLINE_S
    while not any(line.split()[2] == str(watcher.pid) and int(line.split()[3], 16) for line in netlink_sockets(space)):
        assert time.monotonic() < deadline, "ip monitor does not listen"
        await asyncio.sleep(0.01)


def netlink_sockets(space: Namespace) -> list[str]:
    return space.execute("cat", "/proc/net/netlink").splitlines()[1:]


def test_lost_notifications_are_read_again(space: Namespace, tmp_path: Path) -> None:
    """When the kernel drops notifications, everything is read again, and nothing is missed."""
    count = 2000
    script = tmp_path / "batch"
    foreign = [Prefix.of(Address(A("10.192.0.0") + 64 * number), 26) for number in range(count)]
    lines = [f"route add {prefix} via 10.1.0.2\n" for prefix in foreign]
    script.write_text("route delete 10.65.1.0/26 proto 179\n" + "".join(lines) + "link set up1 mtu 1400\n")

    async def scenario() -> None:
        async with opened() as made:

            def told() -> set[Prefix]:
                return {event.prefix for event in made.events if isinstance(event, ForeignRouteChanged)}

            lost = RouteKey(P("10.65.1.0/26"))
            await made.apply(*((leg, Present()) for leg in LEGS), (NODE, Group(LEGS)), (lost, VIA_NODE))
            listener = made.kernel._listener._socket
            listener.setsockopt(socket.SOL_SOCKET, 33, 4096)
            space.ip("-batch", str(script))  # the event loop stands meanwhile, and the small buffer overflows
            await made.until(lambda: lost in made.drift)
            # the last change came after the overflow: it is told only by reading again
            await made.until(lambda: any(isinstance(e, LinkChanged) and e.mtu_bytes == 1400 for e in made.events))
            await made.until(lambda: told() >= set(foreign))
            assert lost not in made.kernel.actual

    space.run(scenario)


def test_routes_of_other_daemons(space: Namespace) -> None:
    """Routes through nexthop objects of others, and IPv6 multipath, are told with all hops as they change."""
    first, second = ("up0", A("10.1.0.2")), ("up1", A("10.2.0.2"))
    prefix, prefix6 = P("10.77.0.0/16"), P("fd77::/64")

    def changed(*hops: tuple[str, Address | None]) -> ForeignRouteChanged:
        return ForeignRouteChanged(prefix=prefix, metric=0, hops=hops)

    def changed6(*hops: tuple[str, Address | None]) -> ForeignRouteChanged:
        return ForeignRouteChanged(prefix=prefix6, metric=1024, hops=hops)

    async def scenario() -> None:
        async with opened() as made:
            space.ip("nexthop", "add", "id", "11", "via", "10.1.0.2", "dev", "up0", "proto", "zebra")
            space.ip("nexthop", "add", "id", "12", "via", "10.2.0.2", "dev", "up1", "proto", "zebra")
            space.ip("nexthop", "add", "id", "13", "group", "11/12", "proto", "zebra")
            space.ip("route", "add", str(prefix), "nhid", "13", "proto", "zebra")
            await made.next(changed(first, second))
            space.ip("nexthop", "replace", "id", "13", "group", "12", "proto", "zebra")
            await made.next(changed(second))
            space.ip("link", "set", "up1", "down")
            await made.next(ForeignRouteRemoved(prefix=prefix, metric=0))
            space.ip("link", "set", "up1", "up")
            space.ip("address", "add", "fd02::1/64", "dev", "up1", "nodad")

            hop, other = ("up0", A("fd01::2")), ("up1", A("fd02::2"))
            hops = ("nexthop", "via", "fd01::2", "dev", "up0", "nexthop", "via", "fd02::2", "dev", "up1")
            await until_up(space, "up1")
            space.ip("route", "add", str(prefix6), *hops)
            await made.next(changed6(hop, other))
            space.ip("route", "delete", str(prefix6), "via", "fd01::2", "dev", "up0")
            await made.next(changed6(other))
            space.ip("route", "append", str(prefix6), "via", "fd01::2", "dev", "up0")
            await made.next(changed6(hop, other))
            space.ip("route", "delete", str(prefix6))
            await made.until(lambda: ForeignRouteRemoved(prefix=prefix6, metric=1024) in made.events)

    space.run(scenario)


async def until_up(space: Namespace, device: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while "LOWER_UP" not in space.ip("link", "show", "dev", device):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def test_route_of_ours_that_another_replaces_is_drift(space: Namespace) -> None:
    """Another's route that takes the place of ours is drift, and a foreign route; putting ours back is refused while it is there."""
    block = RouteKey(P("10.65.1.0/26"))

    async def scenario() -> None:
        async with opened() as made:
            await made.apply(*((leg, Present()) for leg in LEGS), (NODE, Group(LEGS)), (block, VIA_NODE))
            space.ip("route", "replace", str(block.prefix), "via", "10.1.0.2", "proto", "static")
            await made.until(lambda: block in made.drift)
            assert block not in made.kernel.actual
            told = ForeignRouteChanged(prefix=block.prefix, metric=0, hops=(("up0", A("10.1.0.2")),))
            await made.until(lambda: told in made.events)
            assert list(await made.kernel.apply([(block, VIA_NODE)])) == [block]
            assert "static" in space.ip("route", "show", str(block.prefix))

    space.run(scenario)


def test_removal_not_yet_heard_of_is_overcome(space: Namespace) -> None:
    """A route removed by another a moment ago is made anew when it is to be changed."""
    block = RouteKey(P("10.65.1.0/26"))

    async def scenario() -> None:
        async with opened(running=False) as made:
            await made.apply((block, KernelRoute(RouteKind.BLACKHOLE)))
            space.ip("route", "delete", "blackhole", str(block.prefix), "proto", "179")
            await made.apply((block, KernelRoute(RouteKind.UNREACHABLE)))
            assert made.kernel.actual == {block: KernelRoute(RouteKind.UNREACHABLE)}
            assert "unreachable" in space.ip("route", "show", str(block.prefix))

    space.run(scenario)


def test_lost_answers_fail_and_are_read_back(space: Namespace) -> None:
    """When the kernel's answers overflow their buffer, nothing is believed: all changes fail, and what is there is read."""
    blocks = [RouteKey(Prefix.of(Address(A("10.65.0.0") + 64 * number), 26)) for number in range(400)]
    # an answer each: another has their places
    space.batch(*(f"route add {block.prefix} via 10.1.0.2 proto static" for block in blocks[:399]))

    async def scenario() -> None:
        async with opened() as made:
            made.kernel._socket._socket.setsockopt(socket.SOL_SOCKET, 33, 4096)
            failed = await made.kernel.apply([(block, KernelRoute(RouteKind.BLACKHOLE)) for block in blocks])
            assert set(failed) == set(blocks)
            assert set(failed.values()) == {"ENOBUFS: No buffer space available (answers lost)"}
            made.kernel._socket._socket.setsockopt(socket.SOL_SOCKET, 33, 1 << 20)
            await made.until(lambda: made.drift == [blocks[399]])
            assert made.kernel.actual == {blocks[399]: KernelRoute(RouteKind.BLACKHOLE)}
            space.ip("route", "flush", "proto", "static")
            await made.apply(*((block, KernelRoute(RouteKind.UNREACHABLE)) for block in blocks))

    space.run(scenario)


def test_changes_wished_before_the_first_reading_come_back(space: Namespace) -> None:
    """A restarted daemon that wishes before it has read writes nothing: the wish comes back, to be compared with what is there."""
    block = RouteKey(P("10.65.1.0/26"))
    wanted = [*((leg, Present()) for leg in LEGS), (NODE, Group(LEGS)), (block, VIA_NODE)]

    async def scenario() -> None:
        async with opened() as made:
            await made.apply(*wanted)
        before = space.ip("nexthop"), space.ip("route")
        early = Opened()
        wish = asyncio.create_task(early.kernel.apply(wanted))
        await asyncio.sleep(0)  # it begins
        await early.kernel.open()
        assert await wish == {}
        assert early.drift == [key for key, _ in wanted]
        early.kernel.adopt([(block, VIA_NODE)])
        assert early.kernel.actual == dict(wanted)
        await early.kernel.close()
        assert (space.ip("nexthop"), space.ip("route")) == before

    space.run(scenario)


def test_device_is_in_the_wire_format(space: Namespace) -> None:
    """The device has the VNI, port, outer address, MAC and MTU wanted, does not learn, and is up."""

    async def scenario() -> None:
        async with opened() as made:
            await made.apply((DEVICE, VXLAN))

    space.run(scenario)

    (link,) = space.ip_json("-d", "link", "show", "dev", DEVICE.name)
    details = link["linkinfo"]["info_data"]
    assert (details["id"], details["port"], details["local"], details["learning"]) == (4096, 4789, "10.1.0.1", False)
    assert (link["address"], link["mtu"]) == ("66:00:00:00:00:01", 1450)
    assert "UP" in link["flags"]


def test_wrong_device_is_made_again(space: Namespace) -> None:
    """A device with another VNI is made again; one with another MTU or MAC, or that is down, is mended in place."""
    space.ip("link", "add", DEVICE.name, "type", "vxlan", "id", "7", "dstport", "4789", "local", "10.1.0.1")

    async def scenario() -> None:
        async with opened() as made:
            assert made.kernel.actual[DEVICE] != VXLAN
            await made.apply((DEVICE, VXLAN))
            assert made.kernel.actual == {DEVICE: VXLAN}
            index = space.ip_json("link", "show", "dev", DEVICE.name)[0]["ifindex"]

            space.ip("link", "set", DEVICE.name, "mtu", "1300", "address", "66:00:00:00:00:09")
            await made.until(lambda: DEVICE in made.drift)
            assert made.kernel.actual[DEVICE] != VXLAN
            made.drift.clear()
            space.ip("link", "set", DEVICE.name, "down")
            await made.until(lambda: DEVICE in made.drift)
            await made.apply((DEVICE, VXLAN))
            assert made.kernel.actual == {DEVICE: VXLAN}
            assert space.ip_json("link", "show", "dev", DEVICE.name)[0]["ifindex"] == index

    space.run(scenario)


def test_device_borrows_its_outer_address(space: Namespace) -> None:
    """The device has its outer address as a /32 of its own; taken away, it is drift, and mended in place."""

    async def scenario() -> None:
        async with opened() as made:
            await made.apply((DEVICE, VXLAN))
            assert made.kernel.actual == {DEVICE: VXLAN}
            index = space.ip_json("link", "show", "dev", DEVICE.name)[0]["ifindex"]

            space.ip("address", "del", "10.1.0.1/32", "dev", DEVICE.name)
            await made.until(lambda: DEVICE in made.drift)
            await made.apply((DEVICE, VXLAN))

            assert made.kernel.actual == {DEVICE: VXLAN}
            assert space.ip_json("link", "show", "dev", DEVICE.name)[0]["ifindex"] == index

    space.run(scenario)

    (link,) = space.ip_json("-4", "address", "show", "dev", DEVICE.name)
    assert [(held["local"], held["prefixlen"]) for held in link["addr_info"]] == [("10.1.0.1", 32)]


@pytest.mark.parametrize("strictness", [("all", "1"), ("default", "1"), ("all", "2")])
def test_traffic_comes_in_by_the_tunnel_while_the_way_back_is_another(
    space: Namespace, strictness: tuple[str, str]
) -> None:
    """A packet from the tunnel is accepted though the route to its source leads elsewhere, also on a host whose rp_filter is strict."""
    space.execute("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0")
    space.execute("sysctl", "-qw", f"net.ipv4.conf.{strictness[0]}.rp_filter={strictness[1]}")

    async def scenario() -> None:
        async with opened() as made:
            await made.apply((DEVICE, VXLAN))

    space.run(scenario)
    space.ip("route", "add", "10.65.2.0/26", "via", "10.1.0.2")

    asked = ("route", "get", "10.1.0.1", "from", "10.65.2.1", "iif", DEVICE.name)
    assert "local 10.1.0.1" in space.ip(*asked)
    space.ip("address", "del", "10.1.0.1/32", "dev", DEVICE.name)
    with pytest.raises(RuntimeError, match=r"cross-device|Invalid"):
        space.ip(*asked)


def test_ipv6_outer_address(space: Namespace) -> None:
    """A device with an IPv6 outer address is made and read back."""
    wanted = VxlanDevice(vni=4097, port=4790, local=A("fd01::1"), mac="66:00:00:00:00:01", mtu_bytes=1430)

    async def scenario() -> None:
        async with opened() as made:
            await made.apply((DEVICE, wanted))
        assert await fresh_reading() == {DEVICE: wanted}

    space.run(scenario)


class Chaos:
    """What is wanted, and another who disturbs it by chance."""

    def __init__(self, space: Namespace, seed: int) -> None:
        self.space = space
        self.chance = random.Random(seed)
        legs6 = tuple(Leg(leg.device, A(f"fd0{number + 1}::2")) for number, leg in enumerate(LEGS))
        self.wanted: dict[KernelKey, KernelValue] = {leg: Present() for leg in (*LEGS, *legs6)}
        for name, legs in (("a", LEGS[:1]), ("b", LEGS), ("c", legs6[:1]), ("d", legs6)):
            self.wanted[GroupKey(name)] = Group(legs)
        self.blocks = [RouteKey(Prefix.of(Address(A("10.65.0.0") + 64 * number), 26)) for number in range(40)]
        blocks6 = [RouteKey(Prefix.of(Address(A("fd65::") + (number << 64)), 64)) for number in range(40)]
        for names, blocks in (("ab", self.blocks), ("cd", blocks6)):
            for number, block in enumerate(blocks):
                self.wanted[block] = KernelRoute(RouteKind.UNICAST, GroupKey(names[number % 2]))
        self.blocks += blocks6

    def disturb(self) -> None:
        number = self.chance.randrange(2)
        with contextlib.suppress(RuntimeError):  # what is to be removed may be gone already
            match self.chance.randrange(5):
                case 0:
                    self.space.ip("link", "set", f"up{number}", "down")
                case 1:
                    self.space.ip("link", "set", f"far{number}", "down")
                case 2:
                    found = self.space.ip_json("nexthop") or [{"id": 0}]
                    self.space.ip("nexthop", "delete", "id", str(self.chance.choice(found)["id"]))
                case 3:
                    self.space.ip("route", "delete", str(self.chance.choice(self.blocks).prefix), "proto", "179")
                case 4:
                    self.space.ip("address", "delete", f"10.{number + 1}.0.1/24", "dev", f"up{number}")

    def mend(self) -> None:
        for number in range(2):
            self.space.ip("link", "set", f"far{number}", "up")
            self.space.ip("link", "set", f"up{number}", "up")
            self.space.ip("address", "replace", f"10.{number + 1}.0.1/24", "dev", f"up{number}")
            self.space.ip("address", "replace", f"fd0{number + 1}::1/64", "dev", f"up{number}", "nodad")

    async def reconcile(self, kernel: Kernel) -> None:
        """Do as the reconciler does: add from the legs up, remove from the routes down."""
        adding = [(key, value) for key, value in self.wanted.items() if kernel.actual.get(key) != value]
        unwanted = [key for key in kernel.actual if key not in self.wanted]
        unwanted.sort(key=lambda key: isinstance(key, GroupKey) + 2 * isinstance(key, Leg))
        await kernel.apply([*adding, *((key, None) for key in unwanted)])


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_mirror_is_true_after_chaos(space: Namespace, seed: int) -> None:
    """Whatever others do to links, nexthops and routes, the mirror ends as a fresh reading finds the kernel."""
    chaos = Chaos(space, seed)

    async def scenario() -> None:
        async with opened() as made:
            actual = made.kernel.actual
            for _ in range(6):
                for _ in range(3):
                    chaos.disturb()
                    if chaos.chance.random() < 0.5:
                        await chaos.reconcile(made.kernel)
                deadline = time.monotonic() + DEADLINE_S
                while (found := await fresh_reading()) != anonymous(actual):
                    assert time.monotonic() < deadline, set(found.items()) ^ set(anonymous(actual).items())
                    await asyncio.sleep(RESYNC_GAP_S / 10)
                chaos.mend()

            deadline = time.monotonic() + DEADLINE_S
            while actual != chaos.wanted:
                assert time.monotonic() < deadline, set(chaos.wanted.items()) ^ set(actual.items())
                await chaos.reconcile(made.kernel)
                await asyncio.sleep(RESYNC_GAP_S / 10)
            assert await fresh_reading() == anonymous(chaos.wanted)

    space.run(scenario)


def test_a_device_that_vanishes_under_a_batch_is_that_legs_failure(
    space: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is on a device that has gone a moment ago, or is down, fails with the kernel's reason; all else of the batch is made."""
    block, strange = RouteKey(P("10.65.1.0/26")), GroupKey("strange")

    async def deaf() -> None: ...

    async def scenario() -> None:
        async with opened(running=False) as made:
            monkeypatch.setattr(made.kernel, "_catch_up", deaf)
            wanted = [*((leg, Present()) for leg in LEGS), (strange, Group(LEGS[1:])), (NODE, Group(LEGS[:1]))]
            space.ip("link", "set", "up1", "down")
            failed = await made.kernel.apply([*wanted, (block, VIA_NODE)])
            assert set(failed) == {LEGS[1], strange}
            assert failed[LEGS[1]].startswith("ENETDOWN: Network is down")

            space.ip("link", "delete", "up1")
            failed = await made.kernel.apply(wanted)
            assert set(failed) == {LEGS[1], strange}
            assert failed[LEGS[1]].startswith("EINVAL: Invalid argument (Invalid device index)")
            assert made.kernel.actual == {LEGS[0]: Present(), NODE: Group(LEGS[:1]), block: VIA_NODE}

        async with opened(running=False, options=KernelOptions(objects=NexthopObjects.OFF)) as made:
            monkeypatch.setattr(made.kernel, "_catch_up", deaf)
            await made.apply((Leg("up0"), Present()), (strange, Group((Leg("up0"),))))
            space.ip("link", "delete", "up0")
            drop = RouteKey(P("10.65.2.0/26"))
            failed = await made.kernel.apply(
                [
                    (RouteKey(P("10.65.3.0/26")), KernelRoute(RouteKind.UNICAST, strange)),
                    (drop, KernelRoute(RouteKind.BLACKHOLE)),
                ]
            )
            assert list(failed.values()) == ["ENODEV: No such device"]
            assert drop in made.kernel.actual

    space.run(scenario)


def test_options_of_a_route_are_in_the_kernel(space: Namespace) -> None:
    """Table, metric, source address, MTU, weights and a gateway of the other family are what ``ip`` shows."""
    key = RouteKey(P("10.65.1.0/26"), 1000, 512)
    across = Leg("up1", A("fd02::2"))
    group = Group((LEGS[0], across), (2, 5))

    async def scenario() -> None:
        async with opened() as made:
            value = KernelRoute(RouteKind.UNICAST, NODE, A("10.1.0.1"), 1400)
            await made.apply((LEGS[0], Present()), (across, Present()), (NODE, group), (key, value))

    space.run(scenario)

    (route,) = space.ip_json("-d", "route", "show", "table", "1000", "proto", "179")
    assert (route["dst"], route["metric"], route["prefsrc"]) == ("10.65.1.0/26", 512, "10.1.0.1")
    assert route["metrics"] == [{"mtu": 1400}]
    assert "realm" not in str(route)
    (first, second) = route["nexthops"]
    assert (first["gateway"], first["weight"]) == ("10.1.0.2", 2)
    assert (second["via"], second["weight"]) == ({"family": "inet6", "host": "fd02::2"}, 5)


def test_resilient_group_is_made_replaced_and_adopted(space: Namespace) -> None:
    """With buckets a group is resilient; its legs are replaced in place, and a restart adopts it without a write."""
    options = KernelOptions(resilience=Resilience(buckets=64, idle_s=60.0))
    block = RouteKey(P("10.65.1.0/26"))

    async def scenario() -> None:
        async with opened(options=options) as made:
            await made.apply(*((leg, Present()) for leg in LEGS), (NODE, Group(LEGS)), (block, VIA_NODE))
            await made.apply((NODE, Group(LEGS[1:])))
        async with opened(options=options) as made:
            made.kernel.adopt([(block, VIA_NODE)])
            assert made.kernel.actual[NODE] == Group(LEGS[1:])

    space.run(scenario)

    (group,) = (each for each in space.ip_json("-d", "nexthop") if "group" in each)
    assert (group["type"], group["resilient_args"]["buckets"]) == ("resilient", 64)
    assert group["resilient_args"]["idle_timer"] == 60


def test_change_of_group_type_moves_the_routes(space: Namespace) -> None:
    """A group of the other type is not adopted: routes move to a new one, and the old one goes."""
    block = RouteKey(P("10.65.1.0/26"))
    wanted = {LEGS[0]: Present(), NODE: Group(LEGS[:1]), block: VIA_NODE}

    async def scenario() -> None:
        async with opened() as made:
            await made.apply(*wanted.items())
        async with opened(options=KernelOptions(resilience=Resilience(buckets=8))) as made:
            made.kernel.adopt([(block, VIA_NODE)])
            actual = made.kernel.actual
            assert NODE not in actual
            await made.apply((NODE, Group(LEGS[:1])), (block, VIA_NODE))
            await made.apply(*((key, None) for key in list(actual) if key not in wanted))
            assert actual == wanted

    space.run(scenario)

    (group,) = (each for each in space.ip_json("-d", "nexthop") if "group" in each)
    assert group["type"] == "resilient"
