"""How fast the stores are: SQLite and etcd beside raw calls to the same etcd, in the same run.

Run it by name: ``python -m pytest -s tests/bench/bench_store.py``. BENCH_KEYS sets the number of keys read (5,000), BENCH_WRITES that of
writes and changes (1,000). Asserts only on what is stored and told, never on time.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from pathlib import Path

import grpc.aio
import pytest
from google.protobuf.message import Message

from bgpd.adapters.store.base import TXN_OPS_MAX, Compare, Put, Store, read_all
from bgpd.adapters.store.proto import rpc_pb2 as rpc
from bgpd.adapters.store.sqlite import SqliteStore
from tests.adapters.store.etcd_server import Etcd

pytestmark = [pytest.mark.bench, pytest.mark.timeout(600)]

KEYS = int(os.environ.get("BENCH_KEYS", "5000"))
WRITES = int(os.environ.get("BENCH_WRITES", "1000"))
CONTENDERS = 8
TOGETHER = 16
"""Puts under way at once, where they are."""
VALUE = b"x" * 512
"""About a block."""

Row = tuple[str, str, float, str]


@pytest.fixture(scope="module")
def server() -> Iterator[Etcd]:
    with Etcd() as made:
        yield made


def test_store_beside_raw_calls(server: Etcd, tmp_path: Path) -> None:
    """Every write is stored, every contended increment counts, every change is told once, every key is read; on each store."""
    rows: list[Row] = []
    rows += asyncio.run(_measure("sqlite", SqliteStore(tmp_path / "store.db")))
    rows += asyncio.run(_measure("etcd", server.store()))
    server.empty()
    rows += asyncio.run(_raw(server.members[0].address))

    print(f"\n{'what':<28} {'store':<9} {'per s':>9}  latency")
    for what, who, rate, note in sorted(rows, key=lambda row: row[0]):
        print(f"{what:<28} {who:<9} {rate:>9.0f}  {note}")


async def _measure(name: str, store: Store) -> list[Row]:
    rows = [
        await _puts(name, lambda number: store.txn((), (Put(f"/p/{number}", VALUE),)), 1),
        await _puts(name, lambda number: store.txn((), (Put(f"/p/{number}", VALUE),)), TOGETHER),
        await _counted(name, store),
        await _watched(name, store),
    ]
    for first in range(0, KEYS, TXN_OPS_MAX):
        last = min(first + TXN_OPS_MAX, KEYS)
        await store.txn((), [Put(f"/k/{number:06}", VALUE) for number in range(first, last)])
    begun = time.perf_counter()
    found = [item async for item in read_all(store, "/k/")]
    spent_s = time.perf_counter() - begun
    assert [f"/k/{number:06}" for number in range(KEYS)] == [item.key for item in found]
    rows.append((f"read {KEYS} keys", name, KEYS / spent_s, f"{spent_s:.2f} s"))
    assert len([item async for item in read_all(store, "/p/")]) == WRITES
    await store.close()
    return rows


async def _puts(name: str, put: Callable[[int], Awaitable[object]], together: int) -> Row:
    latencies: list[float] = []
    numbers = iter(range(WRITES))

    async def writer() -> None:
        for number in numbers:
            begun = time.perf_counter()
            await put(number)
            latencies.append(time.perf_counter() - begun)

    begun = time.perf_counter()
    await asyncio.gather(*(writer() for _ in range(together)))
    return f"put, {together} at once", name, WRITES / (time.perf_counter() - begun), _quantiles(latencies)


async def _contended(
    name: str,
    get: Callable[[], Awaitable[tuple[int, int]]],
    swap: Callable[[int, int], Awaitable[bool]],
) -> Row:
    """Count one key up from CONTENDERS tasks: read it with its revision, compare, write, again where another was first."""
    latencies: list[float] = []
    share = WRITES // CONTENDERS // 4

    async def contend() -> None:
        for _ in range(share):
            begun = time.perf_counter()
            while True:
                value, revision = await get()
                await asyncio.sleep(0)  # SQLite's calls never give the others a turn
                if await swap(revision, value + 1):
                    break
            latencies.append(time.perf_counter() - begun)

    begun = time.perf_counter()
    await asyncio.gather(*(contend() for _ in range(CONTENDERS)))
    spent_s = time.perf_counter() - begun
    assert CONTENDERS * share == (await get())[0]
    return f"contended txn, {CONTENDERS} tasks", name, CONTENDERS * share / spent_s, _quantiles(latencies)


async def _counted(name: str, store: Store) -> Row:
    async def get() -> tuple[int, int]:
        held = await store.get("/n")
        return (int(held.value), held.mod_revision) if held else (0, 0)

    async def swap(revision: int, value: int) -> bool:
        return (await store.txn((Compare("/n", revision),), (Put("/n", b"%d" % value),))).succeeded

    return await _contended(name, get, swap)


async def _counted_raw(channel: grpc.aio.Channel) -> Row:
    read = channel.unary_unary("/etcdserverpb.KV/Range", _serialized, rpc.RangeResponse.FromString)
    txn = channel.unary_unary("/etcdserverpb.KV/Txn", _serialized, rpc.TxnResponse.FromString)

    async def get() -> tuple[int, int]:
        kvs = (await read(rpc.RangeRequest(key=b"/n"))).kvs
        return (int(kvs[0].value), kvs[0].mod_revision) if kvs else (0, 0)

    async def swap(revision: int, value: int) -> bool:
        compare = rpc.Compare(key=b"/n", target=rpc.Compare.MOD, mod_revision=revision)
        write = rpc.RequestOp(request_put=rpc.PutRequest(key=b"/n", value=b"%d" % value))
        return (await txn(rpc.TxnRequest(compare=[compare], success=[write]))).succeeded

    return await _contended("etcd raw", get, swap)


async def _watched(name: str, store: Store) -> Row:
    """Write one after the other; the latency is from before the write to the watcher's step."""
    sent: dict[bytes, float] = {}
    latencies: list[float] = []
    start = (await store.range("/w")).revision + 1
    begun = time.perf_counter()
    async with aclosing(store.watch("/w/", start)) as changes:
        for number in range(WRITES):
            value = b"%d" % number
            step = asyncio.ensure_future(anext(changes))
            sent[value] = time.perf_counter()
            await store.txn((), (Put("/w/a", value),))
            _, found = await step
            assert [value] == [change.value for change in found]
            latencies.append(time.perf_counter() - sent[value])
    return "put to watcher", name, WRITES / (time.perf_counter() - begun), _quantiles(latencies)


async def _raw(address: str) -> list[Row]:
    """Make the same calls without anything of ours around them."""
    async with grpc.aio.insecure_channel(address, options=(("grpc.max_receive_message_length", -1),)) as channel:
        put = channel.unary_unary("/etcdserverpb.KV/Put", _serialized, rpc.PutResponse.FromString)
        read = channel.unary_unary("/etcdserverpb.KV/Range", _serialized, rpc.RangeResponse.FromString)
        watch = channel.stream_stream("/etcdserverpb.Watch/Watch", _serialized, rpc.WatchResponse.FromString)
        rows = [
            await _puts("etcd raw", lambda number: put(rpc.PutRequest(key=b"/p/%d" % number, value=VALUE)), together)
            for together in (1, TOGETHER)
        ]
        rows.append(await _counted_raw(channel))
        latencies = []
        call = watch()
        await call.write(rpc.WatchRequest(create_request=rpc.WatchCreateRequest(key=b"/w/a")))
        await call.read()
        for number in range(WRITES):
            begun = time.perf_counter()
            await put(rpc.PutRequest(key=b"/w/a", value=b"%d" % number))
            assert [b"%d" % number] == [event.kv.value for event in (await call.read()).events]
            latencies.append(time.perf_counter() - begun)
        call.cancel()
        rows.append(("put to watcher", "etcd raw", 1 / statistics.mean(latencies), _quantiles(latencies)))
        for number in range(KEYS):
            await put(rpc.PutRequest(key=b"/k/%06d" % number, value=VALUE))
        begun = time.perf_counter()
        found = await read(rpc.RangeRequest(key=b"/k/", range_end=b"/k0"))
        spent_s = time.perf_counter() - begun
        assert len(found.kvs) == KEYS
        rows.append((f"read {KEYS} keys", "etcd raw", KEYS / spent_s, f"{spent_s:.2f} s, one call"))
    return rows


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()


def _quantiles(latencies: list[float]) -> str:
    cuts = statistics.quantiles(latencies, n=100)
    return f"p50 {cuts[49] * 1000:.2f} ms, p99 {cuts[98] * 1000:.2f} ms"
