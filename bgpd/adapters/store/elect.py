"""Electing one of several daemons for a task, by a leased key.

Laws: the key is taken by a transaction that finds it absent, and lives by a lease, so of several at most one holds it, and
one that dies or loses the store holds it no longer than the time to live. Between the end of a lease and the moment at
which its holder notices, two may believe that they lead: so whatever a leader writes goes through :class:`Fenced`, which
adds to each transaction the comparison that the key is still its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress

from bgpd.adapters.store.base import (
    Change,
    Compacted,
    Compare,
    Comparison,
    KeyValue,
    LeaseNotFound,
    Page,
    Put,
    Reading,
    Scan,
    Store,
    StoreError,
    Transient,
    TxnResult,
    Write,
)

TTL_S = 30
"""Time to live of the leader's lease: what it does is in no hurry, and a restart of its daemon need not move it."""
PAUSE_S = 5.0
"""Pause after a term that ended, and after an election that failed: the store is lost then, or another was first."""


class Outdated(StoreError):  # noqa: N818 - what it is
    """What a transaction rests on has changed: nothing was written. Decide anew."""


class Fenced:
    """A store whose transactions hold only while *fence* does; otherwise they raise Outdated, so that nobody tries again in vain."""

    def __init__(self, store: Store, fence: Sequence[Compare]) -> None:
        self._store = store
        self._fence = tuple(fence)

    def also(self, *fence: Compare) -> Fenced:
        """Return the store with more to hold."""
        return Fenced(self._store, (*self._fence, *fence))

    async def check(self) -> None:
        """Raise Outdated where the fence does not hold any more."""
        for one in self._fence:
            item = await self._store.get(one.key)
            if (item.mod_revision if item is not None else 0) != one.mod_revision:
                raise Outdated(f"{one.key} has changed")

    async def get(self, key: str) -> KeyValue | None:
        return await self._store.get(key)

    async def range(self, prefix: str, *, revision: int = 0, limit: int = 500, start: str = "") -> Page:
        return await self._store.range(prefix, revision=revision, limit=limit, start=start)

    async def read(self, parts: Sequence[str | Scan]) -> Reading:
        return await self._store.read(parts)

    async def txn(self, compares: Sequence[Comparison], writes: Sequence[Write]) -> TxnResult:
        result = await self._store.txn((*compares, *self._fence), writes)
        if not result.succeeded:
            await self.check()
        return result

    def watch(self, prefix: str, from_revision: int) -> AsyncIterator[tuple[int, list[Change]]]:
        return self._store.watch(prefix, from_revision)

    async def grant(self, ttl_s: int) -> int:
        return await self._store.grant(ttl_s)

    async def keepalive(self, lease: int) -> None:
        await self._store.keepalive(lease)

    async def revoke(self, lease: int) -> None:
        await self._store.revoke(lease)

    async def close(self) -> None:
        """Leave the store open: it is another's."""


class Election:
    """Owns a candidacy for *key*. :meth:`run` waits for the office, leads, and stands again, for ever."""

    def __init__(self, store: Store, key: str, who: str, *, ttl_s: int = TTL_S, pause_s: float = PAUSE_S) -> None:
        self._store = store
        self._key = key
        self._who = who
        self._ttl_s = ttl_s
        self._pause_s = pause_s

    async def run(self, lead: Callable[[Fenced], Awaitable[None]]) -> None:
        """Call *lead* for each term, with the store as the leader writes it; it is cancelled when the office is lost.

        A term also ends where *lead* raises Transient, Compacted or Outdated; anything else is raised.
        """
        while True:
            with suppress(Transient, Compacted, LeaseNotFound, Outdated):
                won = await self._take()
                if won is None:
                    await self._wait()
                else:
                    await self._term(*won, lead)
            await asyncio.sleep(self._pause_s)

    async def _take(self) -> tuple[int, Compare] | None:
        """Take the office if it is free: the lease, and the comparison that it is still ours."""
        if await self._store.get(self._key) is not None:
            return None
        lease = await self._store.grant(self._ttl_s)
        result = await self._store.txn((Compare(self._key, 0),), (Put(self._key, self._who.encode(), lease),))
        if result.succeeded:
            return lease, Compare(self._key, result.revision)
        await self._store.revoke(lease)
        return None

    async def _wait(self) -> None:
        """Wait until the office may be free. A change that was missed is made up for by looking now and then."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._ttl_s), aclosing(self._changes()) as changes:
                item = await self._store.get(self._key)
                async for value in changes:
                    if item is None or value is None:
                        return

    async def _changes(self) -> AsyncGenerator[bytes | None, None]:
        async for _, changes in self._store.watch(self._key, 0):
            for change in changes:
                yield change.value

    async def _term(self, lease: int, fence: Compare, lead: Callable[[Fenced], Awaitable[None]]) -> None:
        """Lead until the lease is lost or *lead* ends; give the office back if the store is there."""
        failures: list[StoreError] = []
        try:
            async with asyncio.TaskGroup() as tasks:
                keeping = tasks.create_task(self._keep(lease))
                await lead(Fenced(self._store, (fence,)))
                keeping.cancel()
        except* StoreError as raised:
            failures += _leaves(raised)
        finally:
            with suppress(StoreError):
                await self._store.revoke(lease)
        if failures:
            raise next((one for one in failures if not isinstance(one, Compacted)), failures[0])

    async def _keep(self, lease: int) -> None:
        """Keep the lease alive; raises Transient or LeaseNotFound once it may have ended."""
        while True:
            await asyncio.sleep(self._ttl_s / 3)
            await self._store.keepalive(lease)


def _leaves(group: BaseExceptionGroup[StoreError]) -> list[StoreError]:
    found: list[StoreError] = []
    for one in group.exceptions:
        found += _leaves(one) if isinstance(one, BaseExceptionGroup) else [one]
    return found
