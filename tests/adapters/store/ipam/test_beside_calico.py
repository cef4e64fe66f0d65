"""Ours and Calico's IPAM on one store, interleaved at every point: one owner, no address twice, and a store that heals by itself."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Sequence
from itertools import count, product
from typing import Any

import msgspec
import pytest

from bgpd.adapters.store import keys
from bgpd.adapters.store.base import PAGE_KEYS, Comparison, KeyValue, Page, Put, Reading, Scan, TxnResult, Write
from bgpd.adapters.store.ipam.assign import AddressRequest, Granted, assign
from bgpd.adapters.store.ipam.claim import claim_block
from bgpd.adapters.store.ipam.release import release, release_block
from bgpd.adapters.store.memory import MemoryStore
from bgpd.adapters.store.records import pool_bytes
from bgpd.core.ipam.block import Refused
from bgpd.core.ipam.release import Release
from bgpd.model.pool import Pool
from bgpd.model.prefix import Address, Prefix
from tests.adapters.store.ipam import audit
from tests.adapters.store.ipam.calico_driver import BlockClaimConflict, Calico, Conflict, NoFreeBlocks
from tests.core.ipam.test_block import NOW

pytestmark = pytest.mark.adapter

POOL = Pool(name="p", cidr=Prefix.parse("10.0.0.0/29"), block_size=30)
EVERY = int(os.environ.get("IPAM_EVERY", "19"))
"""Of all interleavings, which share is run: each so-manieth; 1 takes minutes."""
Work = Callable[[Any], Awaitable[Any]]


class Gated(MemoryStore):
    """A view of *shared* whose operations wait for their turns, one each."""

    def __init__(self, shared: MemoryStore) -> None:
        super().__init__()
        self._shared = shared
        self._turns = asyncio.Semaphore(0)
        self._idle = asyncio.Event()

    async def give(self, turns: int, task: asyncio.Task[Any]) -> None:
        """Let that many operations run; return when the next one waits, or *task* has ended."""
        for _ in range(turns):
            if task.done():
                return
            self._idle.clear()
            self._turns.release()
            await asyncio.wait({task, idle := asyncio.ensure_future(self._idle.wait())}, return_when="FIRST_COMPLETED")
            idle.cancel()

    async def _turn(self) -> None:
        self._idle.set()
        await self._turns.acquire()

    async def get(self, key: str) -> KeyValue | None:
        await self._turn()
        return await self._shared.get(key)

    async def range(self, prefix: str, *, revision: int = 0, limit: int = PAGE_KEYS, start: str = "") -> Page:
        await self._turn()
        return await self._shared.range(prefix, revision=revision, limit=limit, start=start)

    async def read(self, parts: Sequence[str | Scan]) -> Reading:
        await self._turn()
        return await self._shared.read(parts)

    async def txn(self, compares: Sequence[Comparison], writes: Sequence[Write]) -> TxnResult:
        await self._turn()
        return await self._shared.txn(compares, writes)


class Cut(msgspec.Struct):
    """An interleaving: so many operations of theirs, then of ours, then theirs to the end, then ours."""

    before: int
    between: int
    theirs_over: bool = False
    """Whether theirs took no more operations than that: a later cut is the same."""
    ours_over: bool = False


async def interleaved(shared: MemoryStore, theirs: Work, ours: Work, cut: Cut) -> tuple[Any, Any]:
    left, right = Gated(shared), Gated(shared)
    first = asyncio.ensure_future(outcome(theirs(left)))
    await asyncio.sleep(0)
    await left.give(cut.before, first)
    cut.theirs_over = first.done()
    second = asyncio.ensure_future(outcome(ours(right)))
    await asyncio.sleep(0)
    await right.give(cut.between, second)
    cut.ours_over = second.done()
    await left.give(500, first)
    await right.give(500, second)
    assert first.done()
    assert second.done()
    return first.result(), second.result()


async def outcome(work: Awaitable[Any]) -> Any:
    """Calico's callers retry what lost a comparison."""
    try:
        return await work
    except (Conflict, BlockClaimConflict, NoFreeBlocks) as error:
        return error


def calico(store: Any, host: str) -> Calico:
    return Calico(store, host, "10.0.0.0/29", 30)


THEIRS: dict[str, Work] = {
    "claim": lambda store: calico(store, "x").claim(),
    "assign": lambda store: calico(store, "x").assign("hx"),
    "release address": lambda store: calico(store, "x").release("10.0.0.0"),
    "release block": lambda store: calico(store, "x").release_affinity("10.0.0.0/30"),
    "reclaim": lambda store: calico(store, "x").release_affinity("10.0.0.4/30", host="y", require_empty=True),
}
OURS: dict[str, Callable[[Any, str], Awaitable[Any]]] = {
    "claim": lambda store, node: claim_block(store, POOL, node),
    "assign": lambda store, node: assign(store, AddressRequest(node=node, handle_id="hn")),
    "assign to their handle": lambda store, node: assign(store, AddressRequest(node=node, handle_id="hx")),
    "release address": lambda store, node: release(store, [Release(address=Address.parse("10.0.0.0"))]),
    "release block": lambda store, node: release_block(store, Prefix.parse("10.0.0.0/30"), node),
    "release any block": lambda store, node: release_block(store, Prefix.parse("10.0.0.4/30"), node),
    "reclaim": lambda store, node: claim_block(store, POOL, node, room=True, reclaims=True),
}
BEFORE = ("nothing", "their block", "their address", "their address elsewhere", "both blocks")


async def prepared(before: str) -> MemoryStore:
    store = MemoryStore()
    await store.txn((), (Put(keys.pool_key("p"), pool_bytes(POOL, NOW)),))
    if before != "nothing":
        await _owned(store, "10.0.0.0/30", "y" if before == "their address elsewhere" else "x")
    if before == "both blocks":
        await _owned(store, "10.0.0.4/30", "y")
    if "address" in before:
        await calico(store, "y" if before == "their address elsewhere" else "x").assign_from("10.0.0.0/30", "h0")
    return store


async def _owned(store: MemoryStore, cidr: str, host: str) -> None:
    client = calico(store, host)
    await client.pending_affinity(cidr)
    record = await client.claim_affine_block(cidr)
    record["affinity_claim_time"] = "2026-01-01T00:00:00Z"
    held = await store.get(client.block_key(cidr))
    assert held is not None
    await store.txn((), (Put(held.key, json.dumps(record).encode()),))


async def check_one(before: str, theirs: str, ours: str, node: str, cut: Cut) -> None:
    """Run one interleaving, and what both do next."""
    store = await prepared(before)
    told, given = await interleaved(store, THEIRS[theirs], lambda gated: OURS[ours](gated, node), cut)
    state = await audit.dump(store)
    where = f"{before}: {theirs} {cut.before} | {ours} by {node} {cut.between}: {state}"
    assert [] == audit.block_defects(state), where
    assert [] == audit.handle_defects(state, exact=False), where
    assert [] == audit.affinity_defects(state, settled=False), where
    held = audit.held(state)
    if isinstance(told, str) and theirs == "assign" and ours != "release address":
        cidr = Prefix.of(Address.parse(told), 30)
        assert "hx" == held.get(f"{cidr}#{Address.parse(told) - cidr.network}"), where
    if isinstance(given, Granted):
        for address in given.addresses:
            cidr = Prefix.of(address, 30)
            holder = held.get(f"{cidr}#{address - cidr.network}")
            assert holder == ("hx" if "their" in ours else "hn") or theirs == "release address", where
    # What each does next mends what the other's steps left half done.
    for host in ("x", "y"):
        await outcome(calico(store, host).claim())
    for name in dict.fromkeys((node, "n", "x", "y")):
        answer = await claim_block(store, POOL, name, room=True)
        assert isinstance(answer, Prefix | Refused)
    state = await audit.dump(store)
    assert [] == audit.block_defects(state), where
    assert [] == audit.affinity_defects(state), f"{where} ... {state}"


@pytest.mark.parametrize("theirs", THEIRS)
@pytest.mark.parametrize("node", ["n", "x"])
def test_any_interleaving_leaves_one_owner(theirs: str, node: str) -> None:
    """Whatever Calico's host x and our node (another one, or x itself) do, cut at any two points: one owner, nothing twice or lost."""

    async def work() -> None:
        numbers = count()
        for before, ours in product(BEFORE, OURS):
            for steps in range(40):
                for between in range(20):
                    cut = Cut(steps, between)
                    if next(numbers) % EVERY:
                        continue
                    await check_one(before, theirs, ours, node, cut)
                    if cut.ours_over:
                        break
                if cut.theirs_over:
                    break

    asyncio.run(work())
