"""The ring of events: numbered, bounded, waited for."""

from __future__ import annotations

import asyncio

import pytest

from bgpd.daemon.events import RING_EVENTS, Events
from bgpd.model.notice import Notice

pytestmark = pytest.mark.core


def test_a_reader_gets_what_it_has_not_seen() -> None:
    """Events after a number; a number of an earlier life gives all that is kept."""

    async def main() -> None:
        events = Events()
        for name in ("store.lost", "store.returned", "peer.lost"):
            events.tell(Notice(name, {"reason": "x", "nothing": None}))
        assert [2, 3] == [event.sequence for event in await events.after(1, 0)]
        assert [1, 2, 3] == [event.sequence for event in await events.after(99, 0)]
        assert ["warning", "info", "warning"] == [event.level for event in await events.after(0, 0)]
        assert {"reason": "x"} == (await events.after(2, 0))[0].fields

    asyncio.run(main())


def test_a_reader_waits_for_the_next() -> None:
    """With nothing new a reader is woken by the next event, and every reader is."""

    async def main() -> None:
        events = Events()
        readers = [asyncio.create_task(events.after(0, 30.0)) for _ in range(3)]
        await asyncio.sleep(0)
        events.tell(Notice("peer.lost"))
        assert [[1], [1], [1]] == [[event.sequence for event in found] for found in await asyncio.gather(*readers)]
        assert [] == await events.after(1, 0.01)

    asyncio.run(main())


def test_the_ring_is_bounded() -> None:
    """The oldest go, and the numbers show it."""

    async def main() -> None:
        events = Events()
        for _ in range(RING_EVENTS + 7):
            events.tell(Notice("peer.lost"))
        found = await events.after(0, 0)
        assert (RING_EVENTS, 8) == (len(found), found[0].sequence)

    asyncio.run(main())
