"""The contract of a store: etcd v3's semantics, the same for every implementation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from bgpd.adapters.store.base import (
    TXN_OPS_MAX,
    Change,
    Compacted,
    Compare,
    Delete,
    KeyValue,
    LeaseNotFound,
    Put,
    Scan,
    Store,
    Transient,
    Unwritten,
    read_all,
)
from bgpd.adapters.store.memory import MemoryStore
from bgpd.adapters.store.sqlite import TRIM_REVISIONS, SqliteStore
from tests.adapters.store.etcd_server import Etcd

pytestmark = pytest.mark.adapter

KEEP = 50
DEADLINE_S = 10


@pytest.fixture(params=["memory", "sqlite", "etcd"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Callable[[Store], Awaitable[Any]]], Any]:
    """Run a coroutine function on an empty store that keeps KEEP revisions."""
    server: Etcd | None = request.getfixturevalue("etcd") if request.param == "etcd" else None

    def runner(work: Callable[[Store], Awaitable[Any]]) -> Any:
        async def main() -> Any:
            store: Store
            if server is not None:
                store = server.store()
            else:
                store = MemoryStore(KEEP) if request.param == "memory" else SqliteStore(tmp_path / "dir/store.db", KEEP)
            try:
                async with asyncio.timeout(DEADLINE_S):
                    return await work(store)
            finally:
                await store.close()

        return asyncio.run(main())

    return runner


async def put(store: Store, key: str, value: bytes, lease: int = 0) -> int:
    return (await store.txn((), (Put(key, value, lease),))).revision


async def take(changes: AsyncIterator[tuple[int, list[Change]]], count: int) -> list[tuple[int, list[Change]]]:
    return [await anext(changes) for _ in range(count)]


def test_a_put_takes_the_next_revision(run):
    """Each transaction that changes a key takes the next revision, and the key keeps it."""

    async def work(store):
        first = await put(store, "/a", b"1")
        second = await store.txn((), (Put("/b", b"2"), Put("/c", b"3")))

        assert first + 1 == second.revision
        assert KeyValue("/a", b"1", first) == await store.get("/a")
        assert KeyValue("/c", b"3", second.revision) == await store.get("/c")
        assert await store.get("/d") is None

    run(work)


def test_a_failed_comparison_writes_nothing(run):
    """A transaction whose comparison fails changes nothing and takes no revision."""

    async def work(store):
        revision = await put(store, "/a", b"1")

        lost = await store.txn((Compare("/a", revision - 1),), (Put("/a", b"2"), Put("/b", b"2")))
        present = await store.txn((Compare("/a", 0),), (Delete("/a"),))
        won = await store.txn((Compare("/a", revision), Compare("/b", 0)), (Put("/a", b"3"), Delete("/x")))

        assert [lost.succeeded, present.succeeded, won.succeeded] == [False, False, True]
        assert [revision, revision, revision + 1] == [lost.revision, present.revision, won.revision]
        assert KeyValue("/a", b"3", revision + 1) == await store.get("/a")
        assert await store.get("/b") is None

    run(work)


def test_deleting_an_absent_key_takes_no_revision(run):
    """A transaction that only deletes absent keys succeeds and takes no revision."""

    async def work(store):
        revision = await put(store, "/a", b"1")

        gone = await store.txn((), (Delete("/x"),))
        deleted = await store.txn((), (Delete("/a"), Delete("/x")))

        assert (True, revision) == (gone.succeeded, gone.revision)
        assert revision + 1 == deleted.revision
        assert await store.get("/a") is None
        assert (await store.txn((Compare("/a", 0),), (Put("/a", b"2"),))).succeeded

    run(work)


def test_a_request_that_etcd_refuses_is_refused(run):
    """A key written twice, an empty key or too many operations is a ValueError; nothing is written."""

    async def work(store):
        for writes in (
            (Put("/a", b"1"), Put("/a", b"2")),
            (Put("/a", b"1"), Delete("/a")),
            (Put("", b""),),
            tuple(Put(f"/{index}", b"") for index in range(TXN_OPS_MAX + 1)),
        ):
            with pytest.raises(ValueError):
                await store.txn((), writes)
        assert (await store.range("")).items == ()

    run(work)


def test_keys_and_ranges_are_read_together(run):
    """A reading of keys and ranges is of one revision, in the order asked for, with limits, starts, and no values where none are wanted."""

    async def work(store):
        for key in ("/p/a", "/p/b", "/p/c", "/q"):
            await put(store, key, key.encode())
        revision = (await store.range("/")).revision

        found = await store.read(
            ["/q", "/x", Scan("/p/", limit=2), Scan("/p/", start="/p/b"), Scan("/p/", keys_only=True)]
        )

        assert revision == found.revision
        assert {revision} == {page.revision for page in found.pages}
        names = [[item.key for item in page.items] for page in found.pages]
        assert [["/q"], [], ["/p/a", "/p/b"], ["/p/b", "/p/c"], ["/p/a", "/p/b", "/p/c"]] == names
        assert [False, False, True, False, False] == [page.more for page in found.pages]
        assert (await store.get("/q"),) == found.pages[0].items
        assert [b"", b"", b""] == [item.value for item in found.pages[4].items]
        assert found.pages[2].items[0].mod_revision == found.pages[4].items[0].mod_revision
        with pytest.raises(ValueError):
            await store.read(["/x"] * (TXN_OPS_MAX + 1))

    run(work)


def test_a_range_is_compared_by_what_was_written_in_it(run):
    """A transaction that rests on a range fails once a key came into it or changed there, and holds for an empty range and deletions."""

    async def work(store):
        first = await put(store, "/p/a", b"1")
        empty = await store.txn((Unwritten("/x/", first), Unwritten("/p/", first)), (Put("/q", b"1"),))
        old = await store.txn((Unwritten("/p/", first - 1),), (Put("/q", b"2"),))
        second = await put(store, "/p/b", b"1")
        phantom = await store.txn((Unwritten("/p/", first),), (Put("/q", b"3"),))
        await store.txn((), (Delete("/p/b"),))
        gone = await store.txn((Unwritten("/p/", first),), (Put("/q", b"4"),))

        assert [True, False, False, True] == [one.succeeded for one in (empty, old, phantom, gone)]
        assert second < gone.revision

    run(work)


def test_a_range_is_a_page_in_order_of_keys(run):
    """A range returns keys below the prefix in order, says whether more follow, and goes on after a key."""

    async def work(store):
        for key in ("/p/b", "/p/a", "/q/a", "/p/c", "/p", "/p/é"):
            await put(store, key, key.encode())

        page = await store.range("/p/", limit=2)
        rest = await store.range("/p/", limit=2, start=page.items[-1].key + "\0")

        assert [item.key for item in page.items] == ["/p/a", "/p/b"]
        assert page.more
        assert [item.key for item in rest.items] == ["/p/c", "/p/é"]
        assert not rest.more
        assert len((await store.range("")).items) == 6

    run(work)


def test_a_range_reads_the_past(run):
    """A range at a revision shows the keys as they were then, deleted ones included; the answer carries the present revision."""

    async def work(store):
        await put(store, "/a", b"1")
        then = await put(store, "/b", b"1")
        await put(store, "/a", b"2")
        await store.txn((), (Delete("/b"),))
        now = await put(store, "/c", b"1")

        page = await store.range("/", revision=then)

        assert [(item.key, item.value) for item in page.items] == [("/a", b"1"), ("/b", b"1")]
        assert now == page.revision
        with pytest.raises(ValueError):
            await store.range("/", revision=now + 1)

    run(work)


def test_reading_all_pages_shows_one_revision(run):
    """Keys read page by page are those of one revision, though others write between the pages."""

    async def work(store):
        for index in range(0, 40, 2):
            await put(store, f"/k/{index:03}", b"old")
        seen = []
        start, revision = "", 0
        while True:
            page = await store.range("/k/", revision=revision, limit=7, start=start)
            revision = revision or page.revision
            seen += page.items
            await store.txn((), (Put(f"/k/{len(seen):03}", b"new"), Delete("/k/038")))
            if not page.more:
                break
            start = page.items[-1].key + "\0"

        assert [(f"/k/{index:03}", b"old") for index in range(0, 40, 2)] == [(item.key, item.value) for item in seen]
        assert [item async for item in read_all(store, "/k/", revision)] == seen

    run(work)


def test_a_watch_tells_each_revision_once_and_in_order(run):
    """A watch begins at its revision, tells puts and deletions below its prefix a revision at a time, and waits for more."""

    async def work(store):
        await put(store, "/w/a", b"0")
        first = await put(store, "/w/a", b"1")
        await put(store, "/x/a", b"1")
        async with aclosing(store.watch("/w/", first)) as changes:
            assert [(first, [Change("/w/a", b"1", first)])] == await take(changes, 1)
            step = asyncio.ensure_future(anext(changes))
            await asyncio.sleep(0)
            both = (await store.txn((), (Put("/w/b", b"2"), Delete("/w/a"), Put("/x/b", b"2")))).revision
            assert (both, [Change("/w/b", b"2", both), Change("/w/a", None, both)]) == await step

    run(work)


def test_a_watch_from_now_on_skips_the_past(run):
    """A watch from revision 0 tells only what comes after it began."""

    async def work(store):
        await put(store, "/a", b"1")
        async with aclosing(store.watch("/", 0)) as changes:
            step = asyncio.ensure_future(anext(changes))
            while not step.done():
                revision = await put(store, "/a", b"2")
                await asyncio.sleep(0.01)
            told, found = step.result()
            assert (told, b"2") == (found[0].mod_revision, found[0].value)
            assert 2 < told <= revision

    run(work)


@pytest.fixture
def trim(request: pytest.FixtureRequest) -> Callable[[int], Awaitable[None]]:
    """Let the history up to a revision be trimmed to KEEP: etcd's own compaction looks every five minutes only."""

    async def trimmed(last: int) -> None:
        if "etcd" in request.fixturenames:
            await asyncio.to_thread(request.getfixturevalue("etcd_server").compact, last - KEEP)

    return trimmed


def test_history_is_bounded_and_what_is_older_is_compacted(run, trim):
    """Reading or watching from before the kept history raises Compacted with the compact revision, from which both work."""

    async def work(store):
        old = await put(store, "/old", b"1")
        await store.txn((), (Put("/gone", b"1"),))
        await store.txn((), (Delete("/gone"),))
        last = 0
        for index in range(KEEP + TRIM_REVISIONS + 10):
            last = await put(store, "/a", str(index).encode())
        await trim(last)

        with pytest.raises(Compacted) as raised:
            await store.range("/", revision=old)
        async with aclosing(store.watch("/", old)) as changes:
            with pytest.raises(Compacted):
                await anext(changes)
        compacted = raised.value.compact_revision

        assert last - 2 * KEEP - TRIM_REVISIONS <= compacted <= last - KEEP + 1
        page = await store.range("/", revision=compacted)
        assert [("/a", compacted), ("/old", old)] == [(item.key, item.mod_revision) for item in page.items]
        async with aclosing(store.watch("/", compacted)) as changes:
            told = await take(changes, last - compacted + 1)
        assert list(range(compacted, last + 1)) == [revision for revision, _ in told]

    run(work)


def test_a_lease_that_ends_deletes_its_keys(run):
    """When a lease was not kept alive, its keys are deleted in one revision, and a watcher sees it without anybody writing."""

    async def work(store):
        lease = await store.grant(1)
        start = await store.txn((), (Put("/l/a", b"1", lease), Put("/l/b", b"1", lease), Put("/l/c", b"1")))
        assert lease == (await store.get("/l/a")).lease
        async with aclosing(store.watch("/l/", start.revision + 1)) as changes:
            ended, found = await anext(changes)

        assert start.revision + 1 == ended
        assert [(change.key, change.value) for change in found] == [("/l/a", None), ("/l/b", None)]
        assert [item.key for item in (await store.range("/l/")).items] == ["/l/c"]
        with pytest.raises(LeaseNotFound):
            await store.keepalive(lease)

    run(work)


def test_a_lease_kept_alive_lasts(run):
    """A lease kept alive outlives its first term; a key read after its end is gone even if nobody watched."""

    async def work(store):
        loop = asyncio.get_running_loop()
        lease = await store.grant(1)
        await put(store, "/l", b"1", lease)
        begun = loop.time()
        while loop.time() < begun + 1.5:
            await store.keepalive(lease)
            await asyncio.sleep(0.1)
        assert await store.get("/l") is not None
        while await store.get("/l") is not None:
            await asyncio.sleep(0.05)
        assert loop.time() < begun + 4

    run(work)


def test_revoking_a_lease_ends_it_at_once(run):
    """Revoking deletes the keys of the lease; a put under an unknown lease fails and writes nothing."""

    async def work(store):
        lease = await store.grant(60)
        await put(store, "/l/a", b"1", lease)
        await put(store, "/l/b", b"1", lease)
        await put(store, "/l/b", b"2")
        await store.revoke(lease)

        assert [item.key for item in (await store.range("/l/")).items] == ["/l/b"]
        for unknown in (
            store.revoke(lease),
            store.keepalive(lease),
            store.txn((), (Put("/x", b""), Put("/y", b"", lease))),
        ):
            with pytest.raises(LeaseNotFound):
                await unknown
        assert await store.get("/x") is None

    run(work)


def test_lease_ids_are_not_used_again(run):
    """A new lease never has the id of an ended one, so an old holder cannot keep it alive by mistake."""

    async def work(store):
        first = await store.grant(60)
        await store.revoke(first)
        assert first != await store.grant(60)
        with pytest.raises(ValueError):
            await store.grant(0)

    run(work)


def test_contended_increments_lose_none(run):
    """Increments by compare-and-swap from several tasks add up."""

    async def increment(store, times):
        for _ in range(times):
            while True:
                held = await store.get("/n")
                value = int(held.value) + 1 if held else 1
                if (
                    await store.txn((Compare("/n", held.mod_revision if held else 0),), (Put("/n", b"%d" % value),))
                ).succeeded:
                    break
                await asyncio.sleep(0)

    async def work(store):
        await asyncio.gather(*(increment(store, 25) for _ in range(8)))
        assert (await store.get("/n")).value == b"200"

    run(work)


def test_a_closed_store_is_transient(run):
    """After close, operations and waiting watches raise Transient."""

    async def work(store):
        await put(store, "/a", b"1")
        async with aclosing(store.watch("/", 0)) as changes:
            step = asyncio.ensure_future(anext(changes))
            await asyncio.sleep(0.02)
            await store.close()
            with pytest.raises(Transient):
                await step
        with pytest.raises(Transient):
            await store.get("/a")

    run(work)
