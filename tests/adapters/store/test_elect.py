"""One of several is elected, and what it writes holds only while it is in office."""

from __future__ import annotations

import asyncio

import pytest

from bgpd.adapters.store import keys
from bgpd.adapters.store.base import Compare, Delete, Put, Transient
from bgpd.adapters.store.elect import Election, Outdated

pytestmark = pytest.mark.adapter

KEY = keys.COLLECTOR


class Terms:
    """Candidates, and who leads."""

    def __init__(self, store):
        self._store = store
        self.leading: dict[str, int] = {}
        self.stores = {}
        self.together = 0
        self.changed = asyncio.Event()

    def stand(self, name, *, ttl_s=2):
        election = Election(self._store, KEY, name, ttl_s=ttl_s, pause_s=0.05)
        return asyncio.create_task(election.run(lambda store: self._lead(name, store)))

    async def _lead(self, name, store):
        self.leading[name] = self.leading.get(name, 0) + 1
        self.stores[name] = store
        self.together = max(self.together, sum(self.leading.values()))
        self.changed.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.leading[name] -= 1

    async def until(self, condition):
        async with asyncio.timeout(15):
            while not condition():
                self.changed.clear()
                with_pause = asyncio.create_task(self.changed.wait())
                await asyncio.wait({with_pause}, timeout=0.05)
                with_pause.cancel()

    def leader(self):
        return next((name for name, count in self.leading.items() if count), None)


async def end(*tasks: asyncio.Task[None]):
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def test_one_leads_and_another_follows_it(on_store):
    """Of three candidates one leads; when it ends in order, another leads soon, and never two at once."""

    async def work(store):
        terms = Terms(store)
        tasks = {name: terms.stand(name) for name in "abc"}
        await terms.until(terms.leader)
        first = terms.leader()
        await end(tasks.pop(first))
        await terms.until(lambda: terms.leader() not in {None, first})

        assert 1 == terms.together
        assert (await store.get(KEY)).value.decode() == terms.leader()
        await end(*tasks.values())
        assert await store.get(KEY) is None

    on_store(work)


def test_a_leader_that_loses_its_lease_stops(on_store):
    """When the lease ends under a leader, its term ends, and it stands again."""

    async def work(store):
        terms = Terms(store)
        task = terms.stand("a")
        await terms.until(terms.leader)
        await store.revoke((await store.get(KEY)).lease)
        old = terms.stores["a"]
        with pytest.raises(Outdated):
            await old.txn((), (Put("/x", b"1"),))
        await terms.until(lambda: terms.stores["a"] is not old)

        assert await store.get("/x") is None
        await terms.stores["a"].txn((), (Put("/x", b"2"),))
        assert b"2" == (await store.get("/x")).value
        await end(task)

    on_store(work)


def test_a_fence_fails_with_what_it_rests_on(on_store):
    """A fenced transaction is made while all its fences hold; else nothing is written; its own comparisons fail as ever."""

    async def work(store):
        terms = Terms(store)
        task = terms.stand("a")
        await terms.until(terms.leader)
        await store.txn((), (Put("/f", b""),))
        revision = (await store.get("/f")).mod_revision
        fenced = terms.stores["a"].also(Compare("/f", revision))

        assert (await fenced.txn((Compare("/y", 0),), (Put("/y", b""),))).succeeded
        assert not (await fenced.txn((Compare("/y", 0),), (Delete("/y"),))).succeeded
        await store.txn((), (Put("/f", b"changed"),))
        with pytest.raises(Outdated):
            await fenced.txn((), (Delete("/y"),))
        assert await store.get("/y") is not None
        await end(task)

    on_store(work)


def test_a_failing_leader_stands_again():
    """A term that ends in Transient is over; after the pause the candidate stands again."""
    from bgpd.adapters.store.memory import MemoryStore

    async def work():
        store, terms = MemoryStore(), []

        async def lead(_):
            terms.append(1)
            if len(terms) < 3:
                raise Transient("lost")
            done.set()
            await asyncio.Event().wait()

        done = asyncio.Event()
        task = asyncio.create_task(Election(store, KEY, "a", pause_s=0.01).run(lead))
        async with asyncio.timeout(10):
            await done.wait()
        assert 3 == len(terms)
        await end(task)

    asyncio.run(work())
