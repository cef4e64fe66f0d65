"""A store in the memory of this process: the reference for the contract, and the store of simulations.

It keeps the running loop's time, so leases end in virtual time where the loop's time is virtual. Its faults are
settable: while *outage* is not empty, every operation and every watch raises Transient with that text, and nothing is
lost.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import AsyncIterator, Sequence

from bgpd.adapters.store.base import (
    PAGE_KEYS,
    Change,
    Compacted,
    Comparison,
    Delete,
    KeyValue,
    LeaseNotFound,
    Page,
    Put,
    Reading,
    Scan,
    Transient,
    TxnResult,
    Unwritten,
    Write,
    check_parts,
    check_txn,
)

HISTORY_REVISIONS = 10_000
"""Revisions kept: minutes of a busy cluster, so that a watcher that was away for a short time need not read anew."""


class MemoryStore:
    """Owns keys, history, leases and the event that wakes its watchers."""

    def __init__(self, history_revisions: int = HISTORY_REVISIONS) -> None:
        self.outage = ""
        self._live: dict[str, KeyValue] = {}
        self._history: list[tuple[Change, int]] = []
        """Changes with the lease of each, in order of revision, from the compact revision on."""
        self._base: dict[str, KeyValue] = {}
        """The state just before the first change of the history."""
        self._revision = 1
        self._compacted = 0
        self._keep = history_revisions
        self._leases: dict[int, tuple[int, float]] = {}
        """Time to live and end of each lease, in seconds of the loop."""
        self._last_lease = 0
        self._changed = asyncio.Event()

    async def get(self, key: str) -> KeyValue | None:
        self._look()
        return self._live.get(key)

    async def range(self, prefix: str, *, revision: int = 0, limit: int = PAGE_KEYS, start: str = "") -> Page:
        self._look()
        state = self._live if revision in {0, self._revision} else self._state_at(revision)
        keys = sorted(key for key in state if key.startswith(prefix) and key >= start)
        return Page(tuple(state[key] for key in keys[:limit]), len(keys) > limit, self._revision)

    async def read(self, parts: Sequence[str | Scan]) -> Reading:
        check_parts(parts)
        self._look()
        return Reading(tuple(self._page(part) for part in parts), self._revision)

    def _page(self, part: str | Scan) -> Page:
        if isinstance(part, str):
            held = self._live.get(part)
            return Page((held,) if held else (), False, self._revision)
        keys = sorted(key for key in self._live if key.startswith(part.prefix) and key >= part.start)
        items = (self._live[key] for key in keys[: part.limit])
        if part.keys_only:
            items = (KeyValue(item.key, b"", item.mod_revision, item.lease) for item in items)
        return Page(tuple(items), len(keys) > part.limit, self._revision)

    async def txn(self, compares: Sequence[Comparison], writes: Sequence[Write]) -> TxnResult:
        check_txn(compares, writes)
        self._look()
        if not all(self._holds(compare) for compare in compares):
            return TxnResult(False, self._revision)
        for write in writes:
            if isinstance(write, Put) and write.lease and write.lease not in self._leases:
                raise LeaseNotFound(write.lease)
        self._write(writes)
        return TxnResult(True, self._revision)

    async def watch(self, prefix: str, from_revision: int) -> AsyncIterator[tuple[int, list[Change]]]:
        self._look()
        position = from_revision or self._revision + 1
        while True:
            waiter = self._changed
            self._look()
            if position < self._compacted:
                raise Compacted(self._compacted)
            fresh = self._changes_from(position)
            position = max(position, self._revision + 1)
            for revision, changes in fresh:
                below = [change for change in changes if change.key.startswith(prefix)]
                if below:
                    yield revision, below
            if waiter is self._changed:
                await self._wait(waiter)

    async def grant(self, ttl_s: int) -> int:
        if ttl_s < 1:
            raise ValueError(f"a lease lasts at least 1 s, not {ttl_s}")
        self._look()
        self._last_lease += 1
        self._leases[self._last_lease] = (ttl_s, self._now() + ttl_s)
        self.wake()
        return self._last_lease

    async def keepalive(self, lease: int) -> None:
        self._look()
        if lease not in self._leases:
            raise LeaseNotFound(lease)
        ttl_s, _ = self._leases[lease]
        self._leases[lease] = (ttl_s, self._now() + ttl_s)

    async def revoke(self, lease: int) -> None:
        self._look()
        if lease not in self._leases:
            raise LeaseNotFound(lease)
        self._end(lease)

    async def close(self) -> None:
        self.outage = "the store is closed"
        self.wake()

    def wake(self) -> None:
        """Let watchers look again; call it after setting *outage*."""
        self._changed.set()
        self._changed = asyncio.Event()

    def compact(self, revision: int) -> None:
        """Forget what is older than *revision*, as etcd's Compact does."""
        assert self._compacted <= revision <= self._revision, "compaction goes forward, and not beyond the present"
        first = self._position(revision)
        for change, lease in self._history[:first]:
            _apply(self._base, change, lease)
        del self._history[:first]
        self._compacted = revision

    def _holds(self, compare: Comparison) -> bool:
        if isinstance(compare, Unwritten):
            written = (item for key, item in self._live.items() if key.startswith(compare.prefix))
            return all(item.mod_revision <= compare.revision for item in written)
        held = self._live.get(compare.key)
        return (held.mod_revision if held else 0) == compare.mod_revision

    def _look(self) -> None:
        """Raise during an outage; end the leases whose time has passed."""
        if self.outage:
            raise Transient(self.outage)
        now = self._now()
        for lease in [lease for lease, (_, end) in self._leases.items() if end <= now]:
            self._end(lease)

    def _end(self, lease: int) -> None:
        del self._leases[lease]
        self._write([Delete(key) for key, held in sorted(self._live.items()) if held.lease == lease])

    def _write(self, writes: Sequence[Write]) -> None:
        effective = [write for write in writes if isinstance(write, Put) or write.key in self._live]
        if not effective:
            return
        self._revision += 1
        for write in effective:
            value = write.value if isinstance(write, Put) else None
            change = Change(write.key, value, self._revision)
            lease = write.lease if isinstance(write, Put) else 0
            _apply(self._live, change, lease)
            self._history.append((change, lease))
        if self._revision - self._compacted > 2 * self._keep:
            self.compact(self._revision - self._keep)
        self.wake()

    def _state_at(self, revision: int) -> dict[str, KeyValue]:
        if revision > self._revision:
            raise ValueError(f"revision {revision} has not been yet: the store is at {self._revision}")
        if revision < self._compacted:
            raise Compacted(self._compacted)
        state = dict(self._base)
        for change, lease in self._history[: self._position(revision + 1)]:
            _apply(state, change, lease)
        return state

    def _changes_from(self, revision: int) -> list[tuple[int, list[Change]]]:
        grouped: dict[int, list[Change]] = {}
        for change, _ in self._history[self._position(revision) :]:
            grouped.setdefault(change.mod_revision, []).append(change)
        return list(grouped.items())

    def _position(self, revision: int) -> int:
        """Return where the history of *revision* begins."""
        return bisect_left(self._history, revision, key=lambda entry: entry[0].mod_revision)

    async def _wait(self, waiter: asyncio.Event) -> None:
        """Wait for a change, or for the end of the next lease."""
        ends = [end for _, end in self._leases.values()]
        try:
            async with asyncio.timeout_at(min(ends) if ends else None):
                await waiter.wait()
        except TimeoutError:
            return

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _apply(state: dict[str, KeyValue], change: Change, lease: int) -> None:
    if change.value is None:
        state.pop(change.key, None)
    else:
        state[change.key] = KeyValue(change.key, change.value, change.mod_revision, lease)
