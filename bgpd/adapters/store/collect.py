"""Collection against the store: what core/ipam/collect.py is told, how its work is done, and what nodes publish for it.

Laws: a term begins with one reading of everything and goes on by watching, so a change costs what it changes; each piece of
work is one transaction that compares what its judgement rests on (the node is still gone, the publication is still the
last one, block and handle are as they were read) and that the collector still holds its office; whatever is in doubt is
left, and comes back with the change that is in doubt, or after AGAIN_S.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from bgpd.adapters import clock
from bgpd.adapters.store import keys
from bgpd.adapters.store.base import Change, Compare, Delete, KeyValue, Put, Store, read_all
from bgpd.adapters.store.elect import Fenced, Outdated
from bgpd.adapters.store.ipam.release import release_block, release_whole
from bgpd.adapters.store.keys import Malformed
from bgpd.adapters.store.records import block_from, handle_from, pool_from
from bgpd.core.ipam.block import BlockRecord, Refused
from bgpd.core.ipam.census import holdings
from bgpd.core.ipam.collect import Collector, Leak, Surplus, Why, Work
from bgpd.core.ipam.release import Release
from bgpd.model.notice import Notice
from bgpd.model.prefix import Prefix
from bgpd.model.wire import encode, from_builtin

PREFIXES: Final = (keys.POOLS, keys.NODES, keys.OUR_NODES, keys.TRACES, keys.HOSTS, keys.BLOCKS)
PACE_S: Final = 0.02
"""Pause after each piece of work: at most 50 a second, so that a collection of thousands does not get in the way of assignments."""
BATCH: Final = 32
"""Pieces of work taken at once; what changes meanwhile is seen before the next ones are taken."""
AGAIN_S: Final = 60.0
"""When work that was refused, or whose facts had changed, is looked at again without another change."""
IDLE_S: Final = 60.0
"""Longest sleep."""
TRACES_MAX: Final = 8192
"""Traces that a node publishes: more than its blocks have addresses (20 blocks of 64, or 2 of 4096). With more it says nothing."""


class Published(msgspec.Struct, frozen=True):
    """What a node says of the addresses that it has a trace of."""

    at: float
    """Seconds since the epoch."""
    traces: tuple[Prefix, ...]


def published_from(key: str, value: bytes) -> Published:
    """Read a publication; raises Malformed."""
    try:
        return msgspec.json.decode(value, type=Published, dec_hook=from_builtin)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(key, str(error)) from error


async def publish(store: Store, node: str, traces: Sequence[Prefix] | None) -> None:
    """Say which addresses *node* has a trace of; None, or more than TRACES_MAX: say nothing. Raises Transient."""
    key = keys.traces_key(node)
    if traces is None or len(traces) > TRACES_MAX:
        if await store.get(key) is not None:
            await store.txn((), (Delete(key),))
    else:
        await store.txn((), (Put(key, encode(Published(time.time(), tuple(traces)))),))


async def collect(store: Fenced, collector: Collector, notice: Callable[[Notice], None]) -> None:
    """Read, watch and work, until the store fails or the office is lost. Raises Transient, Compacted, Outdated."""
    changed = asyncio.Event()
    revision = (await store.range(PREFIXES[0], limit=1)).revision
    for prefix in PREFIXES:
        async for item in read_all(store, prefix, revision):
            _tell(collector, Change(item.key, item.value, item.mod_revision))
    collector.ready(clock.monotonic())
    notice(Notice("collector.started", {"revision": revision}))
    async with asyncio.TaskGroup() as tasks:
        for prefix in PREFIXES:
            tasks.create_task(_follow(store, prefix, revision + 1, collector, changed))
        await _work(store, collector, changed, notice)


async def _follow(store: Store, prefix: str, revision: int, collector: Collector, changed: asyncio.Event) -> None:
    async for _, changes in store.watch(prefix, revision):
        for change in changes:
            _tell(collector, change)
        changed.set()


def _tell(collector: Collector, change: Change) -> None:
    """Tell the collector of a change; of what cannot be read it is told that it is not known."""
    now = clock.monotonic()
    key, value = change.key, change.value
    try:
        about = keys.parse(key)
    except Malformed:
        return
    match about:
        case keys.PoolKey(name=name):
            try:
                collector.pool(name, pool_from(key, name, value) if value is not None else None)
            except Malformed:
                return  # it was there, and what it covers is not known: its blocks are judged by what it was
        case keys.NodeKey(name=name):
            collector.node(name, exists=value is not None, now=now)
        case keys.AliveKey(name=name):
            collector.alive(name, alive=value is not None, now=now)
        case keys.TracesKey(name=name):
            collector.published(name, _traces(key, value), change.mod_revision, now)
        case keys.BlockKey(cidr=cidr):
            collector.block(cidr, _block(key, cidr, value), now)
        case keys.AffinityKey(cidr=cidr, node=node):
            collector.affinity(cidr, node, exists=value is not None, now=now)
        case _:
            return  # nothing of an address


def _traces(key: str, value: bytes | None) -> tuple[Prefix, ...] | None:
    try:
        return published_from(key, value).traces if value is not None else None
    except Malformed:
        return None


def _block(key: str, cidr: Prefix, value: bytes | None) -> BlockRecord | None:
    try:
        return block_from(key, cidr, value) if value is not None else None
    except Malformed:
        return None


async def _work(store: Fenced, collector: Collector, changed: asyncio.Event, notice: Callable[[Notice], None]) -> None:
    while True:
        changed.clear()
        for one in collector.work(clock.monotonic(), BATCH):
            refused = await _do(store, one)
            if refused:
                collector.retry(one, clock.monotonic() + AGAIN_S)
            notice(_notice(one, refused))
            await asyncio.sleep(PACE_S)
        deadline = collector.deadline()
        pause_s = IDLE_S if deadline is None else min(max(deadline - clock.monotonic(), 0.0), IDLE_S)
        try:
            async with asyncio.timeout(pause_s):
                await changed.wait()
        except TimeoutError:
            continue


async def _do(store: Fenced, work: Work) -> str:
    """Do a piece of work; return why it was not done. Raises Transient, and Outdated once the office is lost."""
    try:
        return await (_release(store, work) if isinstance(work, Leak) else _give_back(store, work))
    except Malformed as error:
        return f"a record cannot be read: {error}"
    except ValueError as error:
        return str(error)


async def _release(store: Fenced, leak: Leak) -> str:
    """Release all that a handle has, if it has no more than was judged."""
    handle_key = keys.handle_key(leak.handle)
    item = await store.get(handle_key)
    if item is not None and (more := await _more(store, leak, item)):
        return more
    fence = [Compare(handle_key, item.mod_revision if item is not None else 0)]
    published = dict(leak.published)
    for node in leak.nodes:
        if node in published:
            fence.append(Compare(keys.traces_key(node), published[node]))
        else:
            fence += _absent(node)
    wishes = [
        Release(address=address, handle_id=leak.handle, sequence=sequence) for address, sequence in leak.addresses
    ]
    return await _fenced(store, fence, lambda fenced: release_whole(fenced, wishes))


async def _more(store: Store, leak: Leak, item: KeyValue) -> str:
    """Say what a handle has beyond what was judged: in blocks that it counts, whatever it counts of them."""
    judged = {address for address, _ in leak.addresses}
    for text in handle_from(item.key, leak.handle, item.value).block:
        cidr = Prefix.parse(text)
        key = keys.block_key(cidr)
        stored = await store.get(key)
        block = block_from(key, cidr, stored.value) if stored is not None else None
        for held in holdings(block) if block is not None else ():
            if held.handle == leak.handle and held.address not in judged:
                return f"handle {leak.handle} has {held.address} as well"
    return ""


async def _give_back(store: Fenced, surplus: Surplus) -> str:
    """Give a block back: of a node that is gone, or one that was empty and unchanged all the time."""
    if surplus.why is Why.NODE_GONE:
        node = surplus.node or ""
        return await _fenced(store, _absent(node), lambda fenced: release_block(fenced, surplus.cidr, node))
    key = keys.block_key(surplus.cidr)
    item = await store.get(key)
    if item is None:
        return ""
    block = block_from(key, surplus.cidr, item.value)
    if block.sequence_number != surplus.sequence or block.node != surplus.node:
        return "the block has changed"
    fence = [Compare(key, item.mod_revision)]
    if surplus.node is not None:
        owner = surplus.node
        return await _fenced(
            store, fence, lambda fenced: release_block(fenced, surplus.cidr, owner, require_empty=True)
        )
    if block.affinity is not None or not block.is_empty:
        return "the block is in use"
    await store.also(*fence).txn((), (Delete(key),))
    return ""


async def _fenced(store: Fenced, fence: Sequence[Compare], act: Callable[[Fenced], Awaitable[object]]) -> str:
    """Act while *fence* holds; return why nothing was done. Raises Outdated once the office is lost."""
    try:
        answer = await act(store.also(*fence))
    except Outdated as error:
        await store.check()
        return str(error)
    return answer.reason if isinstance(answer, Refused) else ""


def _absent(node: str) -> list[Compare]:
    """Return the comparisons that a node is gone."""
    return [Compare(keys.node_key(node), 0), Compare(keys.alive_key(node), 0)]


def _notice(work: Work, refused: str) -> Notice:
    name = "ipam.kept" if refused else "ipam.collected"
    fields: dict[str, str | int | float | bool | None]
    if isinstance(work, Leak):
        addresses = ", ".join(str(address) for address, _ in work.addresses)
        fields = {"handle": work.handle, "addresses": addresses, "nodes": ", ".join(work.nodes)}
    else:
        fields = {"block": str(work.cidr), "node": work.node}
    fields |= {"why": work.why.value} | ({"reason": refused} if refused else {})
    return Notice(name, fields)
