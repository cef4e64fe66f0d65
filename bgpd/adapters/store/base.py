"""The store as its users see it: a revisioned key-value store with etcd v3's semantics.

Laws, the same behind every implementation (tests/adapters/store/test_contract.py):

* One counter, the revision, grows by one with each transaction that changes a key; a key's ``mod_revision`` is the
  revision of its last change. A transaction that changes nothing (its comparisons failed, or it only deletes absent
  keys) takes no revision.
* A transaction compares the ``mod_revision`` of keys (0: the key is absent), or that nothing was written in a range since a
  revision, and then makes all of its writes or none of them.
* One reading of several keys and ranges is of one revision.
* A key may be written once in a transaction, and a transaction holds at most TXN_OPS_MAX comparisons and as many writes
  (etcd's limits).
* History is kept within a bound. What is older is compacted: reading or watching from before the compact revision
  raises Compacted.
* A lease ends when it was not kept alive for its time to live; its keys are then deleted in one revision, which
  watchers see.

Errors are made by what the caller does: Transient (try again later), Compacted (read anew), LeaseNotFound (grant anew),
Broken (give up).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import msgspec

TXN_OPS_MAX = 128
"""etcd's default ``max-txn-ops``: comparisons, and writes, of one transaction."""
PAGE_KEYS = 500
"""Keys of one page of a range: some hundred kilobytes of blocks, read in a few milliseconds."""


class StoreError(Exception):
    """The store did not do what was asked."""


class Transient(StoreError):  # noqa: N818 - named by what the caller does about it
    """The store cannot be reached or is busy: retry with back-off. What became of a transaction is unknown: read back."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Compacted(StoreError):  # noqa: N818
    """The revision asked for is older than the history kept: read the present state, and watch from there."""

    def __init__(self, compact_revision: int) -> None:
        super().__init__(f"history before revision {compact_revision} is compacted")
        self.compact_revision = compact_revision


class LeaseNotFound(StoreError):  # noqa: N818
    """The lease has ended or never was: grant a new one."""

    def __init__(self, lease: int) -> None:
        super().__init__(f"lease {lease} does not exist")
        self.lease = lease


class Broken(StoreError):  # noqa: N818
    """The store's data cannot be used, and waiting will not mend it: end the process, saying so."""


class KeyValue(msgspec.Struct, frozen=True):
    key: str
    value: bytes
    mod_revision: int
    lease: int = 0
    """Lease that the key lives by; 0 for none."""


class Page(msgspec.Struct, frozen=True):
    items: tuple[KeyValue, ...]
    """In order of keys."""
    more: bool
    """Keys follow: ask again with *start* after the last key, at the revision of the first page."""
    revision: int
    """The store's revision when the page was read (also for a page of an older revision)."""


class Compare(msgspec.Struct, frozen=True):
    key: str
    mod_revision: int
    """0: the key is to be absent."""


class Put(msgspec.Struct, frozen=True):
    key: str
    value: bytes
    lease: int = 0
    """0 detaches the key from the lease that it had."""


class Delete(msgspec.Struct, frozen=True):
    key: str


Write = Put | Delete


class Unwritten(msgspec.Struct, frozen=True):
    """A comparison: no key that begins with *prefix* was written after *revision*. A key that was deleted since is not noticed."""

    prefix: str
    revision: int


Comparison = Compare | Unwritten


class Scan(msgspec.Struct, frozen=True):
    """A part of a reading: up to *limit* keys that begin with *prefix*, from *start* on."""

    prefix: str
    limit: int = PAGE_KEYS
    start: str = ""
    keys_only: bool = False
    """Values are not needed: they come as empty."""


class Reading(msgspec.Struct, frozen=True):
    pages: tuple[Page, ...]
    """One for each part asked for, in that order; that of a key has one item, or none where it is absent."""
    revision: int


class TxnResult(msgspec.Struct, frozen=True):
    succeeded: bool
    revision: int
    """The store's revision after the transaction; where it succeeded and changed a key, that key's mod_revision."""


class Change(msgspec.Struct, frozen=True):
    key: str
    value: bytes | None
    """None: the key was deleted."""
    mod_revision: int


class Store(Protocol):
    """A store. Every method may raise Transient or Broken."""

    async def get(self, key: str) -> KeyValue | None:
        """Read one key; None where it is absent."""
        ...

    async def range(self, prefix: str, *, revision: int = 0, limit: int = PAGE_KEYS, start: str = "") -> Page:
        """Read up to *limit* keys that begin with *prefix*, from *start* on, as of *revision* (0: now).

        Raises Compacted for a revision no longer kept, ValueError for one that has not been yet.
        """
        ...

    async def read(self, parts: Sequence[str | Scan]) -> Reading:
        """Read several keys (a text) and ranges as of one revision; at most TXN_OPS_MAX, else ValueError."""
        ...

    async def txn(self, compares: Sequence[Comparison], writes: Sequence[Write]) -> TxnResult:
        """Make all *writes* if every comparison holds, else none.

        Raises ValueError for a key written twice or too many operations, LeaseNotFound for a Put under an unknown
        lease.
        """
        ...

    def watch(self, prefix: str, from_revision: int) -> AsyncIterator[tuple[int, list[Change]]]:
        """Iterate over the changes below *prefix* from *from_revision* on, a revision at a time, without end.

        0 begins after the present revision, as of the first step. Raises Compacted. Close the iterator to end the
        watch.
        """
        ...

    async def grant(self, ttl_s: int) -> int:
        """Make a lease of *ttl_s* seconds, at least 1; return its id."""
        ...

    async def keepalive(self, lease: int) -> None:
        """Let the lease begin its time anew; raises LeaseNotFound."""
        ...

    async def revoke(self, lease: int) -> None:
        """End the lease and delete its keys; raises LeaseNotFound."""
        ...

    async def close(self) -> None:
        """Let go of files and connections; watches end with Transient."""
        ...


async def read_all(store: Store, prefix: str, revision: int = 0) -> AsyncIterator[KeyValue]:
    """Iterate over all keys below *prefix* as of one revision, page by page; raises Compacted where writers outran the reader."""
    start = ""
    while True:
        page = await store.range(prefix, revision=revision, start=start)
        for item in page.items:
            yield item
        if not page.more:
            return
        revision = revision or page.revision
        start = page.items[-1].key + "\0"


def check_parts(parts: Sequence[str | Scan]) -> None:
    """Raise ValueError where etcd would refuse the reading as such."""
    if len(parts) > TXN_OPS_MAX:
        raise ValueError(f"too many parts of a reading: {len(parts)} (at most {TXN_OPS_MAX})")


def check_txn(compares: Sequence[Comparison], writes: Sequence[Write]) -> None:
    """Raise ValueError where etcd would refuse the request as such."""
    if len(compares) > TXN_OPS_MAX or len(writes) > TXN_OPS_MAX:
        raise ValueError(
            f"too many operations in a transaction: {len(compares)}, {len(writes)} (at most {TXN_OPS_MAX})"
        )
    seen: set[str] = set()
    for write in writes:
        if not write.key:
            raise ValueError("a key is not empty")
        if write.key in seen:
            raise ValueError(f"key {write.key} is written twice in a transaction")
        seen.add(write.key)


def prefix_end(prefix: str) -> str | None:
    """Return the first key after all keys that begin with *prefix*; None where no key can follow."""
    for index in range(len(prefix) - 1, -1, -1):
        point = ord(prefix[index])
        if point < 0x10FFFF:
            # Surrogates cannot be encoded as UTF-8; the next character after U+D7FF is U+E000.
            return prefix[:index] + chr(0xE000 if point == 0xD7FF else point + 1)
    return None
