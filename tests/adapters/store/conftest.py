"""What the tests of the store share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from bgpd.adapters.store.base import Store
from bgpd.adapters.store.memory import MemoryStore
from bgpd.adapters.store.sqlite import SqliteStore

DEADLINE_S = 20


@pytest.fixture(params=["memory", "sqlite"])
def on_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Callable[[Store], Awaitable[Any]]], Any]:
    """Run a coroutine function on a fresh store of each kind, within DEADLINE_S."""

    def runner(work: Callable[[Store], Awaitable[Any]]) -> Any:
        async def main() -> Any:
            store = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "store.db")
            try:
                async with asyncio.timeout(DEADLINE_S):
                    return await work(store)
            finally:
                await store.close()

        return asyncio.run(main())

    return runner
