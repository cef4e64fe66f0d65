"""What the tests of the store share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bgpd.adapters.store.base import Store
from bgpd.adapters.store.memory import MemoryStore
from bgpd.adapters.store.sqlite import SqliteStore
from tests.adapters.store.etcd_server import Etcd, quick

DEADLINE_S = 20


@pytest.fixture(scope="session")
def etcd_server() -> Iterator[Etcd]:
    """A server for the whole run; `etcd` empties it for each test."""
    with quick() as server:
        yield server


@pytest.fixture
def etcd(etcd_server: Etcd) -> Etcd:
    """A server without keys."""
    etcd_server.empty()
    return etcd_server


@pytest.fixture(params=["memory", "sqlite", "etcd"])
def on_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Callable[[Store], Awaitable[Any]]], Any]:
    """Run a coroutine function on a fresh store of each kind, within DEADLINE_S."""

    def runner(work: Callable[[Store], Awaitable[Any]]) -> Any:
        server: Etcd | None = request.getfixturevalue("etcd") if request.param == "etcd" else None

        async def main() -> Any:
            store: Store
            if server is not None:
                store = server.store()
            else:
                store = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "store.db")
            try:
                async with asyncio.timeout(DEADLINE_S):
                    return await work(store)
            finally:
                await store.close()

        return asyncio.run(main())

    return runner
