"""What only the SQLite store has to prove: several processes, kill -9, a file that is lost or wrong."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path

import pytest

from bgpd.adapters.store import sqlite
from bgpd.adapters.store.base import Broken, Change, Delete, Put, Transient
from bgpd.adapters.store.etcd import EtcdStore
from bgpd.adapters.store.memory import MemoryStore
from bgpd.adapters.store.open import open_store
from bgpd.adapters.store.sqlite import SqliteStore

pytestmark = pytest.mark.adapter

INCREMENT = """
import asyncio, sys
from pathlib import Path
from bgpd.adapters.store.base import Compare, Put
from bgpd.adapters.store.sqlite import SqliteStore

async def main(path, times):
    store = SqliteStore(Path(path))
    for _ in range(times):
        while True:
            held = await store.get("/n")
            value = int(held.value) + 1 if held else 1
            compare = Compare("/n", held.mod_revision if held else 0)
            if (await store.txn((compare,), (Put("/n", b"%d" % value), Put(f"/seen/{value}", b"")))).succeeded:
                break
    print(flush=True)
    await store.close()

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def increments(path: Path, times: int) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", INCREMENT, str(path), str(times)], stdout=subprocess.DEVNULL)


def test_a_killed_writer_leaves_all_or_nothing(tmp_path):
    """Writers killed at any moment leave no half transaction and no lock behind."""
    path = tmp_path / "store.db"

    async def work():
        store = SqliteStore(path)
        for _ in range(5):
            before = await store.get("/n")
            child = increments(path, 100_000)
            async with asyncio.timeout(30):
                while (held := await store.get("/n")) is None or held == before:
                    await asyncio.sleep(0.01)
            child.send_signal(signal.SIGKILL)
            child.wait()
            value = int((await store.get("/n")).value)
            assert await store.get(f"/seen/{value}") is not None
            assert await store.get(f"/seen/{value + 1}") is None
            assert (await store.txn((), (Put("/after", b""),))).succeeded
        await store.close()

    asyncio.run(work())


def test_a_change_of_another_connection_is_seen_within_the_interval(tmp_path):
    """A watcher sees a write of another connection within a few polling intervals, without a write of its own."""

    async def work():
        store, other = SqliteStore(tmp_path / "store.db"), SqliteStore(tmp_path / "store.db")
        start = (await store.txn((), (Put("/a", b"0"),))).revision
        async with aclosing(store.watch("/a", start + 1)) as changes:
            step = asyncio.ensure_future(anext(changes))
            await asyncio.sleep(3 * sqlite.POLL_S)
            begun = asyncio.get_running_loop().time()
            await other.txn((), (Put("/a", b"1"),))
            assert await step == (start + 1, [Change("/a", b"1", start + 1)])
            assert asyncio.get_running_loop().time() - begun < 20 * sqlite.POLL_S
        await store.close()
        await other.close()

    asyncio.run(work())


def test_a_writer_that_hangs_is_transient_and_holds_the_loop_shortly(tmp_path, monkeypatch):
    """While another connection hangs in a transaction, reads go on, the loop goes on, and a write ends in Transient."""
    monkeypatch.setattr(sqlite, "BUSY_CEILING_S", 0.3)

    async def work():
        store = SqliteStore(tmp_path / "store.db")
        await store.txn((), (Put("/a", b"0"),))
        blocker = sqlite.sqlite3.connect(tmp_path / "store.db", isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        gaps, running = [], True

        async def beat():
            loop = asyncio.get_running_loop()
            while running:
                begun = loop.time()
                await asyncio.sleep(0.001)
                gaps.append(loop.time() - begun)

        task = asyncio.create_task(beat())
        assert (await store.get("/a")).value == b"0"
        with pytest.raises(Transient, match="another process has been writing"):
            await store.txn((), (Put("/a", b"1"),))
        running = False
        await task
        blocker.execute("ROLLBACK")
        blocker.close()
        assert len(gaps) > 5
        assert (await store.txn((), (Put("/a", b"1"),))).succeeded
        await store.close()

    asyncio.run(work())


def test_a_place_that_cannot_be_written_is_transient(tmp_path):
    """A path below a file cannot be opened: Transient with the path, and the store works once it can."""
    (tmp_path / "file").write_text("")

    async def work():
        store = SqliteStore(tmp_path / "file" / "store.db")
        with pytest.raises(Transient, match="file"):
            await store.get("/a")
        (tmp_path / "file").unlink()
        assert await store.get("/a") is None
        await store.close()

    asyncio.run(work())


def test_a_file_of_another_kind_is_broken(tmp_path):
    """A file that is no database, or one of another format, is Broken: waiting does not mend it."""
    (tmp_path / "text").write_text("this is no database, however long one looks at it " * 100)

    async def work():
        store = SqliteStore(tmp_path / "text")
        with pytest.raises(Broken, match="not a database"):
            await store.get("/a")
        await store.close()
        newer = sqlite.sqlite3.connect(tmp_path / "newer.db", isolation_level=None)
        newer.execute("CREATE TABLE meta (format INTEGER)")
        newer.execute("INSERT INTO meta VALUES (99)")
        newer.close()
        store = SqliteStore(tmp_path / "newer.db")
        with pytest.raises(Broken, match="store format 99 is not known"):
            await store.get("/a")
        await store.close()

    asyncio.run(work())


def test_a_replaced_file_ends_the_watches(tmp_path):
    """A watch on a file that was removed raises Transient, and the next operation opens what is there now."""
    path = tmp_path / "store.db"

    async def work():
        store = SqliteStore(path)
        start = (await store.txn((), (Put("/a", b"0"),))).revision
        async with aclosing(store.watch("/", start + 1)) as changes:
            step = asyncio.ensure_future(anext(changes))
            await asyncio.sleep(0.1)
            for file in tmp_path.iterdir():
                file.unlink()
            async with asyncio.timeout(5):
                with pytest.raises(Transient, match="was removed or replaced"):
                    await step
        assert await store.get("/a") is None
        await store.close()

    asyncio.run(work())


def test_leases_of_an_earlier_boot_have_ended(tmp_path):
    """A key under a lease of an earlier boot is gone: the process that held it is, too."""

    async def work():
        store = SqliteStore(tmp_path / "store.db")
        await store.txn((), (Put("/l", b"", await store.grant(3600)),))
        later = SqliteStore(tmp_path / "store.db")
        later._boot = "the next boot"
        assert await later.get("/l") is None
        assert await store.get("/l") is None
        await store.close()
        await later.close()

    asyncio.run(work())


def test_the_history_holds_a_bounded_number_of_rows(tmp_path):
    """However often keys are written and deleted, the file keeps the last revisions alone, and no old deletion."""

    async def work():
        store = SqliteStore(tmp_path / "store.db", history_revisions=20)
        for index in range(2 * sqlite.TRIM_REVISIONS):
            await store.txn((), (Put(f"/{index}", b"x" * 100),))
            await store.txn((), (Delete(f"/{index}"),))
        db = store._connect()
        (rows,) = db.execute("SELECT count(*) FROM history").fetchone()
        (old,) = db.execute("SELECT count(*) FROM history, meta WHERE history.revision < compacted").fetchone()
        assert rows <= 20 + sqlite.TRIM_REVISIONS
        assert old == 0
        await store.close()

    asyncio.run(work())


def test_a_watch_reads_through_a_long_silence(tmp_path):
    """A watcher that begins far behind gets to a change of its prefix without anybody writing any more."""

    async def work():
        store = SqliteStore(tmp_path / "store.db")
        start = (await store.txn((), (Put("/x", b""),))).revision
        for _ in range(2 * sqlite.WATCH_REVISIONS):
            await store.txn((), (Put("/x", b""),))
        last = (await store.txn((), (Put("/w", b"1"),))).revision
        async with asyncio.timeout(10), aclosing(store.watch("/w", start)) as changes:
            assert await anext(changes) == (last, [Change("/w", b"1", last)])
        await store.close()

    asyncio.run(work())


def test_a_url_names_a_store():
    """sqlite:///PATH, memory:// and etcd are stores; anything else is a ValueError that says what to write."""
    assert isinstance(open_store("sqlite:///tmp/x"), SqliteStore)
    assert isinstance(open_store("memory://"), MemoryStore)
    assert isinstance(open_store("etcds://x:1,y:2"), EtcdStore)
    for url in ("sqlite://x", "sqlite:///", "sqlite:///x/", "etcdx://x", "memory://x", "/var/x", ""):
        with pytest.raises(ValueError, match="write sqlite:///absolute/path"):
            open_store(url)


JOIN = """
import asyncio, sys
from pathlib import Path
from bgpd.adapters.store.sqlite import SqliteStore
from bgpd.adapters.store.ipam.assign import assign_address
from bgpd.adapters.store.ipam.claim import claim_block
from bgpd.adapters.store.transact import ensure_pool
from bgpd.model.pool import Pool
from bgpd.model.prefix import Prefix

async def main(path, node):
    store, pool = SqliteStore(Path(path)), Pool(name="p", cidr=Prefix.parse("10.65.0.0/24"), block_size=28)
    await ensure_pool(store, pool)
    block = await claim_block(store, pool, node)
    found = await asyncio.gather(*(assign_address(store, node, f"{node}.{index}", {}) for index in range(20)))
    print(block, *found)
    await store.close()

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


def test_nodes_in_processes_of_their_own_share_a_pool(tmp_path):
    """Six processes on a new file at once make one pool, own different blocks, and hand out no address twice."""
    path = tmp_path / "store.db"
    children = [
        subprocess.Popen([sys.executable, "-c", JOIN, str(path), f"node-{index}"], stdout=subprocess.PIPE, text=True)
        for index in range(6)
    ]
    outputs = [child.communicate(timeout=60)[0].split() for child in children]

    assert [child.returncode for child in children] == [0] * 6
    blocks = [output[0] for output in outputs]
    addresses = [address for output in outputs for address in output[1:]]
    assert len(set(blocks)) == 6
    assert len(set(addresses)) == len(addresses) == 120
    assert all(address.startswith("10.65.0.") for address in addresses)
