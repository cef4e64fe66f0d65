"""Taking back a change that nobody confirmed in time (adapters/store/journal.py): every daemon waits for that, and one does it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from typing import Final

from bgpd.adapters.store import journal, keys
from bgpd.adapters.store.base import Compacted, Store, Transient
from bgpd.adapters.store.journal import Author, Entry
from bgpd.adapters.store.keys import Malformed
from bgpd.adapters.store.resources import Conflict
from bgpd.model.notice import Notice

SPREAD_S: Final = 1.0
"""Daemons begin within so long of each other, so that most of a large cluster find it done."""
LOOK_S: Final = 30.0
"""Look anew so often, whatever the watch says."""
RETRY_S: Final = 2.0
"""After the store was lost, or did not hold what was expected."""


class Confirmation:
    """Owns this daemon's watch."""

    def __init__(self, store: Store, node: str, notice: Callable[[Notice], None]) -> None:
        self._store = store
        self._author = Author(f"bgpd on {node}", "rollback: not confirmed in time")
        self._notice = notice

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            try:
                await self._turn()
            except (Transient, Compacted):
                await asyncio.sleep(RETRY_S)
            except (Conflict, Malformed) as error:
                self._notice(Notice("change.not_rolled_back", {"reason": str(error)}))
                await asyncio.sleep(LOOK_S)

    async def _turn(self) -> None:
        """Take back what is due, else wait for a change of the keys."""
        reading = await self._store.read([keys.PENDING_CHANGE, keys.PENDING_TIMER])
        if journal.unconfirmed(reading):
            await asyncio.sleep(random.uniform(0, SPREAD_S))  # noqa: S311 - spreads load, hides nothing
            entry = await journal.undo_unconfirmed(self._store, self._author)
            if entry is not None:
                self._tell(entry)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S), aclosing(self._changes(reading.revision + 1)) as changes:
                async for _ in changes:
                    return

    async def _changes(self, revision: int) -> AsyncGenerator[None, None]:
        async for _ in self._store.watch(keys.PENDING, revision):
            yield

    def _tell(self, entry: Entry) -> None:
        restored = ", ".join(one.title for one in entry.touched) or None
        kept = "; ".join(entry.kept) or None
        fields = {"change": entry.undoes, "by": entry.number, "restored": restored, "kept": kept}
        self._notice(Notice("change.rolled_back", dict(fields)))
