"""What one attempt of an IPAM operation has read, and the comparisons that its transaction makes of it.

Each key is read once in an attempt, so that the decision and the comparison are about the same revision.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import msgspec

from bgpd.adapters.store import keys
from bgpd.adapters.store.base import TXN_OPS_MAX, Compare, Comparison, KeyValue, Page, Scan, Store, Unwritten
from bgpd.adapters.store.keys import Malformed
from bgpd.adapters.store.records import (
    IpamConfig,
    affinity_from,
    block_from,
    datastore_ready,
    handle_from,
    ipam_config_from,
    node_from,
    pool_from,
    reservation_from,
)
from bgpd.core.ipam.block import BlockRecord, HandleRecord, Refused, rested
from bgpd.core.ipam.reserve import Reserved
from bgpd.model.pool import Affinity, Pool
from bgpd.model.prefix import Family, Prefix

LOCKED = Refused("IPAM is locked: ClusterInformation default has datastoreReady false (a migration is under way)")


class Held(msgspec.Struct, frozen=True):
    """An affinity of the node, and where it is stored."""

    affinity: Affinity
    item: KeyValue


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """The cluster's settings, and what the node holds."""

    config: IpamConfig
    locked: bool
    pools: tuple[Pool, ...]
    unreadable_pools: tuple[str, ...]
    reserved: Reserved
    node_labels: dict[str, str]
    held: tuple[Held, ...]
    """Affinities of the node of the family asked for, in order of keys."""
    unreadable: tuple[Prefix, ...]
    """Of those that cannot be read: they count against the limit, and their blocks are left alone."""
    compares: tuple[Comparison, ...]
    """That none of these settings changed since; not about affinities."""
    affinities: Comparison
    """That no affinity of the node was written since."""

    @property
    def held_count(self) -> int:
        return len(self.held) + len(self.unreadable)

    def pool(self, name: str) -> Pool | None:
        return next((pool for pool in self.pools if pool.name == name), None)

    def pool_of(self, cidr: Prefix) -> Pool | None:
        return next((pool for pool in self.pools if pool.cidr.covers(cidr)), None)


class Attempt:
    """Owns the keys that one attempt has read, and its moment."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.now_ns = time.time_ns()
        self.now = datetime.fromtimestamp(self.now_ns / 1_000_000_000, tz=UTC)
        self.cooldown_s = 0
        self._items: dict[str, KeyValue | None] = {}

    async def load(self, wanted: Iterable[str]) -> None:
        """Read the keys that were not read yet, as many at a time as a reading holds."""
        missing = [key for key in dict.fromkeys(wanted) if key not in self._items]
        for start in range(0, len(missing), TXN_OPS_MAX):
            part = missing[start : start + TXN_OPS_MAX]
            for key, page in zip(part, (await self.store.read(part)).pages, strict=True):
                self._items[key] = page.items[0] if page.items else None

    def note(self, items: Iterable[KeyValue]) -> None:
        """Take note of what a range held."""
        self._items.update((item.key, item) for item in items)

    def item(self, key: str) -> KeyValue | None:
        """Return what was read of *key*, which must have been loaded."""
        return self._items[key]

    def affinity(self, key: str) -> KeyValue | None:
        """Return what the context read of an affinity of the node: of all of them, so what it did not find is not there."""
        return self._items.setdefault(key, None)

    def unchanged(self, key: str) -> Compare:
        """Return the comparison that *key* is still as it was read."""
        item = self._items[key]
        return Compare(key, item.mod_revision if item else 0)

    def block(self, cidr: Prefix) -> BlockRecord | None:
        """Return a loaded block, without the addresses whose rest is over; raises Malformed."""
        key = keys.block_key(cidr)
        item = self._items[key]
        return None if item is None else rested(block_from(key, cidr, item.value), self.cooldown_s, self.now)

    def readable_block(self, cidr: Prefix) -> BlockRecord | None:
        """Return a loaded block as :meth:`block` does; None also for a record that cannot be read: the watcher tells people of it."""
        try:
            return self.block(cidr)
        except Malformed:
            return None

    def handle(self, handle_id: str) -> HandleRecord:
        """Return a loaded handle, or a new one; raises Malformed."""
        key = keys.handle_key(handle_id)
        item = self._items[key]
        return handle_from(key, handle_id, item.value) if item else HandleRecord(handle_id=handle_id)

    async def context(self, node: str, family: Family, *also: str) -> Context:
        """Read the settings, the node's affinities and the keys *also*, all as of one revision.

        Raises Malformed for settings that cannot be read: what they forbid is not known then.
        """
        singles = [keys.IPAM_CONFIG, keys.CLUSTER_INFORMATION, keys.node_key(node), *dict.fromkeys(also)]
        ranges = [keys.POOLS, keys.RESERVATIONS, keys.affinities_prefix(node, family)]
        reading = await self.store.read([*singles, *(Scan(prefix) for prefix in ranges)])
        for key, page in zip(singles, reading.pages, strict=False):
            self._items[key] = page.items[0] if page.items else None
        pages = reading.pages[len(singles) :]
        pools, reservations, affinities = [
            await self._whole(prefix, page, reading.revision) for prefix, page in zip(ranges, pages, strict=True)
        ]
        self.note(affinities)
        config = self.item(keys.IPAM_CONFIG)
        cluster = self.item(keys.CLUSTER_INFORMATION)
        me = self.item(keys.node_key(node))
        settings = ipam_config_from(config.value if config else None)
        self.cooldown_s = settings.cooldown_s
        readable, unreadable = _pools(pools)
        held, unreadable_affinities = _held(affinities, node)
        return Context(
            config=settings,
            locked=not datastore_ready(cluster.value if cluster else None),
            pools=readable,
            unreadable_pools=unreadable,
            reserved=Reserved(
                reservation_from(item.key, item.key.removeprefix(keys.RESERVATIONS), item.value)
                for item in reservations
            ),
            node_labels=_labels(me, node),
            held=held,
            unreadable=unreadable_affinities,
            compares=(
                *(self.unchanged(key) for key in singles[:3]),
                Unwritten(keys.POOLS, reading.revision),
                Unwritten(keys.RESERVATIONS, reading.revision),
            ),
            affinities=Unwritten(keys.affinities_prefix(node, family), reading.revision),
        )

    async def _whole(self, prefix: str, page: Page, revision: int) -> list[KeyValue]:
        """Read a range on to its end, as of the revision of its first page."""
        items = list(page.items)
        while page.more:
            page = await self.store.range(prefix, revision=revision, start=items[-1].key + "\0")
            items += page.items
        return items


def _pools(items: Sequence[KeyValue]) -> tuple[tuple[Pool, ...], tuple[str, ...]]:
    """Return the pools that can be read, in order of names, and what is wrong with the others."""
    readable: list[Pool] = []
    unreadable: list[str] = []
    for item in items:
        name = item.key.removeprefix(keys.POOLS)
        try:
            readable.append(pool_from(item.key, name, item.value))
        except Malformed as error:
            unreadable.append(f"pool {name} cannot be read: {error.defect}")
    return tuple(readable), tuple(unreadable)


def _labels(item: KeyValue | None, node: str) -> dict[str, str]:
    """Return the labels of the node's resource; none where there is no resource, or one that cannot be read: no selector holds then."""
    if item is None:
        return {}
    try:
        return dict(node_from(item.key, node, item.value).labels)
    except Malformed:
        return {}


def _held(items: Sequence[KeyValue], node: str) -> tuple[tuple[Held, ...], tuple[Prefix, ...]]:
    """Return the affinities that can be read, and the blocks of the others; a key without a block is nobody's."""
    found: list[Held] = []
    unreadable: list[Prefix] = []
    for item in items:
        try:
            about = keys.parse(item.key)
        except Malformed:
            continue
        if not isinstance(about, keys.AffinityKey):
            continue
        try:
            found.append(Held(affinity_from(item.key, node, about.cidr, item.value), item))
        except Malformed:
            unreadable.append(about.cidr)
    return tuple(found), tuple(unreadable)
