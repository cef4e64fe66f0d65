"""kill -9 of those who take back what was not confirmed, at any moment: it is taken back all the same, and once."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bgpd.adapters.store import keys
from bgpd.adapters.store.base import Store
from bgpd.adapters.store.journal import history
from bgpd.adapters.store.open import open_store
from bgpd.core.resource.bgp import BGPPEER
from bgpd.core.resource.pools import IPPOOL
from tests.adapters.store.etcd_server import Etcd
from tests.adapters.store.test_journal import change, held, peer, pool

pytestmark = pytest.mark.adapter

ROUNDS = int(os.environ.get("JOURNAL_KILL_ROUNDS", "2"))
LIMIT_S = 120.0
KILLED_WITHIN_S = 2.5
"""Of a change that waits a second: around the end of its time, whatever the machine's pace."""


@pytest.fixture(params=["sqlite", "etcd"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite://{tmp_path}/store.db"
    server: Etcd = request.getfixturevalue("etcd")
    return "etcd://" + ",".join(server.options.members)


@contextmanager
def confirmers(url: str, count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that are ready; killed at the end whatever happens."""
    command = [sys.executable, "-m", "tests.adapters.store.confirmer", url]
    processes = [subprocess.Popen([*command, f"node{n}"], stdout=subprocess.PIPE) for n in range(count)]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_killed_at_any_moment_it_is_taken_back_once(url: str) -> None:
    """Two daemons are killed about when the time ends, a third starts later: the state is as before, and the journal has one rollback."""
    chance = random.Random(8)

    async def one_round(store: Store) -> int:
        with confirmers(url, 2) as processes:
            entry = await change(store, peer(65002), pool(natOutgoing=True), confirm_s=1)
            assert entry is not None
            for process in processes:
                await asyncio.sleep(chance.uniform(0.25, KILLED_WITHIN_S / 2))
                process.kill()
        with confirmers(url, 1):
            async with asyncio.timeout(LIMIT_S):
                while await store.get(keys.PENDING_CHANGE) is not None:
                    await asyncio.sleep(0.05)
        return entry.number

    async def work() -> None:
        store = open_store(url)
        await change(store, peer(65001), pool())
        before = [await held(store, BGPPEER, "tor"), await held(store, IPPOOL, "p")]
        for _ in range(ROUNDS):
            number = await one_round(store)
            assert before == [await held(store, BGPPEER, "tor"), await held(store, IPPOOL, "p")]
            assert 1 == sum(entry.undoes == number for entry in await history(store))
        await store.close()

    asyncio.run(work())
