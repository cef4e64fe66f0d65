"""What must hold of a store whatever was done to it, read without bgpd's own codec."""

from __future__ import annotations

import json
from typing import Any

from bgpd.adapters.store.base import Store, read_all

BLOCKS, HOSTS, HANDLES = "/calico/ipam/v2/assignment/", "/calico/ipam/v2/host/", "/calico/ipam/v2/handle/"


async def dump(store: Store, prefix: str = "/calico/ipam/v2/") -> dict[str, Any]:
    """Read all of IPAM as one revision's JSON, by key."""
    return {item.key: json.loads(item.value) async for item in read_all(store, prefix)}


def held(state: dict[str, Any]) -> dict[str, str]:
    """Return who holds what: address -> handle, over all blocks; raises AssertionError for an address in two blocks."""
    found: dict[str, str] = {}
    for block in (value for key, value in state.items() if key.startswith(BLOCKS)):
        for ordinal, slot in enumerate(block["allocations"]):
            if slot is not None and block["attributes"][slot].get("handle_id") is not None:
                address = f"{block['cidr']}#{ordinal}"
                assert address not in found, f"{address} is in two blocks"
                found[address] = block["attributes"][slot]["handle_id"]
    return found


def block_defects(state: dict[str, Any]) -> list[str]:
    """Name broken invariants of blocks (calico.md 1.2)."""
    found = []
    for key, block in state.items():
        if not key.startswith(BLOCKS):
            continue
        slots, free, attributes = block["allocations"], block["unallocated"], block["attributes"]
        size = 1 << (128 if ":" in block["cidr"] else 32) - int(block["cidr"].rpartition("/")[2])
        used = [ordinal for ordinal, slot in enumerate(slots) if slot is not None]
        if len(slots) != size or sorted(used + free) != list(range(size)):
            found.append(f"{key}: {len(used)} allocated or resting + {len(free)} free is not {size}")
        if {slot for slot in slots if slot is not None} != set(range(len(attributes))):
            found.append(f"{key}: attributes and slots disagree")
        if any(int(ordinal) not in used for ordinal in block["sequenceNumberForAllocation"]):
            found.append(f"{key}: a free ordinal has a sequence number")
    return found


def handle_defects(state: dict[str, Any], *, exact: bool = True) -> list[str]:
    """Name handles whose counts disagree with the blocks; without *exact* they may count too much, as Calico's do after a crash."""
    counts: dict[tuple[str, str], int] = {}
    for cidr, handle in ((address.partition("#")[0], handle) for address, handle in held(state).items()):
        counts[handle, cidr] = counts.get((handle, cidr), 0) + 1
    told = {
        (key.removeprefix(HANDLES), cidr): count
        for key, value in state.items()
        if key.startswith(HANDLES)
        for cidr, count in value["block"].items()
    }
    missing = [
        f"{pair} has {count}, its handle says {told.get(pair, 0)}"
        for pair, count in counts.items()
        if told.get(pair, 0) < count
    ]
    over = [
        f"{pair} has {counts.get(pair, 0)}, its handle says {count}"
        for pair, count in told.items()
        if counts.get(pair, 0) < count
    ]
    empty = [f"{key} counts nothing" for key, value in state.items() if key.startswith(HANDLES) and not value["block"]]
    return [*missing, *(over + empty if exact else [])]


def owners(state: dict[str, Any]) -> dict[str, list[str]]:
    """Return the hosts with a confirmed affinity by block, of blocks that exist."""
    found: dict[str, list[str]] = {}
    for key, value in state.items():
        if key.startswith(HOSTS) and value.get("state") in ("confirmed", "", None):
            host, family, _, cidr = key.removeprefix(HOSTS).split("/")
            found.setdefault(f"{BLOCKS}{family}/block/{cidr}", []).append(host)
    return found


def affinity_defects(state: dict[str, Any], *, settled: bool = True) -> list[str]:
    """Name blocks with two confirmed owners; with *settled* also blocks and affinities that disagree or are half made."""
    confirmed = owners(state)
    found = [f"{block} has owners {hosts}" for block, hosts in confirmed.items() if len(hosts) > 1]
    if not settled:
        return found
    for block, hosts in confirmed.items():
        if state.get(block, {}).get("affinity") != f"host:{hosts[0]}":
            found.append(f"{hosts[0]} has a confirmed affinity to {block}, which does not say so")
    for key, value in state.items():
        if key.startswith(BLOCKS) and (value["affinity"] or "").startswith("host:") and key not in confirmed:
            found.append(f"{key} is affine to {value['affinity']}, which has no confirmed affinity to it")
        if key.startswith(HOSTS) and value.get("state") not in ("confirmed", "", None):
            found.append(f"{key} is {value['state']}")
        if key.startswith(BLOCKS) and value["affinity"] is None and all(slot is None for slot in value["allocations"]):
            found.append(f"{key} is empty and nobody's")
    return found


def defects(state: dict[str, Any]) -> list[str]:
    """Name all that is wrong in a store that only bgpd wrote."""
    return [*block_defects(state), *handle_defects(state), *affinity_defects(state)]
