"""The kernel's neighbour table: whoever does not answer any more is told as silent, and when it answers again."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator

import pytest

from bgpd.adapters.netlink.routes import Kernel
from bgpd.model.event import Event, NeighbourSilent
from bgpd.model.prefix import Address
from bgpd.sim.namespace import Namespace

pytestmark = pytest.mark.netns

A = Address.parse
WAIT_S = 60.0


@pytest.fixture
def pair() -> Iterator[tuple[Namespace, Namespace]]:
    with Namespace(f"bgpdsil{os.getpid()}a") as ours, Namespace(f"bgpdsil{os.getpid()}b") as theirs:
        ours.ip("link", "add", "up0", "type", "veth", "peer", "name", "up1", "netns", theirs.name)
        ours.ip("address", "add", "192.0.2.1/24", "dev", "up0")
        theirs.ip("address", "add", "192.0.2.2/24", "dev", "up1")
        ours.ip("link", "set", "up0", "up")
        theirs.ip("link", "set", "up1", "up")
        ours.execute("sysctl", "-qw", "net.ipv4.neigh.up0.retrans_time_ms=100")
        yield ours, theirs


def test_a_neighbour_that_stops_to_answer_is_told_and_found_by_a_restart(pair: tuple[Namespace, Namespace]) -> None:
    """Its ARP switched off, traffic finds it silent; another process finds that at its start; both hear when it answers again."""
    ours, theirs = pair
    gone = NeighbourSilent("up0", A("192.0.2.2"), True)
    back = NeighbourSilent("up0", A("192.0.2.2"), False)

    async def ask() -> None:
        await asyncio.to_thread(ours.attempt, "neigh", "change", "192.0.2.2", "dev", "up0", "nud", "probe")

    async def until(told: list[Event], event: Event, *, asking: bool = True) -> None:
        deadline = time.monotonic() + WAIT_S
        while event not in told:
            assert time.monotonic() < deadline, told
            if asking:
                await asyncio.to_thread(ping, ours)
            await asyncio.sleep(0.05)

    async def scenario() -> None:
        first: list[Event] = []
        second: list[Event] = []
        kernel, later = opened(first), opened(second)
        await kernel.open()
        running = [asyncio.create_task(kernel.run())]
        ping(ours)
        theirs.ip("link", "set", "up1", "arp", "off")
        await ask()
        await until(first, gone)
        await later.open()
        running.append(asyncio.create_task(later.run()))
        await until(second, gone, asking=False)
        theirs.ip("link", "set", "up1", "arp", "on")
        await until(first, back)
        await until(second, back)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await kernel.close()
        await later.close()

    ours.run(scenario)


def opened(told: list[Event]) -> Kernel:
    async def deliver(event: Event) -> None:
        told.append(event)

    return Kernel(deliver, lambda _: None)


def ping(space: Namespace) -> None:
    """Send something to the neighbour."""
    try:
        space.execute("ping", "-c", "1", "-W", "0.2", "192.0.2.2")
    except RuntimeError:
        return
