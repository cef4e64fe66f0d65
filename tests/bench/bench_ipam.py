"""How fast blocks are claimed and addresses assigned on etcd: ours beside Calico's own sequence, against the same server in the same run.

Run it by name: ``python -m pytest -s tests/bench/bench_ipam.py``. The defaults are small. Sizes are set by BENCH_CLAIMS (claims by each
number of claimers, 100), BENCH_ASSIGNMENTS (100), BENCH_OTHERS (blocks in others' hands while these are measured, 500),
BENCH_CLUSTERS (blocks in others' hands for the cost of one claim, "0,500,2500"; in full "0,10000,50000") and BENCH_SAMPLES (claims of
each of these, 100).

Asserts on what is stored, and on how much is read for a claim; never on time.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack

import pytest

from bgpd.adapters.store import keys
from bgpd.adapters.store.base import TXN_OPS_MAX, Put, Reading, Scan, Store
from bgpd.adapters.store.census import take
from bgpd.adapters.store.etcd import EtcdStore
from bgpd.adapters.store.etcd_link import EtcdOptions
from bgpd.adapters.store.ipam.claim import claim_block
from bgpd.adapters.store.records import affinity_bytes, block_bytes
from bgpd.adapters.store.transact import ensure_pool
from bgpd.api.protocol import AssignRequest
from bgpd.core.ipam.block import new_block
from bgpd.core.ipam.check import check
from bgpd.daemon.assign import Assigner
from bgpd.model.pool import AffinityState, Pool
from bgpd.model.prefix import Address, Prefix
from tests.adapters.store.etcd_server import Etcd
from tests.adapters.store.ipam.calico_driver import Calico

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

CLAIMS = int(os.environ.get("BENCH_CLAIMS", "100"))
ASSIGNMENTS = int(os.environ.get("BENCH_ASSIGNMENTS", "100"))
OTHERS = int(os.environ.get("BENCH_OTHERS", "500"))
CLUSTERS = [int(text) for text in os.environ.get("BENCH_CLUSTERS", "0,500,2500").split(",")]
SAMPLES = int(os.environ.get("BENCH_SAMPLES", "100"))
CLAIMERS = (1, 16, 100)
ROUNDS = 3
"""Each beside the other's, and the middle one counts: a busy machine slows now the one and now the other."""
GROWTH_MAX = 1.5
"""By how much a claim may read more where others hold many blocks."""

POOL = Pool(name="p", cidr=Prefix.parse("10.0.0.0/8"))


@pytest.fixture(scope="module")
def server() -> Iterator[Etcd]:
    with Etcd() as made:
        yield made


class Counting(EtcdStore):
    """Counts what is read."""

    def __init__(self, options: EtcdOptions) -> None:
        super().__init__(options)
        self.read_keys = 0

    async def read(self, parts: Sequence[str | Scan]) -> Reading:
        reading = await super().read(parts)
        self.read_keys += sum(max(1, len(page.items)) for page in reading.pages)
        return reading


async def _populate(store: Store, count: int) -> None:
    """Put *count* blocks of others all over the pool, each with its affinity, 50 nodes to a thousand blocks."""
    places = random.Random(count).sample(range(1 << POOL.block_size - POOL.cidr.length), count)
    writes = []
    for number, place in enumerate(places):
        cidr = Prefix.of(Address(POOL.cidr.network + (place << 32 - POOL.block_size)), POOL.block_size)
        node = f"other{number // 20}"
        writes.append(Put(keys.block_key(cidr), block_bytes(new_block(cidr, node, 1, "2026-01-01T00:00:00Z"))))
        key = keys.affinity_key(node, cidr)
        writes.append(Put(key, affinity_bytes(key, AffinityState.CONFIRMED, None)))
    for first in range(0, len(writes), TXN_OPS_MAX):
        await store.txn((), writes[first : first + TXN_OPS_MAX])


async def _fresh(server: Etcd, others: int) -> EtcdStore:
    server.empty()
    store = server.store()
    await ensure_pool(store, POOL)
    await store.txn((), (Put(keys.node_key("n"), b'{"metadata": {"name": "n"}, "spec": {}}'),))
    await _populate(store, others)
    return store


async def _timed(count: int, together: int, work: Callable[[int], Awaitable[object]]) -> tuple[float, list[float]]:
    """Do *count* pieces of work, *together* at a time: how many a second, and how long each took."""
    numbers, latencies = iter(range(count)), []

    async def worker() -> None:
        for number in numbers:
            begun = time.perf_counter()
            await work(number)
            latencies.append(time.perf_counter() - begun)

    begun = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(together)))
    return count / (time.perf_counter() - begun), latencies


def _ours(store: Store) -> Callable[[int], Awaitable[object]]:
    return lambda number: claim_block(store, POOL, f"n{number}")


def _calico(store: Store) -> Callable[[int], Awaitable[object]]:
    return lambda number: Calico(store, f"c{number}", str(POOL.cidr)).claim()


def _row(what: str, ours: float, calico: float, latencies: list[float]) -> None:
    p50, p99 = statistics.median(latencies) * 1e3, sorted(latencies)[int(len(latencies) * 0.99) - 1] * 1e3
    print(f"{what:<36} {ours:>9.0f} {calico:>9.0f} {ours / calico:>6.1f}   p50 {p50:.1f} ms, p99 {p99:.1f} ms")


def _head() -> None:
    print(f"\n{'what, per second':<36} {'bgpd':>9} {'Calico':>9} {'ratio':>6}   latency of ours")


async def _sound(store: Store, owners: int) -> None:
    """Each of *owners* has one block, beside the others', and nothing is wrong."""
    census = await take(store)
    assert () == check(census).problems
    assert OTHERS + owners == len(census.blocks) == len(census.affinities)


def test_claims(server: Etcd) -> None:
    """Blocks claimed by 1, 16 and 100 at once, beside Calico's pending affinity, list, block and confirmation: one each, none twice."""

    async def run() -> None:
        _head()
        for together in CLAIMERS:
            rates: dict[str, list[float]] = {"calico": [], "ours": []}
            latencies: list[float] = []
            for _ in range(ROUNDS):
                for who, claims in (("calico", _calico), ("ours", _ours)):
                    store = await _fresh(server, OTHERS)
                    rate, took = await _timed(CLAIMS, together, claims(store))
                    await _sound(store, CLAIMS)
                    await store.close()
                    rates[who].append(rate)
                    latencies += took if who == "ours" else []
            ours, calico = (statistics.median(rates[who]) for who in ("ours", "calico"))
            _row(f"claims of blocks, {together} at once", ours, calico, latencies)

    asyncio.run(run())


def test_assignments(server: Etcd) -> None:
    """Addresses assigned on one node as its daemon does, each to a handle of its own, beside Calico's sequence: each a different one."""

    async def run() -> None:
        _head()
        for together in (1, 16):
            store = await _fresh(server, OTHERS)
            taken: set[str | None] = set()
            driver = Calico(store, "c", str(POOL.cidr))

            async def theirs(number: int, driver: Calico = driver, taken: set[str | None] = taken) -> None:
                taken.add(await driver.assign(f"h{number}"))

            calico, _ = await _timed(ASSIGNMENTS, together, theirs)
            assert ASSIGNMENTS == len(taken - {None})
            await store.close()
            store = await _fresh(server, OTHERS)
            given: set[str] = set()
            assigner = Assigner(store, "n")

            async def ours(number: int, assigner: Assigner = assigner, given: set[str] = given) -> None:
                given.update((await assigner.assign(AssignRequest(handle=f"h{number}"))).addresses)

            rate, latencies = await _timed(ASSIGNMENTS, together, ours)
            assert ASSIGNMENTS == len(given)
            assert () == check(await take(store)).problems
            await store.close()
            _row(f"assignments on one node, {together} at once", rate, calico, latencies)

    asyncio.run(run())


def test_a_claim_costs_the_same_beside_many_blocks() -> None:
    """One claim reads no more than half as much again where others hold tens of thousands of blocks; its time is beside Calico's.

    The clusters stand beside each other and are measured in turn, claim by claim.
    """

    async def run(servers: Sequence[Etcd]) -> None:
        stores = []
        for server, others in zip(servers, CLUSTERS, strict=True):
            await (await _fresh(server, others)).close()
            stores.append(Counting(server.options))
        ours: list[list[float]] = [[] for _ in stores]
        theirs: list[list[float]] = [[] for _ in stores]
        for number in range(SAMPLES):
            for index, store in enumerate(stores):
                ours[index] += (await _timed(1, 1, lambda _, store=store, number=number: _ours(store)(number)))[1]
        read = [store.read_keys / SAMPLES for store in stores]
        for number in range(max(3, SAMPLES // 20)):
            for index, store in enumerate(stores):
                theirs[index] += (await _timed(1, 1, lambda _, store=store, number=number: _calico(store)(number)))[1]
        print(f"\n{'blocks of others':<18} {'bgpd p50':>10} {'to first':>8} {'keys read':>10} {'Calico p50':>11}")
        medians = [statistics.median(one) * 1e3 for one in ours]
        for others, p50, keys_read, calico in zip(CLUSTERS, medians, read, theirs, strict=True):
            ratio, calico_ms = p50 / medians[0], statistics.median(calico) * 1e3
            print(f"{others:<18} {p50:>7.2f} ms {ratio:>8.2f} {keys_read:>10.1f} {calico_ms:>8.1f} ms")
        for store in stores:
            await store.close()
        assert [] == [keys_read for keys_read in read if keys_read > GROWTH_MAX * read[0]]

    with ExitStack() as stack:
        asyncio.run(run([stack.enter_context(Etcd()) for _ in CLUSTERS]))
