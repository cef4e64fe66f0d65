"""Reading a real kernel while others change it: what the kernel calls inconsistent (NLM_F_DUMP_INTR) is not believed."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from bgpd.adapters.netlink import encode
from bgpd.adapters.netlink.socket import NetlinkSocket
from bgpd.model.event import KernelSynced
from bgpd.model.forwarding import Group, Leg, Present, RouteKey
from bgpd.sim.namespace import Namespace
from tests.netns.kernel_world import LEGS, NODE, VIA_NODE, A, P, make_space
from tests.netns.test_netlink_kernel import DEVICE, VXLAN, Opened, anonymous, fresh_reading, opened

pytestmark = [pytest.mark.netns, pytest.mark.vm]

MANY = 800
"""Nexthops, and addresses, of others: more than fit one read of a dump."""


@pytest.fixture
def space() -> Iterator[Namespace]:
    made = make_space(f"bgpdrd{os.getpid()}")
    yield made
    made.close()


@pytest.fixture
def cleaning() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


class Churn:
    """Another who changes nexthop objects and addresses between any two reads of a dump, as long as it is *on*."""

    def __init__(self, space: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
        self.on = True
        self.changes = 0
        self.socket = NetlinkSocket()
        space.batch(*(f"nexthop add id {number} via 10.1.0.2 dev up0 proto zebra" for number in range(1, MANY)))
        space.batch(*(f"address add 10.99.{number // 250}.{number % 250}/32 dev up1" for number in range(1, MANY)))
        stock = NetlinkSocket._receive

        def receive(reader: NetlinkSocket) -> bytes:
            if self.on and reader is not self.socket:
                self.change()
            return stock(reader)

        monkeypatch.setattr(NetlinkSocket, "_receive", receive)

    def change(self) -> None:
        """Put the last nexthop elsewhere, and an address there or away."""
        self.changes += 1
        gateway = A("10.1.0.2") if self.changes % 2 else A("10.1.0.3")
        index = socket.if_nametoindex("up1")
        self.socket._exchange(
            [encode.put_leg(MANY, Leg("up0", gateway), socket.if_nametoindex("up0"), 11, encode.PUT)], 0, 1
        )
        kind, flags = (20, encode.PUT) if self.changes % 2 else (21, encode.REMOVE)  # RTM_NEWADDR, RTM_DELADDR
        address = bytes((2, 32, 0, 0)) + index.to_bytes(4, "little") + bytes((8, 0, 2, 0, 10, 98, 0, 1))
        self.socket._exchange([encode.HEADER.pack(16 + len(address), kind, flags, 0, 0) + address], 0, 1)


def test_readings_that_others_disturb_are_made_again(
    space: Namespace, monkeypatch: pytest.MonkeyPatch, cleaning: ExitStack
) -> None:
    """An inconsistent dump is read again; a comparison and changes go on under it, and in the end nothing is missed."""
    block = RouteKey(P("10.65.1.0/26"))

    async def scenario() -> None:
        churn = Churn(space, monkeypatch)
        cleaning.callback(churn.socket.close)
        reader = NetlinkSocket()
        with pytest.raises(InterruptedError, match="changed under 10 readings"):
            await reader.dump(encode.dump_nexthops(), lambda *_: True)
        churn.on = False
        assert len(await reader.dump(encode.dump_nexthops(), lambda *_: True)) == MANY
        reader.close()

        async with opened() as made:
            await made.apply(*((leg, Present()) for leg in LEGS), (NODE, Group(LEGS)), (block, VIA_NODE))
            churn.on = True
            assert await made.kernel.compare() == 0
            with pytest.raises(InterruptedError, match="changed under 10 readings"):
                await made.kernel.read_fresh()  # who asks is told at once, and may ask again
            await made.apply((DEVICE, VXLAN))
            space.ip("nexthop", "flush", "proto", "179")
            await made.until(lambda: NODE in made.drift)
            churn.on = False
            await made.until(lambda: made.kernel._due_in_s() is None)
            monkeypatch.undo()
            assert anonymous(made.kernel.actual) == await fresh_reading()
        assert churn.changes > 20

    space.run(scenario)


def test_a_start_waits_for_tables_that_others_change(
    space: Namespace, monkeypatch: pytest.MonkeyPatch, cleaning: ExitStack
) -> None:
    """Opened while others change what it reads, the target is ready once they pause, and not before."""

    async def scenario() -> None:
        churn = Churn(space, monkeypatch)
        cleaning.callback(churn.socket.close)
        made = Opened()
        opening = asyncio.create_task(made.kernel.open())
        await made.until(lambda: churn.changes > 20)
        assert not opening.done()
        assert KernelSynced() not in made.events
        churn.on = False
        await opening
        assert KernelSynced() in made.events
        assert len(made.kernel._around.nexthops) == MANY
        await made.kernel.close()

    space.run(scenario)
