"""Table and Inbox, the two connectors."""

from __future__ import annotations

import asyncio

import pytest

from bgpd.flow.inbox import Inbox
from bgpd.flow.table import Table
from bgpd.model.event import NodeAlive, Tick

pytestmark = pytest.mark.core


def test_table_is_bounded_by_keys_not_by_churn() -> None:
    """A key that changes many times is seen once, with its latest value."""
    table: Table[str, int] = Table("t")
    for value in range(1000):
        table.set("a", value)

    assert ["a"] == table.take()
    assert 999 == table.get("a")
    assert [] == table.take()


def test_table_ignores_an_equal_value() -> None:
    """Desiring what is desired already wakes nobody."""
    table: Table[str, int] = Table("t")
    table.set("a", 1)
    table.take()

    table.set("a", 1)
    table.discard("b")

    assert [] == table.take()


def test_table_wakes_its_reader() -> None:
    """Each change calls the reader's wake function."""
    table: Table[str, int] = Table("t")
    woken: list[None] = []
    table.subscribe(lambda: woken.append(None))

    table.set("a", 1)
    table.discard("a")

    assert 2 == len(woken)
    assert "a" not in table


def test_inbox_keeps_order_and_holds_back_a_fast_producer() -> None:
    """Events leave in the order they came; put waits while the inbox is full."""

    async def scenario() -> None:
        inbox = Inbox(capacity=2)
        await inbox.put(NodeAlive("a"))
        await inbox.put(NodeAlive("b"))
        third = asyncio.ensure_future(inbox.put(NodeAlive("c")))
        await asyncio.sleep(0)
        assert not third.done()

        assert [NodeAlive("a"), NodeAlive("b")] == await inbox.take(None)
        await third
        assert [NodeAlive("c")] == await inbox.take(1.0)
        assert [] == await inbox.take(0.01)
        await inbox.put(Tick())
        assert [Tick()] == await inbox.take(0.0)

    asyncio.run(scenario())
