"""The store that measures: it is the one behind it, and notes what each operation took."""

from __future__ import annotations

import asyncio

import pytest

from bgpd.adapters.store.base import Compare, Put, Transient
from bgpd.adapters.store.memory import MemoryStore
from bgpd.adapters.store.timed import OPERATIONS, TimedStore

pytestmark = pytest.mark.core


def test_every_operation_is_measured_and_answers_as_the_store_behind() -> None:
    """Each operation counts once in its histogram, and gives what the store gives."""

    async def main() -> None:
        store = TimedStore(MemoryStore())
        lease = await store.grant(30)
        await store.keepalive(lease)
        assert (await store.txn([Compare("/a", 0)], [Put("/a", b"x", lease=lease)])).succeeded
        found = await store.get("/a")
        assert found is not None
        assert b"x" == found.value
        assert ["/a"] == [item.key for item in (await store.range("/")).items]
        assert 1 == len((await store.read(["/a"])).pages[0].items)
        await store.revoke(lease)
        assert await store.get("/a") is None
        counts = {name: sum(histogram.counts) for name, histogram in store.seconds.items()}
        assert dict.fromkeys(OPERATIONS, 1) | {"get": 2} == counts
        assert not store.failures
        await store.close()

    asyncio.run(main())


def test_failures_are_counted_by_operation() -> None:
    """What ends with Transient counts as failed, and is raised all the same."""

    class Away(MemoryStore):
        async def get(self, key: str) -> None:
            raise Transient(f"no answer for {key}")

    async def main() -> None:
        store = TimedStore(Away())
        with pytest.raises(Transient):
            await store.get("/a")
        assert {"get": 1} == dict(store.failures)
        assert 1 == sum(store.seconds["get"].counts)
        await store.close()

    asyncio.run(main())
