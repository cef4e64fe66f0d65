"""The journal of changes on each backend: an entry with each change, taking back, and what waits for confirmation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from bgpd.adapters.store import keys
from bgpd.adapters.store.base import Store
from bgpd.adapters.store.journal import (
    ENTRIES_MAX,
    Author,
    Entry,
    confirm,
    history,
    record,
    undo,
    undo_unconfirmed,
)
from bgpd.adapters.store.resources import Conflict, Removal, Verb, commit, get_resource, prepare
from bgpd.core.resource import check, kinds
from bgpd.core.resource.bgp import BGPFILTER, BGPPEER
from bgpd.core.resource.check import Resource
from bgpd.core.resource.kind import Kind
from bgpd.core.resource.pools import IPPOOL
from bgpd.daemon.confirm import Confirmation
from bgpd.model.notice import Notice
from tests.core.resource.examples import EVERY_FIELD, resource

pytestmark = pytest.mark.adapter

OnStore = Callable[[Callable[[Store], Awaitable[Any]]], Any]
ME = Author("ann@host", "apply -f x.yaml")
NODE = Author("bgpd on node1", "rollback: not confirmed in time")
LIMIT_S = 60.0


def pool(**spec: Any) -> Resource:
    return resource("IPPool", {"cidr": "10.65.0.0/24", **spec}, "p")


def peer(asn: int, *filters: str) -> Resource:
    return resource("BGPPeer", {"peerIP": "192.0.2.1", "asNumber": asn, "filters": list(filters)}, "tor")


FILTER = resource("BGPFilter", {}, "f")


async def change(
    store: Store, *values: Resource, gone: tuple[Removal, ...] = (), confirm_s: float | None = None
) -> Entry | None:
    """Apply resources through the journal."""
    documents = []
    for value in values:
        document, defects = check.read("doc", value)
        assert document is not None, defects
        documents.append(document)
    return await record(store, await prepare(store, Verb.APPLY, documents, gone, force=True), ME, confirm_s)


async def beside(store: Store, value: Resource) -> None:
    """Change a resource as another tool does, without the journal."""
    document, _ = check.read("", value)
    assert document is not None
    await commit(store, await prepare(store, Verb.APPLY, [document]))


async def held(store: Store, kind: Kind, name: str) -> Resource | None:
    found = await get_resource(store, kind, name)
    return found.resource if found is not None else None


async def out_of_time(store: Store) -> None:
    """Wait until the store has ended the time to confirm."""
    async with asyncio.timeout(LIMIT_S):
        while await store.get(keys.PENDING_TIMER) is not None:
            await asyncio.sleep(0.05)


def test_an_entry_says_who_changed_what(on_store: OnStore) -> None:
    """Each change has one entry with author, command and the resources before and after; what changes nothing has none."""

    async def work(store: Store) -> None:
        await change(store, pool())
        first = await held(store, IPPOOL, "p")
        await change(store, pool(natOutgoing=True), peer(65001))
        assert await change(store, pool(natOutgoing=True)) is None

        one, two = await history(store)

        assert (1, 2) == (one.number, two.number)
        assert ("ann@host", "apply -f x.yaml", "") == (one.who, one.title, one.state)
        assert [("IPPool p", "replaced"), ("BGPPeer tor", "created")] == [(t.title, t.action) for t in two.touched]
        assert (first, await held(store, IPPOOL, "p")) == (two.touched[0].before, two.touched[0].after)

    on_store(work)


@pytest.mark.parametrize("kind", kinds.KINDS, ids=lambda kind: kind.kind)
def test_every_kind_is_created_changed_and_taken_back(on_store: OnStore, kind: Kind) -> None:
    """What is taken back is byte for byte what it was, uid and creation time included; what was created is gone."""

    async def work(store: Store) -> None:
        value = EVERY_FIELD[kind.kind]
        name = value["metadata"]["name"]
        needed = [FILTER | {"metadata": {"name": one}} for one in value["spec"].get("filters") or []]
        for one in needed:
            await beside(store, one)
        created = await change(store, value)
        assert created is not None
        before = await held(store, kind, name)

        await change(store, gone=(Removal(kind, name),))
        await undo(store, None, ME)
        assert before == await held(store, kind, name)

        await undo(store, created.number, ME)
        assert await held(store, kind, name) is None

    on_store(work)


def test_a_rollback_can_be_taken_back_and_not_be_made_twice(on_store: OnStore) -> None:
    """Taking back is a change with a number of its own; a change that is rolled back is not rolled back again."""

    async def work(store: Store) -> None:
        await change(store, pool())
        await change(store, pool(natOutgoing=True))
        after = await held(store, IPPOOL, "p")
        third = await undo(store, 2, ME)
        with pytest.raises(Conflict, match="change 2 is rolled back already"):
            await undo(store, 2, ME)

        assert (3, 2) == (third.number, third.undoes)
        await undo(store, 3, ME)
        assert after == await held(store, IPPOOL, "p")

    on_store(work)


def test_what_another_changed_since_is_not_overwritten(on_store: OnStore) -> None:
    """A rollback of two resources of which one was changed by another tool writes nothing and names it; forced, it writes both."""

    async def work(store: Store) -> None:
        await change(store, pool(), peer(65001))
        await change(store, pool(natOutgoing=True), peer(65002))
        await beside(store, peer(65003))

        with pytest.raises(Conflict, match="BGPPeer tor: was changed since by somebody else"):
            await undo(store, None, ME)
        assert ("replaced", "") == ((await history(store))[-1].touched[0].action, (await history(store))[-1].state)

        await undo(store, None, ME, force=True)
        found = await held(store, BGPPEER, "tor")
        assert found is not None
        assert found["spec"]["asNumber"] == 65001

    on_store(work)


def test_confirmed_in_time_it_stands(on_store: OnStore) -> None:
    """A confirmed change is left alone for ever; a second confirmation, or one of another number, is refused."""

    async def work(store: Store) -> None:
        await change(store, pool(), confirm_s=60)
        with pytest.raises(Conflict, match="change 7 does not wait for confirmation; change 1 does"):
            await confirm(store, 7)

        assert (await confirm(store, 1)).state == "confirmed"

        assert await undo_unconfirmed(store, NODE) is None
        assert await held(store, IPPOOL, "p") is not None
        with pytest.raises(Conflict, match="no change waits for confirmation; change 1 was confirmed"):
            await confirm(store, None)

    on_store(work)


def test_not_confirmed_it_is_taken_back_once_by_one_of_many(on_store: OnStore) -> None:
    """Of ten daemons that see the time end at once one takes the change back, and the journal has one entry of it."""

    async def work(store: Store) -> None:
        await change(store, peer(65001))
        before = await held(store, BGPPEER, "tor")
        await change(store, peer(65002), pool(), confirm_s=1)
        await out_of_time(store)
        with pytest.raises(Conflict, match="the time to confirm change 2 is over: it is being rolled back"):
            await confirm(store, None)

        made = await asyncio.gather(*(undo_unconfirmed(store, NODE) for _ in range(10)))

        assert 1 == sum(one is not None for one in made)
        assert (before, None) == (await held(store, BGPPEER, "tor"), await held(store, IPPOOL, "p"))
        assert ["", "rolled back", ""] == [one.state for one in await history(store)]
        assert await store.get(keys.PENDING_CHANGE) is None

    on_store(work)


def test_not_confirmed_what_another_changed_stays_and_is_named(on_store: OnStore) -> None:
    """The rest is taken back, and the entry says what was kept and why."""

    async def work(store: Store) -> None:
        await change(store, pool(), peer(65001))
        await change(store, pool(natOutgoing=True), peer(65002), confirm_s=1)
        await beside(store, peer(65003))
        await out_of_time(store)

        entry = await undo_unconfirmed(store, NODE)

        assert entry is not None
        assert ["IPPool p"] == [one.title for one in entry.touched]
        assert ("BGPPeer tor: was changed since by somebody else, and stays as it is",) == entry.kept
        found = await held(store, BGPPEER, "tor")
        assert found is not None
        assert found["spec"]["asNumber"] == 65003

    on_store(work)


def test_not_confirmed_what_others_need_stays_and_is_named(on_store: OnStore) -> None:
    """A filter that another's peer has begun to name is not deleted under it; the wait ends all the same."""

    async def work(store: Store) -> None:
        await change(store, FILTER, confirm_s=1)
        await beside(store, peer(65001, "f"))
        await out_of_time(store)

        entry = await undo_unconfirmed(store, NODE)

        assert entry is not None
        assert "cannot be deleted, since BGPPeer tor names it" in entry.kept[0]
        assert await held(store, BGPFILTER, "f") is not None
        assert await store.get(keys.PENDING_CHANGE) is None

    on_store(work)


def test_one_change_waits_at_a_time_and_a_rollback_ends_the_wait(on_store: OnStore) -> None:
    """A second unconfirmed change is refused and writes nothing; rolling the first back by hand frees the place."""

    async def work(store: Store) -> None:
        await change(store, pool(), confirm_s=60)
        with pytest.raises(Conflict, match="change 1 waits for its confirmation"):
            await change(store, peer(65001), confirm_s=60)
        assert await held(store, BGPPEER, "tor") is None

        await undo(store, 1, ME)

        assert (await change(store, peer(65001), confirm_s=60)) is not None

    on_store(work)


def test_changes_at_once_each_get_their_entry(on_store: OnStore) -> None:
    """Unrelated changes made at the same moment all succeed, with numbers of their own; only the last hundred are kept."""

    async def work(store: Store) -> None:
        for _ in range(ENTRIES_MAX // 5 + 1):
            await asyncio.gather(*(_labelled(store, number) for number in range(5)))

        entries = await history(store)

        assert ENTRIES_MAX == len(entries)
        assert list(range(entries[0].number, entries[0].number + ENTRIES_MAX)) == [one.number for one in entries]

    async def _labelled(store: Store, number: int) -> None:
        name = f"f{number}"
        found = await held(store, BGPFILTER, name)
        if found is None:
            await change(store, resource("BGPFilter", {}, name))
        else:
            await change(store, gone=(Removal(BGPFILTER, name),))

    on_store(work)


def test_a_daemon_takes_it_back_by_itself_and_tells(on_store: OnStore) -> None:
    """The daemon's part waits for the time to end, takes the change back, and says what it restored."""

    async def work(store: Store) -> None:
        notices: list[Notice] = []
        running = asyncio.create_task(Confirmation(store, "node1", notices.append).run())
        await change(store, pool(), confirm_s=1)
        async with asyncio.timeout(LIMIT_S):
            while not notices:
                await asyncio.sleep(0.05)
        running.cancel()

        assert await held(store, IPPOOL, "p") is None
        assert ("change.rolled_back", "IPPool p") == (notices[0].name, notices[0].fields["restored"])
        assert "bgpd on node1" == (await history(store))[-1].who

    on_store(work)
