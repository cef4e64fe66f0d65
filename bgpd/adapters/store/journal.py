"""The journal of changes of resources: who changed what and when, what was before, and taking it back.

Theory of operation. A change and its entry are one transaction, so that the journal has all changes that were made through it, and no
other. An entry holds each resource before and after. Taking a change back is a change, too, with an entry of its own: it restores what
is still as the change left it. What somebody else has changed since is never overwritten unasked; it is named instead.

A change that wants confirmation writes two more keys: its number, and a timer that lives by a lease. The store ends the lease, so
neither a lost connection, nor a killed command, nor clocks that differ matter. Whichever daemon sees the number without its timer
(daemon/confirm.py) takes the change back in a transaction that compares and deletes the number: of several exactly one succeeds.

Law: the lease is granted before the transaction; there is no instant at which the change stands and no timer runs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Final

import msgspec

from bgpd.adapters.store import keys
from bgpd.adapters.store.base import (
    TXN_OPS_MAX,
    Compare,
    Delete,
    KeyValue,
    LeaseNotFound,
    Put,
    Reading,
    Scan,
    Store,
    Write,
    read_all,
)
from bgpd.adapters.store.keys import Malformed
from bgpd.adapters.store.resources import (
    Conflict,
    Invalid,
    Outcome,
    Prepared,
    Removal,
    Verb,
    commit,
    get_resource,
    prepare,
)
from bgpd.core.resource import check, kinds
from bgpd.core.resource.check import Document, Resource
from bgpd.core.resource.kind import Kind

ENTRIES_MAX: Final = 100
"""Entries kept: some weeks of an operator's changes; the oldest go first."""
ENTRY_LIMIT_BYTES: Final = 600_000
"""etcd takes 1.5 MB in a transaction, which holds the resources a second time."""
OWN_WRITES: Final = 6
"""Of a transaction, for the journal: entry, number, timer, an entry that ends, the entry taken back, and one to spare."""
ATTEMPTS_MAX: Final = 10
"""Numbers tried for an entry, or readings before a change is taken back: so many others change resources at this very moment."""
CONFIRM_LIMIT_S: Final = 86_400


class Touched(msgspec.Struct, frozen=True):
    """One resource of a change."""

    kind: str
    name: str
    action: str
    """created, replaced or deleted."""
    before: Resource | None
    after: Resource | None

    @property
    def title(self) -> str:
        return f"{self.kind} {self.name}"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One change."""

    number: int
    at: float
    """Seconds since the epoch, by the clock of who made it."""
    who: str
    title: str
    """What was asked for, as a command."""
    touched: tuple[Touched, ...]
    state: str = ""
    """``pending``, ``confirmed``, ``rolled back``, or empty: it stands."""
    until: float | None = None
    """When the time to confirm is over, by that clock."""
    undoes: int | None = None
    """The change that this one takes back."""
    kept: tuple[str, ...] = ()
    """Resources that were not restored, each with the reason."""


class Author(msgspec.Struct, frozen=True):
    who: str
    title: str


def fits(prepared: Prepared) -> bool:
    """Whether one transaction holds the change and its entry."""
    return prepared.fits and len(prepared.writes) + OWN_WRITES <= TXN_OPS_MAX


async def record(store: Store, prepared: Prepared, author: Author, confirm_s: float | None = None) -> Entry | None:
    """Commit a change with its entry; None: it changes nothing. *confirm_s*: it is taken back unless confirmed within that time.

    Raises Conflict (also where another change waits for its confirmation), Transient, and ValueError where it is too large.
    """
    touched = tuple(map(_touched, (one for one in prepared.outcomes if one.action != "unchanged")))
    if not touched:
        return None
    now = time.time()
    entry = Entry(number=0, at=now, who=author.who, title=author.title, touched=touched)
    if confirm_s is None:
        return await _append(store, prepared, entry)
    if await store.get(keys.PENDING_CHANGE) is not None:
        raise Conflict(await _waiting(store))
    lease = await store.grant(math.ceil(confirm_s))
    entry = msgspec.structs.replace(entry, state="pending", until=now + confirm_s)
    try:
        return await _append(store, prepared, entry, lease=lease)
    except LeaseNotFound as error:
        raise Conflict("the time to confirm was over before the change was made: nothing was written") from error
    except Conflict:
        await _let_go(store, lease)
        raise


async def history(store: Store) -> list[Entry]:
    """Read all entries, the oldest first; one that cannot be read is left out. Raises Transient, Compacted."""
    found = []
    async for item in read_all(store, keys.CHANGES):
        try:
            found.append(_decode(item))
        except Malformed:
            continue
    return found


async def confirm(store: Store, number: int | None) -> Entry:
    """Let the change stand that waits for it (*number*: only if it is that one); raises Conflict where none does, or not any more."""
    reading = await store.read([keys.PENDING_CHANGE, keys.PENDING_TIMER])
    pending, timer = (page.items[0] if page.items else None for page in reading.pages)
    if pending is None:
        raise Conflict(await _nothing_waits(store))
    waiting = int(pending.value)
    if number is not None and number != waiting:
        raise Conflict(f"change {number} does not wait for confirmation; change {waiting} does")
    if timer is None:
        raise Conflict(f"the time to confirm change {waiting} is over: it is being rolled back")
    item = await _item(store, waiting)
    confirmed = msgspec.structs.replace(_decode(item), state="confirmed")
    held = (_same(pending), _same(timer), _same(item))
    writes = (Put(item.key, msgspec.json.encode(confirmed)), Delete(pending.key), Delete(timer.key))
    if not (await store.txn(held, writes)).succeeded:
        raise Conflict(
            f"the time to confirm change {waiting} is over, or somebody else ended the wait: see `bgpd history`"
        )
    return confirmed


async def undo(store: Store, number: int | None, author: Author, *, force: bool = False) -> Entry:
    """Take change *number* back, or the last one that stands. *force* overwrites what was changed since.

    Raises Conflict where there is none, and where somebody has changed a resource of it since; nothing is written then.
    """
    if number is None:
        standing = [
            one.number for one in await history(store) if one.undoes is None and not one.state.startswith("rolled")
        ]
        if not standing:
            raise Conflict("the journal has no change that stands")
        number = standing[-1]
    for _ in range(ATTEMPTS_MAX):
        item = await _item(store, number)
        if _decode(item).state.startswith("rolled"):
            raise Conflict(f"change {number} is rolled back already")
        wishes = await _wishes(store, _decode(item), force=force)
        if wishes.kept:
            raise Conflict("\n".join(wishes.kept))
        if not wishes.documents and not wishes.removals:
            raise Conflict(f"change {number} has nothing to take back: all its resources are as before it")
        pending = await store.get(keys.PENDING_CHANGE)
        waits = pending if pending is not None and int(pending.value) == number else None
        made = await _take_back(store, item, wishes, author, waits)
        if made is not None:
            return made
    raise Conflict(f"what change {number} rests on changes all the time: nothing was written; try again")


async def undo_unconfirmed(store: Store, author: Author) -> Entry | None:
    """Take back the change whose time to confirm is over; None: there is none (any more).

    What others have changed since stays, and so does what cannot be restored: the entry names it.
    """
    for _ in range(ATTEMPTS_MAX):
        reading = await store.read([keys.PENDING_CHANGE, keys.PENDING_TIMER])
        pending, timer = (page.items[0] if page.items else None for page in reading.pages)
        if pending is None or timer is not None:
            return None
        item = await _item(store, int(pending.value))
        entry = _decode(item)
        wishes = await _wishes(store, entry, force=False)
        try:
            made = await _take_back(store, item, wishes, author, pending)
        except (Conflict, Invalid) as error:
            reason = " ".join(str(error).splitlines())
            nothing = _Wishes([], [], [f"{one.title}: {reason}" for one in entry.touched], {})
            made = await _take_back(store, item, nothing, author, pending)
        if made is not None:
            return made
    return None


# ------------------------------------------------------------------ writing


async def _append(
    store: Store,
    prepared: Prepared,
    entry: Entry,
    *,
    lease: int = 0,
    beside: Sequence[Write] = (),
    held: Sequence[Compare] = (),
) -> Entry:
    """Commit a change with *entry* under the next number; raises Conflict where something else than the number is taken."""
    for _ in range(ATTEMPTS_MAX):
        reading = await store.read([Scan(keys.CHANGES, limit=2 * ENTRIES_MAX, keys_only=True), keys.PENDING_CHANGE])
        waiting = {_key(int(item.value)) for item in reading.pages[1].items}
        known = [item.key for item in reading.pages[0].items]
        number = int(known[-1].removeprefix(keys.CHANGES)) + 1 if known else 1
        numbered = msgspec.structs.replace(entry, number=number)
        octets = msgspec.json.encode(numbered)
        if len(octets) > ENTRY_LIMIT_BYTES:
            raise ValueError(
                f"the change is too large to be taken back ({len(octets)} bytes, of which the journal takes {ENTRY_LIMIT_BYTES}): split it"
            )
        writes: list[Write] = [*prepared.writes, *beside, Put(_key(number), octets)]
        compares = [*prepared.compares, *held, Compare(_key(number), 0)]
        if lease:
            writes += [Put(keys.PENDING_CHANGE, str(number).encode()), Put(keys.PENDING_TIMER, b"", lease)]
            compares.append(Compare(keys.PENDING_CHANGE, 0))
        taken = {write.key for write in writes} | waiting
        room = TXN_OPS_MAX - len(writes)
        writes += [Delete(key) for key in known[: max(0, len(known) + 1 - ENTRIES_MAX)][:room] if key not in taken]
        try:
            await commit(store, Prepared(prepared.outcomes, tuple(compares), tuple(writes)))
        except Conflict:
            if await store.get(_key(number)) is None:
                raise
        else:
            return numbered
    raise Conflict("others change resources all the time: nothing was written; try again")


class _Wishes(msgspec.Struct, frozen=True):
    """What taking a change back asks for, what it leaves, and what each resource was when that was decided."""

    documents: list[Document]
    removals: list[Removal]
    kept: list[str]
    seen: dict[tuple[str, str], Resource | None]


async def _wishes(store: Store, entry: Entry, *, force: bool) -> _Wishes:
    wishes = _Wishes([], [], [], {})
    for one in entry.touched:
        kind = kinds.named(one.kind)
        if kind is None:
            wishes.kept.append(f"{one.title}: this version of bgpd does not know the kind")
            continue
        try:
            stored = await get_resource(store, kind, one.name)
        except Malformed as error:
            wishes.kept.append(f"{one.title}: {error}")
            continue
        present = stored.resource if stored is not None else None
        wishes.seen[one.kind, one.name] = present
        if present == one.before:
            continue
        if present != one.after and not force:
            what = "deleted" if present is None else "changed" if one.after is not None else "created"
            wishes.kept.append(f"{one.title}: was {what} since by somebody else, and stays as it is")
        else:
            _restore(wishes, kind, one)
    return wishes


def _restore(wishes: _Wishes, kind: Kind, one: Touched) -> None:
    if one.before is None:
        wishes.removals.append(Removal(kind, one.name))
        return
    document, defects = check.read("", one.before)
    if document is None:
        wishes.kept.append(f"{one.title}: cannot be restored: {'; '.join(map(str, defects))}")
    else:
        wishes.documents.append(document)


async def _take_back(
    store: Store, item: KeyValue, wishes: _Wishes, author: Author, pending: KeyValue | None
) -> Entry | None:
    """Make what is wished for, mark the entry of *item*, and end the wait for its confirmation; None: something has changed, look anew."""
    undone = _decode(item)
    prepared = await prepare(store, Verb.IMPORT, wishes.documents, wishes.removals, force=True)
    if any(wishes.seen[one.kind.kind, one.name] != one.before for one in prepared.outcomes):
        return None
    entry = Entry(
        number=0,
        at=time.time(),
        who=author.who,
        title=author.title,
        touched=tuple(map(_touched, (one for one in prepared.outcomes if one.action != "unchanged"))),
        undoes=undone.number,
        kept=tuple(wishes.kept),
    )
    marked = msgspec.structs.replace(undone, state="rolled back")
    beside: list[Write] = [Put(item.key, msgspec.json.encode(marked))]
    held = [_same(item)]
    if pending is not None:
        beside += [Delete(keys.PENDING_CHANGE), Delete(keys.PENDING_TIMER)]
        held.append(_same(pending))
    try:
        return await _append(store, prepared, entry, beside=beside, held=held)
    except Conflict:
        return None


# ------------------------------------------------------------------ parts


def _touched(outcome: Outcome) -> Touched:
    return Touched(outcome.kind.kind, outcome.name, outcome.action, outcome.before, outcome.after)


def _key(number: int) -> str:
    return f"{keys.CHANGES}{number:010}"


def _same(item: KeyValue) -> Compare:
    return Compare(item.key, item.mod_revision)


def _decode(item: KeyValue) -> Entry:
    try:
        return msgspec.json.decode(item.value, type=Entry)
    except msgspec.DecodeError as error:
        raise Malformed(item.key, str(error)) from error


async def _item(store: Store, number: int) -> KeyValue:
    item = await store.get(_key(number))
    if item is None:
        raise Conflict(f"the journal has no change {number} (it keeps the last {ENTRIES_MAX}): see `bgpd history`")
    return item


async def _waiting(store: Store) -> str:
    pending = await store.get(keys.PENDING_CHANGE)
    name = pending.value.decode(errors="replace") if pending is not None else "another"
    return f"change {name} waits for its confirmation: end that first, with `bgpd confirm` or `bgpd rollback {name}`"


async def _nothing_waits(store: Store) -> str:
    entries = await history(store)
    last = next((one for one in reversed(entries) if one.until is not None), None)
    more = f"; change {last.number} was {last.state}" if last is not None else ""
    return f"no change waits for confirmation{more}"


async def _let_go(store: Store, lease: int) -> None:
    try:
        await store.revoke(lease)
    except LeaseNotFound:
        return


def unconfirmed(reading: Reading) -> bool:
    """Whether a reading of the number and the timer shows a change whose time is over."""
    pending, timer = reading.pages
    return bool(pending.items) and not timer.items
