"""A store in one SQLite file, for all processes of one machine (the embedded default).

Theory of operation. The file is in WAL mode: readers never wait, writers take turns. A transaction of ours is one
``BEGIN IMMEDIATE`` of some hundred microseconds, so its outcome is atomic also under kill -9. ``live`` holds the
present state, ``history`` every change from the compact revision on, together with the last older change of each key
that still lives, which is what a range at a past revision needs.

A watcher reads ``history`` beyond its position. It is woken by writes of this process, and notices those of others by
``PRAGMA data_version``, which costs microseconds and changes when another connection commits. Leases end by whoever
looks: each operation, and each watcher now and then. Their clock is CLOCK_BOOTTIME, one for all processes of the
machine; leases of an earlier boot have ended, as have all processes that held them.

SQLite calls run on the event loop, since each is short: the loop is held for at most BUSY_TIMEOUT_MS by another
writer's turn, after which the wait goes on without blocking. ``synchronous=NORMAL``: a power failure may lose the last
transactions, but never half of one.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from bgpd.adapters.store.base import (
    PAGE_KEYS,
    Broken,
    Change,
    Compacted,
    Compare,
    Comparison,
    KeyValue,
    LeaseNotFound,
    Page,
    Put,
    Reading,
    Scan,
    Transient,
    TxnResult,
    Write,
    check_parts,
    check_txn,
    prefix_end,
)

POLL_S = 0.05
"""How often a watcher asks whether another process wrote: below what a person notices, and 20 look-ups a second cost
nothing."""
LOOK_S = 0.25
"""How often a watcher looks for ended leases and for a replaced file: well below the shortest lease (1 s)."""
BUSY_TIMEOUT_MS = 10
"""Longest time that SQLite may hold the event loop while another process writes."""
BUSY_PAUSE_S = 0.002
"""Pause before the next attempt to get a turn at writing."""
BUSY_CEILING_S = 5.0
"""Longest wait for a turn at writing: thousands of turns of others; beyond it some process hangs within a
transaction."""
HISTORY_REVISIONS = 10_000
"""Revisions kept: minutes of a busy cluster, so that a watcher that was away for a short time need not read anew."""
TRIM_REVISIONS = 500
"""The history is trimmed when it is so much longer, to do it rarely and in short transactions."""
WATCH_REVISIONS = 500
"""Revisions that a watcher reads at once: some milliseconds of the loop."""
FORMAT = 1

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_BROKEN: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})
"""SQLITE_ERROR: a table is missing or has other columns."""

_SCHEMA: Final = """
CREATE TABLE meta (format INTEGER NOT NULL, revision INTEGER NOT NULL, compacted INTEGER NOT NULL);
CREATE TABLE live (key TEXT PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL, lease INTEGER NOT NULL)
    WITHOUT ROWID;
CREATE INDEX live_lease ON live (lease) WHERE lease != 0;
CREATE TABLE history (revision INTEGER NOT NULL, sub INTEGER NOT NULL, key TEXT NOT NULL, value BLOB,
    lease INTEGER NOT NULL, PRIMARY KEY (revision, sub)) WITHOUT ROWID;
CREATE INDEX history_key ON history (key, revision);
CREATE TABLE lease (id INTEGER PRIMARY KEY AUTOINCREMENT, ttl_s INTEGER NOT NULL, ends_s REAL NOT NULL,
    boot TEXT NOT NULL);
INSERT INTO meta VALUES (%d, 1, 0);
"""

T = TypeVar("T")


class _Window(msgspec.Struct, frozen=True):
    """Up to WATCH_REVISIONS of the history, as a watcher reads it."""

    revisions: list[tuple[int, list[Change]]]
    next: int
    """Where to read on."""
    present: int


class SqliteStore:
    """Owns a connection to the file, opened at first use and again after a failure, and the event that wakes watchers."""

    def __init__(self, path: Path, history_revisions: int = HISTORY_REVISIONS, *, create: bool = True) -> None:
        """Without *create* a file that does not exist is Transient: whoever only reads must not make one of a mistyped path."""
        self.path = path
        self._create = create
        self._keep = history_revisions
        self._connection: sqlite3.Connection | None = None
        self._inode: tuple[int, int] = (0, 0)
        self._opened = 0
        self._boot = _BOOT_ID.read_text().strip()
        self._changed = asyncio.Event()
        self._closed = False

    async def get(self, key: str) -> KeyValue | None:
        def read(db: sqlite3.Connection) -> KeyValue | None:
            row = db.execute("SELECT key, value, revision, lease FROM live WHERE key = ?", (key,)).fetchone()
            return KeyValue(*row) if row else None

        return await self._read(read)

    async def range(self, prefix: str, *, revision: int = 0, limit: int = PAGE_KEYS, start: str = "") -> Page:
        return await self._read(lambda db: _range(db, prefix, revision, limit, max(start, prefix)))

    async def read(self, parts: Sequence[str | Scan]) -> Reading:
        check_parts(parts)
        return await self._read(lambda db: Reading(tuple(_part(db, part) for part in parts), _revision(db)))

    async def txn(self, compares: Sequence[Comparison], writes: Sequence[Write]) -> TxnResult:
        check_txn(compares, writes)

        def commit(db: sqlite3.Connection) -> TxnResult:
            if not all(_holds(db, compare) for compare in compares):
                return TxnResult(False, _revision(db))
            return TxnResult(True, self._apply(db, writes))

        return await self._write(commit)

    async def watch(self, prefix: str, from_revision: int) -> AsyncIterator[tuple[int, list[Change]]]:
        position = from_revision
        while True:
            waiter = self._changed
            version = await self._attempt(self._version)
            window = await self._read(partial(_changes, prefix=prefix, position=position))
            for revision, changes in window.revisions:
                yield revision, changes
            position = window.next
            if position > window.present:
                await self._wait_for_change(waiter, version)

    async def _wait_for_change(self, waiter: asyncio.Event, version: tuple[int, int]) -> None:
        """Return when this process has set *waiter*, or another one has left *version* behind."""
        looked = time.monotonic()
        while not waiter.is_set() and await self._attempt(self._version) == version:
            await _wait(waiter, POLL_S)
            if time.monotonic() - looked >= LOOK_S:
                looked = time.monotonic()
                self._check_file()
                await self._end_leases()

    async def grant(self, ttl_s: int) -> int:
        if ttl_s < 1:
            raise ValueError(f"a lease lasts at least 1 s, not {ttl_s}")

        def insert(db: sqlite3.Connection) -> int:
            sql = "INSERT INTO lease (ttl_s, ends_s, boot) VALUES (?, ?, ?)"
            lease = db.execute(sql, (ttl_s, _now() + ttl_s, self._boot)).lastrowid
            assert lease is not None, "an insert has a row id"
            return lease

        return await self._write(insert)

    async def keepalive(self, lease: int) -> None:
        def renew(db: sqlite3.Connection) -> int:
            return db.execute("UPDATE lease SET ends_s = ? + ttl_s WHERE id = ?", (_now(), lease)).rowcount

        if not await self._write(renew):
            raise LeaseNotFound(lease)

    async def revoke(self, lease: int) -> None:
        if not await self._write(lambda db: self._end(db, lease)):
            raise LeaseNotFound(lease)

    async def close(self) -> None:
        self._closed = True
        self._disconnect()
        self._wake()

    # ------------------------------------------------------------------ attempts

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run *work* on one consistent state, after ended leases were ended."""
        if await self._attempt(self._has_ended):
            await self._end_leases()
        return await self._attempt(lambda db: _within(db, "BEGIN", work))

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run *work* in one transaction that nobody else writes in."""

        def looked(db: sqlite3.Connection) -> T:
            self._end_all(db)
            return work(db)

        result = await self._attempt(lambda db: _within(db, "BEGIN IMMEDIATE", looked))
        self._wake()
        return result

    async def _attempt(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run *work*, again while another process has its turn at writing; raises Transient or Broken for SQLite's errors."""
        give_up = time.monotonic() + BUSY_CEILING_S
        while True:
            try:
                return work(self._connect())
            except (sqlite3.ProgrammingError, sqlite3.IntegrityError):
                raise
            except sqlite3.DatabaseError as error:
                code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
                if code not in _BUSY:
                    self._disconnect()
                    kind = Broken if code in _BROKEN else Transient
                    raise kind(f"{self.path}: {error}") from error
                if time.monotonic() > give_up:
                    raise Transient(
                        f"{self.path}: another process has been writing for {BUSY_CEILING_S:g} s"
                    ) from error
            await asyncio.sleep(BUSY_PAUSE_S)

    def _connect(self) -> sqlite3.Connection:
        if self._closed:
            raise Transient("the store is closed")
        if self._connection is not None:
            return self._connection
        if not self._create and not self.path.exists():
            raise Transient(f"{self.path} does not exist; it is made when something is put into it")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Transient(f"{self.path.parent}: {error.strerror}") from error
        db = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_MS / 1000, isolation_level=None)
        try:
            _prepare(db, self.path)
            stat = self.path.stat()
        except OSError as error:
            db.close()
            raise Transient(f"{self.path}: {error.strerror}") from error
        except (sqlite3.Error, Broken):
            db.close()
            raise
        self._inode = (stat.st_dev, stat.st_ino)
        self._connection = db
        self._opened += 1
        return db

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _check_file(self) -> None:
        """Raise Transient if the file is no longer the one that we opened: its content would be a store of our own."""
        try:
            stat = self.path.stat()
            present = (stat.st_dev, stat.st_ino)
        except OSError:
            present = (0, 0)
        if self._connection is not None and present != self._inode:
            self._disconnect()
            raise Transient(f"{self.path} was removed or replaced")

    def _version(self, db: sqlite3.Connection) -> tuple[int, int]:
        """Return what differs after a commit of another connection; the pragma's number holds within one connection only."""
        return self._opened, int(db.execute("PRAGMA data_version").fetchone()[0])

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    # ------------------------------------------------------------------ within a transaction

    def _has_ended(self, db: sqlite3.Connection) -> bool:
        sql = "SELECT EXISTS (SELECT 1 FROM lease WHERE ends_s <= ? OR boot != ?)"
        return bool(db.execute(sql, (_now(), self._boot)).fetchone()[0])

    async def _end_leases(self) -> None:
        if await self._attempt(self._has_ended):
            await self._write(lambda _: None)

    def _end_all(self, db: sqlite3.Connection) -> None:
        sql = "SELECT id FROM lease WHERE ends_s <= ? OR boot != ? ORDER BY id"
        for (lease,) in db.execute(sql, (_now(), self._boot)).fetchall():
            self._end(db, lease)

    def _end(self, db: sqlite3.Connection, lease: int) -> int:
        rows = db.execute("SELECT key FROM live WHERE lease = ? AND lease != 0 ORDER BY key", (lease,)).fetchall()
        self._change(db, [(key, None, 0) for (key,) in rows])
        return db.execute("DELETE FROM lease WHERE id = ?", (lease,)).rowcount

    def _apply(self, db: sqlite3.Connection, writes: Sequence[Write]) -> int:
        changes: list[tuple[str, bytes | None, int]] = []
        for write in writes:
            if isinstance(write, Put):
                if write.lease and not db.execute("SELECT 1 FROM lease WHERE id = ?", (write.lease,)).fetchone():
                    raise LeaseNotFound(write.lease)
                changes.append((write.key, write.value, write.lease))
            elif db.execute("SELECT 1 FROM live WHERE key = ?", (write.key,)).fetchone():
                changes.append((write.key, None, 0))
        self._change(db, changes)
        return _revision(db)

    def _change(self, db: sqlite3.Connection, changes: Sequence[tuple[str, bytes | None, int]]) -> None:
        """Make *changes* (key, value or None, lease) as one revision; none take none."""
        if not changes:
            return
        revision = _revision(db) + 1
        db.execute("UPDATE meta SET revision = ?", (revision,))
        for sub, (key, value, lease) in enumerate(changes):
            db.execute("INSERT INTO history VALUES (?, ?, ?, ?, ?)", (revision, sub, key, value, lease))
            if value is None:
                db.execute("DELETE FROM live WHERE key = ?", (key,))
            else:
                db.execute("INSERT OR REPLACE INTO live VALUES (?, ?, ?, ?)", (key, value, revision, lease))
        compacted = _compacted(db)
        if revision - compacted > self._keep + TRIM_REVISIONS:
            _compact(db, compacted, revision - self._keep)


def _within(db: sqlite3.Connection, begin: str, work: Callable[[sqlite3.Connection], T]) -> T:
    db.execute(begin)
    try:
        result = work(db)
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    return result


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    """Set the connection up, and make the tables in a new file; raises Broken for a file of another format."""
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")

    def create(db: sqlite3.Connection) -> None:
        if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
            return
        for statement in (_SCHEMA % FORMAT).split(";"):
            db.execute(statement)

    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
        _within(db, "BEGIN IMMEDIATE", create)
    (found,) = db.execute("SELECT format FROM meta").fetchone()
    if found != FORMAT:
        raise Broken(f"{path}: store format {found} is not known; this version reads format {FORMAT}")


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _revision(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT revision FROM meta").fetchone()[0])


def _compacted(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT compacted FROM meta").fetchone()[0])


def _holds(db: sqlite3.Connection, compare: Comparison) -> bool:
    if isinstance(compare, Compare):
        row = db.execute("SELECT revision FROM live WHERE key = ?", (compare.key,)).fetchone()
        return bool((row[0] if row else 0) == compare.mod_revision)
    end = prefix_end(compare.prefix)
    bound = "" if end is None else "AND key < :end"
    sql = f"SELECT EXISTS (SELECT 1 FROM live WHERE key >= :start {bound} AND revision > :revision)"  # noqa: S608
    return not db.execute(sql, {"start": compare.prefix, "end": end, "revision": compare.revision}).fetchone()[0]


def _part(db: sqlite3.Connection, part: str | Scan) -> Page:
    """Read a part of a reading."""
    if isinstance(part, str):
        row = db.execute("SELECT key, value, revision, lease FROM live WHERE key = ?", (part,)).fetchone()
        return Page((KeyValue(*row),) if row else (), False, _revision(db))
    end = prefix_end(part.prefix)
    bound = "" if end is None else "AND key < :end"
    value = "x''" if part.keys_only else "value"
    sql = f"SELECT key, {value}, revision, lease FROM live WHERE key >= :start {bound} ORDER BY key LIMIT :limit"  # noqa: S608
    arguments = {"start": max(part.start, part.prefix), "end": end, "limit": part.limit + 1}
    rows = db.execute(sql, arguments).fetchall()
    return Page(tuple(KeyValue(*row) for row in rows[: part.limit]), len(rows) > part.limit, _revision(db))


def _range(db: sqlite3.Connection, prefix: str, revision: int, limit: int, start: str) -> Page:
    present = _revision(db)
    if revision > present:
        raise ValueError(f"revision {revision} has not been yet: the store is at {present}")
    if revision and revision < _compacted(db):
        raise Compacted(_compacted(db))
    end = prefix_end(prefix)
    bound = "" if end is None else "AND key < :end"
    if revision in {0, present}:
        sql = f"SELECT key, value, revision, lease FROM live WHERE key >= :start {bound} ORDER BY key LIMIT :limit"  # noqa: S608
    else:
        # The bare columns of a query with max() come from the row of the maximum (SQLite, "bare columns in an aggregate query").
        sql = (  # the interpolated part is constant
            "SELECT key, value, revision, lease FROM ("  # noqa: S608
            f"SELECT key, value, max(revision) AS revision, lease FROM history WHERE key >= :start {bound} "
            "AND revision <= :revision GROUP BY key) WHERE value IS NOT NULL ORDER BY key LIMIT :limit"
        )
    rows = db.execute(sql, {"start": start, "end": end, "revision": revision, "limit": limit + 1}).fetchall()
    return Page(tuple(KeyValue(*row) for row in rows[:limit]), len(rows) > limit, present)


def _changes(db: sqlite3.Connection, prefix: str, position: int) -> _Window:
    """Return the changes below *prefix* from revision *position* on; raises Compacted."""
    present = _revision(db)
    if position == 0:
        return _Window([], present + 1, present)
    compacted = _compacted(db)
    if position < compacted:
        raise Compacted(compacted)
    last = min(present, position + WATCH_REVISIONS - 1)
    end = prefix_end(prefix)
    bound = "" if end is None else "AND key < :end"
    sql = (
        f"SELECT revision, key, value FROM history WHERE revision BETWEEN :first AND :last AND key >= :prefix {bound} "  # noqa: S608
        "ORDER BY revision, sub"
    )
    grouped: dict[int, list[Change]] = {}
    for revision, key, value in db.execute(sql, {"first": position, "last": last, "prefix": prefix, "end": end}):
        grouped.setdefault(revision, []).append(Change(key, value, revision))
    return _Window(list(grouped.items()), max(position, last + 1), present)


def _compact(db: sqlite3.Connection, old: int, new: int) -> None:
    """Forget what is older than revision *new*: changes that a later one up to *new* replaced, and deletions before *new*."""
    db.execute(
        "DELETE FROM history WHERE (revision, sub) IN (SELECT o.revision, o.sub FROM history n JOIN history o "
        "ON o.key = n.key AND o.revision < n.revision WHERE n.revision > ? AND n.revision <= ?)",
        (old, new),
    )
    db.execute("DELETE FROM history WHERE value IS NULL AND revision >= ? AND revision < ?", (old, new))
    db.execute("UPDATE meta SET compacted = ?", (new,))


async def _wait(waiter: asyncio.Event, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await waiter.wait()
    except TimeoutError:
        return
