"""Many processes on one etcd, some killed: no address twice, none lost, and nothing for anybody to mend."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bgpd.adapters.store import keys
from bgpd.adapters.store.base import Put, Store
from bgpd.adapters.store.census import take
from bgpd.adapters.store.ipam.assign import AddressRequest, Granted, assign
from bgpd.adapters.store.lease import register
from bgpd.adapters.store.records import pool_bytes
from bgpd.core.ipam.check import check
from bgpd.model.node import Node
from bgpd.model.pool import Pool
from bgpd.model.prefix import Prefix
from tests.adapters.store.etcd_server import Etcd
from tests.adapters.store.ipam import audit
from tests.adapters.store.ipam.claimer import Job, Line
from tests.core.ipam.test_block import NOW

pytestmark = pytest.mark.adapter

CLAIMERS = int(os.environ.get("IPAM_CLAIMERS", "24"))
"""Processes at once."""
KILLS = int(os.environ.get("IPAM_KILLS", "30"))
"""Processes that are killed, one after the other."""
ANSWERS = 1 + 12 + 4
"""What a process that is killed would have told: its block, its handles, those given back."""
DEADLINE_S = 60 + 2 * CLAIMERS


class Zygote:
    """Owns the process that forks the others, and the folder of their logs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._count = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.adapters.store.ipam.claimer"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def start(self, url: str, pool: Pool, *, go: str = "go", **job: Any) -> Path:
        """Fork a process for a job; returns its log."""
        self._count += 1
        log = self.folder / f"{self._count}.log"
        log.touch()
        made = Job(
            url=url, pool=str(pool.cidr), block_size=pool.block_size, go=str(self.folder / go), log=str(log), **job
        )
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(made) + b"\n")
        self._process.stdin.flush()
        assert self._process.stdout is not None
        assert b"started\n" == self._process.stdout.readline()
        return log

    def go(self, name: str = "go") -> None:
        (self.folder / name).touch()

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=10)
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture
def zygote(tmp_path: Path) -> Iterator[Zygote]:
    made = Zygote(tmp_path)
    yield made
    made.stop()


def url_of(etcd: Etcd) -> str:
    return f"etcd://{etcd.members[0].address}"


def lines(log: Path) -> list[Line]:
    """Read the answers; what a killed process was writing ends without a line feed."""
    whole = log.read_bytes().rpartition(b"\n")[0]
    return [msgspec.json.decode(line, type=Line) for line in whole.splitlines()]


def wait_done(logs: Sequence[Path]) -> list[list[Line]]:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        every = [lines(log) for log in logs]
        if all(told and told[-1].done for told in every):
            return every
        assert time.monotonic() < deadline, [told[-1:] for told in every if not told or not told[-1].done]
        time.sleep(0.1)


async def prepare(store: Store, pool: Pool, nodes: Sequence[str], **config: Any) -> None:
    await store.txn((), (Put(keys.pool_key(pool.name), pool_bytes(pool, NOW)),))
    value = json.dumps({"auto_allocate_blocks": True, **config}).encode()
    await store.txn((), (Put(keys.IPAM_CONFIG, value),))
    for name in nodes:
        await register(store, Node(name=name))


async def inspect(store: Store) -> dict[str, Any]:
    """Return all of IPAM, of which the audit and `ipam check` find nothing wrong."""
    state = await audit.dump(store)
    assert [] == audit.defects(state)
    assert () == check(await take(store)).problems
    return state


def on(etcd: Etcd, work: Any) -> Any:
    async def main() -> Any:
        store = etcd.store()
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(main())


def confirmed(state: dict[str, Any]) -> int:
    return sum(len(hosts) for hosts in audit.owners(state).values())


def test_claimers_in_processes_of_their_own(etcd: Etcd, zygote: Zygote) -> None:
    """Nodes that claim a block and assign addresses at once, each in its process, get each address once; nothing is left over."""
    pool = Pool(name="p", cidr=Prefix.parse("10.0.0.0/16"), block_size=28)
    nodes = [f"node-{number}" for number in range(CLAIMERS)]
    on(etcd, lambda store: prepare(store, pool, nodes))

    logs = [
        zygote.start(
            url_of(etcd), pool, node=name, claim=True, handles=[f"{name}.{n}" for n in range(20)], release_every=4
        )
        for name in nodes
    ]
    zygote.go()
    every = wait_done(logs)
    state = on(etcd, inspect)

    held = audit.held(state)
    released = {line.handle for told in every for line in told if line.released}
    kept = [one for told in every for line in told if line.handle not in released for one in line.addresses]
    blocks = [line.block for told in every for line in told if line.block]
    assert not [line.refused for told in every for line in told if line.refused]
    assert CLAIMERS == len(set(blocks))
    assert 15 * CLAIMERS == len(kept) == len(set(kept)) == len(held)
    assert len([key for key in state if key.startswith(keys.HANDLES)]) == len(held)


@pytest.mark.parametrize("strict", [False, True])
def test_thirty_two_hosts_on_sixteen_blocks(etcd: Etcd, zygote: Zygote, strict: bool) -> None:
    """With borrowing every host gets its address, of sixteen owners; with strict affinity sixteen do, and the others are told why."""
    pool = Pool(name="p", cidr=Prefix.parse("10.0.0.0/24"), block_size=28)
    nodes = [f"node-{number}" for number in range(32)]
    on(etcd, lambda store: prepare(store, pool, nodes, strict_affinity=strict))

    logs = [zygote.start(url_of(etcd), pool, node=name, handles=[f"{name}.h"]) for name in nodes]
    zygote.go()
    told = [line for log in wait_done(logs) for line in log if line.handle]
    state = on(etcd, inspect)

    served = [address for line in told for address in line.addresses]
    assert 16 == confirmed(state) == len([key for key in state if key.startswith(keys.BLOCKS)])
    assert (16 if strict else 32) == len(served) == len(set(served)) == len(audit.held(state))
    reason = (
        "pool p is full: each block of 10.0.0.0/24 is taken or reserved; "
        "and strict affinity forbids addresses of other nodes' blocks"
    )
    assert [reason] * (16 if strict else 0) == [line.refused for line in told if line.refused]


def test_processes_killed_at_any_point_leave_nothing_to_mend(etcd: Etcd, zygote: Zygote) -> None:
    """Whenever a process that claims, assigns and releases is killed: the store is consistent at once, and asking again completes it."""
    pool = Pool(name="p", cidr=Prefix.parse("10.0.0.0/18"), block_size=28)
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    nodes = [f"node-{number}" for number in range(5)]
    on(etcd, lambda store: prepare(store, pool, nodes, ipCooldownSeconds=chance.choice((0, 600))))
    zygote.go()
    logs: list[Path] = []
    for number in range(KILLS):
        wanted = [f"k{number}.{index}" for index in range(12)]
        node, die = chance.choice(nodes), chance.uniform(0.0, ANSWERS - 1)
        job: dict[str, Any] = {
            "node": node,
            "claim": True,
            "handles": wanted,
            "count": 3,
            "release_every": 3,
            "die_at": die,
        }
        logs.append(zygote.start(url_of(etcd), pool, **job))
        _wait_ended(logs[-1])

    killed = [log for log in logs if not (told := lines(log)) or not told[-1].done]
    assert 2 * len(killed) > KILLS, "most die at their work"
    state = on(etcd, inspect)

    held = audit.held(state)
    handles = sorted(set(held.values()))
    assert max(list(held.values()).count(handle) for handle in handles) <= 3, f"seed {seed}"
    for log in logs:
        told = lines(log)
        released = {line.handle for line in told if line.released}
        for line in told:
            if line.addresses and line.handle not in released and line is not told[-1]:
                # The last one that was told may be on its way back.
                mine = {f"{cidr}#{ordinal}" for cidr, ordinal in map(_place, line.addresses)}
                assert mine == {address for address, handle in held.items() if handle == line.handle}, f"seed {seed}"
    after = on(etcd, lambda store: _again(store, nodes[0], handles))
    assert held.items() <= after.items(), f"seed {seed}"
    assert [3] * len(handles) == [list(after.values()).count(handle) for handle in handles], f"seed {seed}"


def _wait_ended(log: Path) -> None:
    """Wait until a process is no more: its log is not locked then."""
    deadline = time.monotonic() + DEADLINE_S
    with log.open() as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                assert time.monotonic() < deadline, f"{log} is still written"
                time.sleep(0.005)
            else:
                return


def _place(address: str) -> tuple[str, int]:
    cidr = Prefix.of(Prefix.parse(f"{address}/32").network, 28)
    return str(cidr), Prefix.parse(f"{address}/32").network - cidr.network


async def _again(store: Store, node: str, handles: Sequence[str]) -> dict[str, str]:
    """Ask again for what the killed ones asked for; returns who has what then."""
    for handle in handles:
        answer = await assign(store, AddressRequest(node=node, handle_id=handle, ipv4=3))
        assert isinstance(answer, Granted)
    return audit.held(await inspect(store))
