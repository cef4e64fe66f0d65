"""When a node's WireGuard key is made, told, changed and taken back: with a store, the core and a kernel in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec.structs import replace

from bgpd.adapters import clock
from bgpd.adapters.reconciler import Reconciler
from bgpd.adapters.store import keys
from bgpd.adapters.store.base import Put
from bgpd.adapters.store.lease import register
from bgpd.adapters.store.memory import MemoryStore
from bgpd.adapters.store.records import node_from, pool_bytes
from bgpd.adapters.store.watch import StoreSource
from bgpd.adapters.wireguard_keys import WireguardKeys
from bgpd.api.protocol import Refused
from bgpd.core.overlay.turn import LINGER_S
from bgpd.core.pipeline import Pipeline
from bgpd.daemon.wireguard import Wireguard
from bgpd.model import event as ev
from bgpd.model.forwarding import WIREGUARD_DEVICE, DeviceKey, KernelKey, KernelValue
from bgpd.model.notice import Notice
from bgpd.model.pool import Fallback, Pool
from bgpd.sim.kernel import FakeKernel
from tests.core import world as w

pytestmark = pytest.mark.adapter

DEADLINE_S = 30.0


class Cluster:
    """Owns the parts of one node, without peers, that a key goes through."""

    def __init__(self, folder: Path) -> None:
        self.keys = WireguardKeys(folder)
        self.store = MemoryStore()
        self.pipeline = Pipeline()
        self.notices: list[Notice] = []
        self.kernel = FakeKernel(self.deliver, lambda _: None)
        self.reconciler: Reconciler[KernelKey, KernelValue] = Reconciler(
            self.pipeline.tables.kernel,
            self.kernel,
            clock=clock.monotonic,
            gate=lambda: self.pipeline.may_remove,
            converged=self._converged,
            notice=self.notices.append,
        )
        self.wireguard = Wireguard(
            self.keys,
            self.store,
            self.pipeline,
            self.reconciler,
            deliver=self.deliver,
            notice=self.notices.append,
            rotate_after_s=0,
        )
        self.source = StoreSource(self.store, self.deliver, self.notices.append, "node1")
        self.later_s = 0.0
        """Seconds that the core takes it to be later than it is."""

    async def deliver(self, event: ev.Event) -> None:
        self.pipeline.handle(event, clock.monotonic() + self.later_s)
        while self.pipeline.settle(100):
            pass
        self.reconciler.wake()
        self.wireguard.look()

    async def _converged(self) -> None:
        self.wireguard.look()

    async def set_pool(self, *fallback: Fallback) -> None:
        pool = Pool(name="default", cidr=w.P("10.65.0.0/16"), fallback=fallback)
        await self.store.txn((), (Put(keys.pool_key("default"), pool_bytes(pool, datetime.now(UTC))),))

    async def stated(self) -> str | None:
        """Return the key that the Node names."""
        item = await self.store.get(keys.node_key("node1"))
        assert item is not None
        return node_from(item.key, "node1", item.value).wireguard_key

    async def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, self.notices
            await asyncio.sleep(0.01)

    async def until_stated(self, key: str | None) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while await self.stated() != key:
            assert time.monotonic() < deadline, (key, self.notices)
            await asyncio.sleep(0.01)

    async def live(self, story: Callable[[Cluster], object]) -> None:
        """Run the parts, and *story* beside them."""
        await register(self.store, w.node(1))
        await self.deliver(replace(w.CONFIGURED, peers=()))
        await self.kernel.open()
        tasks = [
            asyncio.create_task(part)
            for part in (self.source.run(), self.reconciler.run(), self.wireguard.run(), self.kernel.run())
        ]
        try:
            await story(self)  # type: ignore[misc]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def run(folder: Path, story: Callable[[Cluster], object]) -> None:
    asyncio.run(Cluster(folder).live(story))


def test_key_is_told_while_the_device_has_it(tmp_path: Path) -> None:
    """No key without a pool for it; with one the Node names it once the device stands, and no longer once the device is gone."""

    async def story(one: Cluster) -> None:
        await one.set_pool(Fallback.VXLAN)
        await one.until(lambda: one.pipeline.may_remove)
        assert not one.keys.there()

        await one.set_pool(Fallback.WIREGUARD)
        await one.until(one.keys.there)
        await one.until_stated(one.keys.public())
        assert DeviceKey(WIREGUARD_DEVICE) in one.kernel.actual

        await one.set_pool(Fallback.VXLAN)
        await one.until(lambda: not one.pipeline.state.wireguard_wanted)
        one.later_s = LINGER_S + 1
        await one.deliver(ev.Tick())
        await one.until_stated(None)
        assert DeviceKey(WIREGUARD_DEVICE) not in one.kernel.actual

    run(tmp_path, story)


def test_change_of_the_key_ends_when_the_others_are_told(tmp_path: Path) -> None:
    """An order to change the key returns the new one, which file, device and Node have then; what makes it useless is said instead."""

    async def story(one: Cluster) -> None:
        await one.set_pool(Fallback.VXLAN)
        await one.until(lambda: one.pipeline.may_remove)
        with pytest.raises(Refused, match="no pool uses WireGuard"):
            await one.wireguard.rotate()
        await one.set_pool(Fallback.WIREGUARD)
        await one.until(one.keys.there)
        before = one.keys.public()
        await one.until_stated(before)
        await one.until(lambda: one.pipeline.state.facts.nodes["node1"].wireguard_key == before)

        now = await one.wireguard.rotate()

        device = one.kernel.actual[DeviceKey(WIREGUARD_DEVICE)]
        assert before != now == one.keys.public() == await one.stated() == device.public_key  # type: ignore[union-attr]
        await one.deliver(ev.StoreLost("gone"))
        with pytest.raises(Refused, match="the store cannot be reached"):
            await one.wireguard.rotate()
        assert now == one.keys.public()

    run(tmp_path, story)


def test_device_that_cannot_be_made_is_no_offer(tmp_path: Path) -> None:
    """Where the kernel makes no device the Node names no key, an old one neither, and an order to change it says why."""

    async def story(one: Cluster) -> None:
        one.kernel.failures[DeviceKey(WIREGUARD_DEVICE)] = "the kernel has no WireGuard"
        await one.set_pool(Fallback.WIREGUARD)
        await one.until(lambda: any(notice.name == "kernel.refused" for notice in one.notices))
        await one.until(one.keys.there)
        assert await one.stated() is None
        with pytest.raises(Refused, match="the kernel has no WireGuard"):
            await one.wireguard.rotate()

    run(tmp_path, story)


def test_key_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    """A private key that its group can read is told with its path and how to mend it, and is in no text."""

    async def story(one: Cluster) -> None:
        one.keys.public()
        path = tmp_path / "private.key"
        path.chmod(0o640)
        await one.set_pool(Fallback.WIREGUARD)
        await one.until(lambda: any(notice.name == "wireguard.key_unfit" for notice in one.notices))
        (told,) = [str(notice.fields["reason"]) for notice in one.notices if notice.name == "wireguard.key_unfit"]
        assert f"chmod go= {path}" in told
        assert path.read_text().strip() not in str(one.notices)
        assert await one.stated() is None

    run(tmp_path, story)
