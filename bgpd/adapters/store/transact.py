"""Read, decide, commit: the only retry loop around the store's transactions (IPAM's operations are in ``ipam/``).

A plan names every key that its decision rests on with the revision that was read; one transaction compares them all and
makes all writes, so a crash or a race leaves either all or nothing. On conflict everything is read anew. A transaction
that ended in Transient has an unknown outcome: the caller calls again, and since every operation here begins with
reading and is idempotent, it finds what it did.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Generic, TypeVar

import msgspec

from bgpd.adapters.store import keys
from bgpd.adapters.store.base import Compacted, Compare, Comparison, KeyValue, Put, Store, Transient, Write
from bgpd.adapters.store.records import pool_bytes
from bgpd.model.pool import Pool

CONFLICTS_MAX = 100
"""Attempts of one operation (Calico's datastoreRetries): each conflict means that another writer got on, so this is a
crowd, not a hang."""
CONFLICT_PAUSE_S = 0.002
"""Pause after a conflict, growing with their number up to ten times this."""

T = TypeVar("T")


class Plan(msgspec.Struct, Generic[T], frozen=True):
    """An answer, and the transaction that makes it true; without writes it is true already."""

    answer: T
    compares: tuple[Comparison, ...] = ()
    writes: tuple[Write, ...] = ()


async def transact(store: Store, decide: Callable[[], Awaitable[Plan[T]]]) -> T:
    """Call *decide* and commit its plan, until no key that it read has changed meanwhile; raises Transient in the end."""
    for conflicts in range(CONFLICTS_MAX):
        try:
            plan = await decide()
            if not plan.writes or (await store.txn(plan.compares, plan.writes)).succeeded:
                return plan.answer
        except Compacted:
            pass  # writers outran a reading of several pages: that is a conflict as well
        await asyncio.sleep(CONFLICT_PAUSE_S * min(conflicts, 10))
    raise Transient(f"{CONFLICTS_MAX} conflicts with other writers")


async def ensure_pool(store: Store, pool: Pool) -> bool:
    """Create *pool* if the store holds no IPPool at all; return whether it was created. Raises Transient."""

    async def decide() -> Plan[bool]:
        guard = await store.get(keys.DEFAULT_POOL)
        if (await store.range(keys.POOLS, limit=1)).items:
            return Plan(False)
        key = keys.pool_key(pool.name)
        mark = msgspec.json.encode({"name": pool.name})
        return Plan(
            True,
            (_unchanged(keys.DEFAULT_POOL, guard), Compare(key, 0)),
            (Put(keys.DEFAULT_POOL, mark), Put(key, pool_bytes(pool, datetime.now(UTC)))),
        )

    return await transact(store, decide)


def _unchanged(key: str, item: KeyValue | None) -> Compare:
    return Compare(key, item.mod_revision if item else 0)
