"""Calico's IPAM as a writer beside ours: the sequence of its reads and single-key compare-and-swap writes (calico.md 1.5).

Written from the description of the protocol, with JSON of its own: it shares no code with bgpd but the store. Each step
goes through *pause*, which a test uses to let others run, or to end the process there (by raising).
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from bgpd.adapters.store.base import Compare, Delete, KeyValue, Put, Store, read_all

RETRIES = 100
"""datastoreRetries"""
IPAM = "/calico/ipam/v2/"


class Conflict(Exception):  # noqa: N818 - Calico's own name
    """A compare-and-swap lost (UpdateConflict, AlreadyExists, DoesNotExist)."""


class BlockClaimConflict(Exception):  # noqa: N818 - Calico's own name
    """Another host has the block (errBlockClaimConflict)."""


class NoFreeBlocks(Exception):  # noqa: N818 - Calico's own name
    """No block is to be had (noFreeBlocksError)."""


async def _go_on(_: str) -> None:
    return


class Calico:
    """One host's IPAM client."""

    def __init__(
        self,
        store: Store,
        host: str,
        pool: str,
        block_size: int = 26,
        pause: Callable[[str], Awaitable[None]] = _go_on,
    ) -> None:
        self.store = store
        self.host = host
        self.pool = ipaddress.ip_network(pool)
        self.block_size = block_size
        self.pause = pause

    # ---------------------------------------------------------- single-key operations (etcdv3.go)

    async def get(self, key: str) -> KeyValue | None:
        await self.pause(f"get {key}")
        return await self.store.get(key)

    async def list(self, prefix: str) -> list[KeyValue]:
        await self.pause(f"list {prefix}")
        return [item async for item in read_all(self.store, prefix)]

    async def create(self, key: str, value: object) -> int:
        await self.pause(f"create {key}")
        return await self._write(key, 0, value)

    async def update(self, key: str, revision: int, value: object) -> int:
        await self.pause(f"update {key}")
        return await self._write(key, revision, value)

    async def delete(self, key: str, revision: int) -> None:
        await self.pause(f"delete {key}")
        if not (await self.store.txn((Compare(key, revision),), (Delete(key),))).succeeded:
            raise Conflict(key)

    async def _write(self, key: str, revision: int, value: object) -> int:
        put = Put(key, json.dumps(value, separators=(",", ":")).encode())
        result = await self.store.txn((Compare(key, revision),), (put,))
        if not result.succeeded:
            raise Conflict(key)
        return result.revision

    # ---------------------------------------------------------- keys

    def block_key(self, cidr: str) -> str:
        return f"{IPAM}assignment/ipv{self.pool.version}/block/{cidr.replace('/', '-')}"

    def affinity_key(self, cidr: str, host: str = "") -> str:
        return f"{IPAM}host/{host or self.host}/ipv{self.pool.version}/block/{cidr.replace('/', '-')}"

    # ---------------------------------------------------------- blocks

    async def claim(self) -> str:
        """Get a block: an own one with its affinity repaired, else a new one (steps 3 to 9)."""
        for item in await self.list(f"{IPAM}host/{self.host}/ipv{self.pool.version}/block/"):
            cidr = item.key.rpartition("/")[2].replace("-", "/")
            try:
                await self.block_from_affinity(cidr)
            except (Conflict, BlockClaimConflict):
                continue
            return cidr
        for _ in range(RETRIES):
            cidr = await self.find_usable_block()
            try:
                await self.pending_affinity(cidr)
                await self.claim_affine_block(cidr)
            except (Conflict, BlockClaimConflict):
                continue
            return cidr
        raise NoFreeBlocks(self.pool)

    async def block_from_affinity(self, cidr: str) -> dict[str, Any]:
        """Step 4: use the block of an affinity, or mend what an interrupted claim or release left."""
        affinity = await self.get(self.affinity_key(cidr))
        if affinity is None:
            raise Conflict(cidr)
        block = await self.get(self.block_key(cidr))
        if block is None:
            await self.update(affinity.key, affinity.mod_revision, _affinity("pending"))
            return await self.claim_affine_block(cidr)
        record: dict[str, Any] = json.loads(block.value)
        if record["affinity"] != f"host:{self.host}":
            await self.delete(affinity.key, affinity.mod_revision)
            raise BlockClaimConflict(cidr)
        if json.loads(affinity.value).get("state") not in ("confirmed", ""):
            revision = await self.update(affinity.key, affinity.mod_revision, _affinity("pending"))
            record["sequenceNumber"] += 1
            await self.update(block.key, block.mod_revision, record)
            await self.confirm(cidr, revision)
        return record

    async def find_usable_block(self) -> str:
        """Step 6: list all blocks, and take the first of the pool, from the host's place on, that has none."""
        stored = {item.key for item in await self.list(f"{IPAM}assignment/ipv{self.pool.version}/block/")}
        for cidr in self.random_blocks():
            if self.block_key(cidr) not in stored:
                return cidr
        raise NoFreeBlocks(self.pool)

    def random_blocks(self) -> Iterator[str]:
        """Iterate over the pool's blocks from a place that the host's name decides on, with wrap."""
        count = 1 << self.block_size - self.pool.prefixlen
        start = int.from_bytes(hashlib.sha256(self.host.encode()).digest()[:8], "big") % count
        size = 1 << self.pool.max_prefixlen - self.block_size
        for step in range(count):
            network = int(self.pool.network_address) + (start + step) % count * size
            yield f"{ipaddress.ip_address(network)}/{self.block_size}"

    async def pending_affinity(self, cidr: str) -> None:
        """Step 8."""
        try:
            await self.create(self.affinity_key(cidr), _affinity("pending"))
        except Conflict:
            affinity = await self.get(self.affinity_key(cidr))
            if affinity is None:
                raise
            if json.loads(affinity.value).get("state") != "confirmed":
                await self.update(affinity.key, affinity.mod_revision, _affinity("pending"))

    async def claim_affine_block(self, cidr: str) -> dict[str, Any]:
        """Step 9: create the block, then confirm; give the affinity up where another host was first."""
        affinity = await self.get(self.affinity_key(cidr))
        record = new_block(cidr, self.host)
        try:
            await self.create(self.block_key(cidr), record)
        except Conflict:
            block = await self.get(self.block_key(cidr))
            if block is None:
                raise
            record = json.loads(block.value)
            if record["affinity"] != f"host:{self.host}":
                if affinity is not None:
                    await self.delete(affinity.key, affinity.mod_revision)
                raise BlockClaimConflict(cidr) from None
        await self.confirm(cidr, affinity.mod_revision if affinity else 0)
        return record

    async def confirm(self, cidr: str, revision: int) -> None:
        """Confirm the affinity; that somebody else confirmed it meanwhile is fine."""
        try:
            await self.update(self.affinity_key(cidr), revision, _affinity("confirmed"))
        except Conflict:
            affinity = await self.get(self.affinity_key(cidr))
            if affinity is None or json.loads(affinity.value).get("state") != "confirmed":
                raise

    async def release_affinity(self, cidr: str, *, host: str = "", require_empty: bool = False) -> bool:
        """Give a block up (releaseBlockAffinity); also another host's, to reclaim it. False where it is not empty as required."""
        affinity = await self.get(self.affinity_key(cidr, host))
        if affinity is None:
            return True
        block = await self.get(self.block_key(cidr))
        record = json.loads(block.value) if block is not None else None
        if block is None or record["affinity"] != f"host:{host or self.host}":
            await self.delete(affinity.key, affinity.mod_revision)
            return True
        empty = len(record["unallocated"]) == len(record["allocations"])
        if require_empty and not empty:
            return False
        revision = await self.update(affinity.key, affinity.mod_revision, _affinity("pendingDeletion"))
        if empty:
            await self.delete(block.key, block.mod_revision)
        else:
            record |= {"affinity": None, "affinity_claim_time": None}
            record["sequenceNumber"] += 1
            await self.update(block.key, block.mod_revision, record)
        await self.delete(affinity.key, revision)
        return True

    # ---------------------------------------------------------- addresses

    async def assign(self, handle: str) -> str | None:
        """Take one address of an own block, claiming one where none has room (steps 4 to 10); None where nothing is left."""
        for _ in range(RETRIES):
            for item in await self.list(f"{IPAM}host/{self.host}/ipv{self.pool.version}/block/"):
                address = await self.assign_from(item.key.rpartition("/")[2].replace("-", "/"), handle)
                if address is not None:
                    return address
            try:
                cidr = await self.find_usable_block()
                await self.pending_affinity(cidr)
                await self.claim_affine_block(cidr)
            except (Conflict, BlockClaimConflict):
                continue
            except NoFreeBlocks:
                return None
        return None

    async def assign_from(self, cidr: str, handle: str) -> str | None:
        """Step 10: count in the handle first, then write the block; take the count back where that lost."""
        for _ in range(RETRIES):
            try:
                await self.block_from_affinity(cidr)
            except (Conflict, BlockClaimConflict):
                return None
            block = await self.get(self.block_key(cidr))
            if block is None:
                continue
            record: dict[str, Any] = json.loads(block.value)
            if record["affinity"] != f"host:{self.host}" or not record["unallocated"]:
                return None
            ordinal = record["unallocated"].pop(0)
            attribute = {"handle_id": handle, "secondary": {"node": self.host}}
            if attribute not in record["attributes"]:
                record["attributes"].append(attribute)
            record["allocations"][ordinal] = record["attributes"].index(attribute)
            record["sequenceNumberForAllocation"][str(ordinal)] = record["sequenceNumber"]
            record["sequenceNumber"] += 1
            await self.count(handle, cidr, 1)
            try:
                await self.update(block.key, block.mod_revision, record)
            except Conflict:
                await self.count(handle, cidr, -1)
                continue
            return str(ipaddress.ip_network(cidr)[ordinal])
        return None

    async def count(self, handle: str, cidr: str, step: int) -> None:
        """Count up or down in the handle; one that counts nothing is deleted."""
        key = f"{IPAM}handle/{handle}"
        for _ in range(RETRIES):
            item = await self.get(key)
            record: dict[str, Any] = json.loads(item.value) if item else {"block": {}, "deleted": False}
            record["block"][cidr] = record["block"].get(cidr, 0) + step
            if record["block"][cidr] <= 0:
                del record["block"][cidr]
            try:
                if item is None:
                    if record["block"]:
                        await self.create(key, record)
                elif record["block"]:
                    await self.update(key, item.mod_revision, record)
                else:
                    await self.delete(key, item.mod_revision)
            except Conflict:
                continue
            return

    async def release(self, address: str) -> bool:
        """Give an address back: the block first, then the handle; an empty block that is nobody's goes."""
        cidr = str(ipaddress.ip_network(f"{address}/{self.block_size}", strict=False))
        for _ in range(RETRIES):
            block = await self.get(self.block_key(cidr))
            if block is None:
                return False
            record: dict[str, Any] = json.loads(block.value)
            ordinal = int(ipaddress.ip_address(address)) - int(ipaddress.ip_network(cidr).network_address)
            slot = record["allocations"][ordinal]
            if slot is None:
                return False
            handle = record["attributes"][slot]["handle_id"]
            record["allocations"][ordinal] = None
            record["unallocated"].append(ordinal)
            record["sequenceNumberForAllocation"].pop(str(ordinal), None)
            record["sequenceNumber"] += 1
            _compact(record)
            gone = record["affinity"] is None and len(record["unallocated"]) == len(record["allocations"])
            try:
                if gone:
                    await self.delete(block.key, block.mod_revision)
                else:
                    await self.update(block.key, block.mod_revision, record)
            except Conflict:
                continue
            await self.count(handle, cidr, -1)
            return True
        return False


def new_block(cidr: str, host: str) -> dict[str, Any]:
    size = ipaddress.ip_network(cidr).num_addresses
    return {
        "cidr": cidr,
        "affinity": f"host:{host}",
        "affinity_claim_time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "allocations": [None] * size,
        "unallocated": list(range(size)),
        "attributes": [],
        "sequenceNumber": time.time_ns(),
        "sequenceNumberForAllocation": {},
        "deleted": False,
    }


def _affinity(state: str) -> dict[str, object]:
    return {"state": state, "deleted": False}


def _compact(record: dict[str, Any]) -> None:
    """Drop attributes that no slot refers to."""
    kept = sorted({slot for slot in record["allocations"] if slot is not None})
    record["allocations"] = [None if slot is None else kept.index(slot) for slot in record["allocations"]]
    record["attributes"] = [record["attributes"][slot] for slot in kept]
