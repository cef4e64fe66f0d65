"""A store that notes how long each operation took and how often it failed; else it is the store behind it."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager

from bgpd.adapters import clock
from bgpd.adapters.prometheus import Histogram
from bgpd.adapters.store.base import (
    PAGE_KEYS,
    Broken,
    Change,
    Comparison,
    KeyValue,
    Page,
    Reading,
    Scan,
    Store,
    Transient,
    TxnResult,
    Write,
)

OPERATIONS = ("get", "range", "read", "txn", "grant", "keepalive", "revoke")
"""What is measured; a watch has no end to measure."""


class TimedStore:
    """Owns the measures."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.seconds = {operation: Histogram() for operation in OPERATIONS}
        self.failures: Counter[str] = Counter()
        """Operations that ended with Transient or Broken."""

    async def get(self, key: str) -> KeyValue | None:
        with self._measured("get"):
            return await self._store.get(key)

    async def range(self, prefix: str, *, revision: int = 0, limit: int = PAGE_KEYS, start: str = "") -> Page:
        with self._measured("range"):
            return await self._store.range(prefix, revision=revision, limit=limit, start=start)

    async def read(self, parts: Sequence[str | Scan]) -> Reading:
        with self._measured("read"):
            return await self._store.read(parts)

    async def txn(self, compares: Sequence[Comparison], writes: Sequence[Write]) -> TxnResult:
        with self._measured("txn"):
            return await self._store.txn(compares, writes)

    def watch(self, prefix: str, from_revision: int) -> AsyncIterator[tuple[int, list[Change]]]:
        return self._store.watch(prefix, from_revision)

    async def grant(self, ttl_s: int) -> int:
        with self._measured("grant"):
            return await self._store.grant(ttl_s)

    async def keepalive(self, lease: int) -> None:
        with self._measured("keepalive"):
            await self._store.keepalive(lease)

    async def revoke(self, lease: int) -> None:
        with self._measured("revoke"):
            await self._store.revoke(lease)

    async def close(self) -> None:
        await self._store.close()

    @contextmanager
    def _measured(self, operation: str) -> Iterator[None]:
        began = clock.monotonic()
        try:
            yield
        except (Transient, Broken):
            self.failures[operation] += 1
            raise
        finally:
            self.seconds[operation].observe(clock.monotonic() - began)
