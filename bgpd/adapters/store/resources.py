"""Resources in the store: listed, read, and changed by documents, for those who manage them (calico-formats.md, "Keys in etcd").

Theory of operation. A change is a list of wishes. ``prepare`` reads what they touch and what they are judged against,
names all that is wrong, and makes one transaction of the rest: it compares the revision of every key that is written or
that a judgement rests on, so that what was read still holds when it is committed. ``commit`` makes it or raises
Conflict; nothing is tried again, since a person decided on what was read.

Laws: ``metadata.resourceVersion`` is the key's mod_revision and is never stored; a document that carries one is taken
only while it is still true; a wish that changes nothing writes nothing; what cannot be read is never overwritten, only
deleted. IPAMConfiguration ``default`` is a view of ``/calico/ipam/v2/config``.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

import msgspec

from bgpd.adapters.store import keys
from bgpd.adapters.store.base import TXN_OPS_MAX, Compare, Delete, KeyValue, Put, Store, Transient, Write, read_all
from bgpd.adapters.store.keys import Malformed
from bgpd.adapters.store.records import block_from, block_view
from bgpd.core.resource import kinds
from bgpd.core.resource.bgp import BGPFILTER, BGPPEER
from bgpd.core.resource.check import API_VERSION, Defect, Document, Resource, needed, together
from bgpd.core.resource.kind import Kind
from bgpd.core.resource.merge import created, replaced
from bgpd.core.resource.pools import IPPOOL, ipam_spec, ipam_stored
from bgpd.model.pool import Block
from bgpd.model.prefix import Prefix

READ_BACK_MAX: Final = 3
"""Readings after a transaction of unknown outcome: a member that is slow to commit has done so by then."""
READ_BACK_PAUSE_S: Final = 0.5
"""Pause between them: an election of etcd's takes about a second."""
VIEW_NAME: Final = "default"
"""Name of the one resource of a kind that is a view."""


class Conflict(Exception):  # noqa: N818 - what it is
    """The store does not hold what the change rests on: read anew and decide again."""


class Invalid(Exception):  # noqa: N818
    """The documents break rules; all of them are named."""

    def __init__(self, defects: Sequence[Defect]) -> None:
        super().__init__("\n".join(str(defect) for defect in defects))
        self.defects = tuple(defects)


class Verb(StrEnum):
    APPLY = "apply"
    """Create, or replace what is there."""
    CREATE = "create"
    REPLACE = "replace"
    IMPORT = "import"
    """Apply, with uid and creationTimestamp of the document, whatever its resourceVersion."""


class Stored(msgspec.Struct, frozen=True):
    """A resource as it is stored."""

    kind: Kind
    name: str
    resource: Resource
    """Without resourceVersion."""
    revision: int

    def shown(self) -> Resource:
        """Return the resource as people get it, with its resourceVersion."""
        metadata = {**self.resource["metadata"], "resourceVersion": str(self.revision)}
        return {**self.resource, "metadata": metadata}


class Listing(msgspec.Struct, frozen=True):
    items: tuple[Stored, ...]
    unreadable: tuple[Malformed, ...]


class Removal(msgspec.Struct, frozen=True):
    """The wish that a resource be gone; *revision*: only while that is its revision."""

    kind: Kind
    name: str
    revision: int | None = None


class Outcome(msgspec.Struct, frozen=True):
    """What becomes of one wish."""

    kind: Kind
    name: str
    action: str
    """created, replaced, unchanged or deleted."""
    before: Resource | None
    after: Resource | None


class Prepared(msgspec.Struct, frozen=True):
    """A change that may be committed."""

    outcomes: tuple[Outcome, ...]
    compares: tuple[Compare, ...]
    writes: tuple[Write, ...]

    @property
    def fits(self) -> bool:
        """Whether one transaction holds it."""
        return len(self.compares) <= TXN_OPS_MAX and len(self.writes) <= TXN_OPS_MAX


def key_of(kind: Kind, name: str) -> str:
    return keys.IPAM_CONFIG if kind.view else f"{keys.RESOURCES}{kind.plural}/{name}"


async def list_resources(store: Store, kind: Kind) -> Listing:
    """Read all resources of a kind, in order of their names; raises Transient, Compacted."""
    items: list[Stored] = []
    unreadable: list[Malformed] = []
    prefix = keys.IPAM_CONFIG if kind.view else f"{keys.RESOURCES}{kind.plural}/"
    async for item in read_all(store, prefix):
        if kind.view and item.key != prefix:
            continue
        try:
            items.append(_stored(kind, VIEW_NAME if kind.view else item.key.removeprefix(prefix), item))
        except Malformed as error:
            unreadable.append(error)
    return Listing(tuple(items), tuple(unreadable))


async def get_resource(store: Store, kind: Kind, name: str) -> Stored | None:
    """Read one resource; None where there is none. Raises Malformed, Transient."""
    if kind.view and name != VIEW_NAME:
        return None
    item = await store.get(key_of(kind, name))
    return None if item is None else _stored(kind, name, item)


async def foreign_keys(store: Store) -> int:
    """Count the resources of kinds that are not managed here (policies, endpoints, …)."""
    ours = tuple(f"{keys.RESOURCES}{kind.plural}/" for kind in kinds.KINDS)
    return sum([not item.key.startswith(ours) async for item in read_all(store, keys.RESOURCES)])


async def blocks(store: Store) -> tuple[Block, ...]:
    """Read all blocks; one whose value cannot be read counts as an empty one of nobody. Raises Transient, Compacted."""
    found: list[Block] = []
    async for item in read_all(store, keys.BLOCKS):
        try:
            about = keys.parse(item.key)
        except Malformed:
            continue
        if isinstance(about, keys.BlockKey):
            try:
                found.append(block_view(block_from(item.key, about.cidr, item.value)))
            except Malformed:
                found.append(Block(cidr=about.cidr, node=None))
    return tuple(found)


class _Draft:
    """Owns the parts of a change while it is worked out."""

    def __init__(self, store: Store, beside: dict[str, Stored]) -> None:
        self.store = store
        self.beside = beside
        """What is stored, by key."""
        self.outcomes: list[Outcome] = []
        self.compares: dict[str, int] = {}
        self.writes: list[Write] = []
        self.conflicts: list[str] = []


async def prepare(
    store: Store,
    verb: Verb,
    documents: Sequence[Document],
    removals: Sequence[Removal] = (),
    *,
    force: bool = False,
) -> Prepared:
    """Work out what *documents* and *removals* change; nothing is written. *force* lets a pool go that has blocks.

    Raises Invalid with every defect, Conflict where what is there is not what the wishes rest on (all such wishes are
    named), Malformed, Transient.
    """
    beside = await _beside(store, documents, removals)
    known = {(item.kind.kind, item.name): item.resource for item in beside.values()}
    gone = [(one.kind, one.name) for one in removals]
    defects = list(together(documents, known, gone))
    if defects:
        raise Invalid(defects)
    draft = _Draft(store, beside)
    for name, peer in needed(documents, known, gone):
        draft.conflicts.append(f"BGPFilter {name}: cannot be deleted, since BGPPeer {peer} names it")
    at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    for document in documents:
        _write(draft, verb, document, at)
    for removal in removals:
        await _remove(draft, removal, force=force)
    if draft.conflicts:
        raise Conflict("\n".join(draft.conflicts))
    if draft.writes:
        await _guard(draft, documents)
    compares = tuple(Compare(key, revision) for key, revision in draft.compares.items())
    return Prepared(tuple(draft.outcomes), compares, tuple(draft.writes))


async def commit(store: Store, prepared: Prepared) -> None:
    """Write a prepared change in one transaction; raises Conflict, Transient, and ValueError where it does not fit one.

    A transaction whose outcome is unknown is read back; Transient then says whether it is known to be absent.
    """
    if not prepared.writes:
        return
    try:
        made = (await store.txn(prepared.compares, prepared.writes)).succeeded
    except Transient as error:
        if not await _stands(store, prepared, error):
            raise Transient(f"{error.reason}; read back: the change does not stand in the store") from error
        return
    if not made:
        raise Conflict(
            "something that the change rests on has changed meanwhile: nothing was written; look and try again"
        )


async def _stands(store: Store, prepared: Prepared, unknown: Transient) -> bool:
    """Whether the store holds what a transaction of *unknown* outcome was to write; all of it or nothing does."""
    for attempt in range(READ_BACK_MAX):
        try:
            for write in prepared.writes:
                item = await store.get(write.key)
                if (item.value if item is not None else None) != (write.value if isinstance(write, Put) else None):
                    break
            else:
                return True
        except Transient:
            if attempt == READ_BACK_MAX - 1:
                raise Transient(f"{unknown.reason}; it is unknown whether the change was made") from unknown
        if attempt < READ_BACK_MAX - 1:
            await asyncio.sleep(READ_BACK_PAUSE_S)
    return False


# ------------------------------------------------------------------ parts of prepare


async def _beside(store: Store, documents: Sequence[Document], removals: Sequence[Removal]) -> dict[str, Stored]:
    """Read, by key, what is written and what the rules between resources need."""
    touched = {document.kind.kind for document in documents}
    whole: set[str] = set()
    if IPPOOL.kind in touched:
        whole.add(IPPOOL.kind)
    if BGPPEER.kind in touched:
        whole.add(BGPFILTER.kind)
    if any(one.kind is BGPFILTER for one in removals):
        whole.add(BGPPEER.kind)
    found: dict[str, Stored] = {}
    for kind in kinds.KINDS:
        if kind.kind in whole:
            for item in (await list_resources(store, kind)).items:
                found[key_of(kind, item.name)] = item
    for document in documents:
        key = key_of(document.kind, document.name)
        if key not in found:
            # Read alone, so that one that cannot be read is told rather than taken for absent.
            stored = await get_resource(store, document.kind, document.name)
            if stored is not None:
                found[key] = stored
    return found


def _unfit(verb: Verb, document: Document, stored: Stored | None) -> str:
    """Say why a document does not go with what is stored; empty where it does."""
    if verb is Verb.CREATE and stored is not None:
        return f"exists already (resourceVersion {stored.revision})"
    if verb is Verb.REPLACE and stored is None:
        return "does not exist"
    if verb is Verb.IMPORT or document.revision is None:
        return ""
    if stored is None:
        # A document that was shown by another store, or whose resource was deleted.
        return f"has resourceVersion {document.revision}, but does not exist; remove the resourceVersion to create it"
    if document.revision != stored.revision:
        return (
            f"has resourceVersion {document.revision}, but was changed meanwhile (now {stored.revision}): "
            "get it again, and make the change there"
        )
    return ""


def _outcome(verb: Verb, document: Document, stored: Stored | None, at: str) -> Outcome:
    kind, resource = document.kind, document.resource
    if stored is None:
        if verb is not Verb.IMPORT:
            metadata = {name: value for name, value in resource["metadata"].items() if name not in _OF_CREATION}
            resource = {**resource, "metadata": metadata}
        after = created(kind, resource, str(uuid.uuid4()), at)
        return Outcome(kind, document.name, "created", None, _normal(kind, after))
    after = _normal(kind, replaced(kind, resource, stored.resource))
    action = "unchanged" if after == stored.resource else "replaced"
    return Outcome(kind, document.name, action, stored.resource, after)


_OF_CREATION: Final = frozenset({"uid", "creationTimestamp"})


def _normal(kind: Kind, resource: Resource) -> Resource:
    """Return a resource as reading it back would."""
    return _view(ipam_stored(resource["spec"])) if kind.view else resource


def _write(draft: _Draft, verb: Verb, document: Document, at: str) -> None:
    key = key_of(document.kind, document.name)
    stored = draft.beside.get(key)
    if reason := _unfit(verb, document, stored):
        draft.conflicts.append(f"{document.title}: {reason}")
        return
    outcome = _outcome(verb, document, stored, at)
    draft.outcomes.append(outcome)
    if outcome.after is not None and outcome.action != "unchanged":
        draft.compares[key] = stored.revision if stored is not None else 0
        draft.writes.append(Put(key, _value(document.kind, outcome.after)))


async def _remove(draft: _Draft, removal: Removal, *, force: bool) -> None:
    """Add a removal to the change; a value that cannot be read may go as well."""
    kind, title = removal.kind, f"{removal.kind.kind} {removal.name}"
    key = key_of(kind, removal.name)
    item = await draft.store.get(key) if not kind.view or removal.name == VIEW_NAME else None
    if item is None:
        draft.conflicts.append(f"{title}: does not exist")
        return
    if removal.revision is not None and removal.revision != item.mod_revision:
        reason = f"has resourceVersion {removal.revision}, but was changed meanwhile (now {item.mod_revision})"
        draft.conflicts.append(f"{title}: {reason}")
        return
    try:
        before = _stored(kind, removal.name, item).resource
    except Malformed:
        before = None
    if kind is IPPOOL and before is not None and not force and (reason := await _in_use(draft.store, before)):
        draft.conflicts.append(f"{title}: {reason}")
        return
    draft.outcomes.append(Outcome(kind, removal.name, "deleted", before, None))
    draft.compares[key] = item.mod_revision
    draft.writes.append(Delete(key))


async def _in_use(store: Store, pool: Resource) -> str:
    """Say what still stands in a pool; its blocks would belong to no pool without it."""
    try:
        cidr = Prefix.parse(str((pool.get("spec") or {}).get("cidr")))
    except ValueError:
        return ""
    held = [block for block in await blocks(store) if cidr.covers(block.cidr)]
    used = sum(block.in_use for block in held)
    if not held:
        return ""
    return (
        f"still has {len(held)} blocks with {used} addresses in use: disable it, release them, then delete it; "
        "or use --force, and they belong to no pool"
    )


async def _guard(draft: _Draft, documents: Sequence[Document]) -> None:
    """Let the transaction fail where a judgement between resources no longer holds.

    A filter that a peer names must still be there. Two who create pools at once meet at one key, as the daemon's
    creation of a default pool does, since neither sees the other's pool.
    """
    for document in documents:
        if document.kind is BGPPEER:
            for name in document.spec.get("filters") or []:
                key = key_of(BGPFILTER, name)
                if key in draft.beside:
                    draft.compares.setdefault(key, draft.beside[key].revision)
    new = [one.name for one in draft.outcomes if one.kind is IPPOOL and one.action == "created"]
    if new:
        guard = await draft.store.get(keys.DEFAULT_POOL)
        draft.compares[keys.DEFAULT_POOL] = guard.mod_revision if guard is not None else 0
        draft.writes.append(Put(keys.DEFAULT_POOL, msgspec.json.encode({"name": new[-1]})))


# ------------------------------------------------------------------ values


def _stored(kind: Kind, name: str, item: KeyValue) -> Stored:
    """Read a stored value; raises Malformed for what is no resource of that kind and name."""
    try:
        value = msgspec.json.decode(item.value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(item.key, str(error)) from error
    if not isinstance(value, dict):
        raise Malformed(item.key, "the value is no object")
    if kind.view:
        return Stored(kind, name, _view(value), item.mod_revision)
    metadata = {} if value.get("metadata") is None else value["metadata"]
    if not isinstance(metadata, dict):
        raise Malformed(item.key, "metadata is no object")
    if value.get("spec") is not None and not isinstance(value["spec"], dict):
        raise Malformed(item.key, "spec is no object")
    if metadata.get("name", name) != name:
        raise Malformed(item.key, f"the value is about {metadata.get('name')}")
    head = {"kind": kind.kind, "apiVersion": API_VERSION, "metadata": {"name": name, **metadata}}
    return Stored(kind, name, {**value, **head}, item.mod_revision)


def _view(stored: dict[str, Any]) -> Resource:
    return {
        "kind": "IPAMConfiguration",
        "apiVersion": API_VERSION,
        "metadata": {"name": VIEW_NAME},
        "spec": ipam_spec(stored),
    }


def _value(kind: Kind, resource: Resource) -> bytes:
    return msgspec.json.encode(ipam_stored(resource["spec"]) if kind.view else resource)
