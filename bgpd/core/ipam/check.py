"""What is inconsistent in a census (calico.md 1.7; Calico: calicoctl/calicoctl/commands/ipam/check.go).

Laws: every kind of inconsistency has a name that is stable, and each one found is told with what it is about and how it
is mended. An address counts as unused only where somebody who must know says so: its node does not exist, the node's
resource names another tunnel address, the node's daemon says which addresses it has a trace of, or the node has
WorkloadEndpoints and none of them has it. Otherwise it is not judged, and never a problem. O(what is stored).
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

import msgspec

from bgpd.core.ipam.block import HOST
from bgpd.core.ipam.census import Census, Holding, PoolIndex, StoredNode, holdings
from bgpd.model.pool import AffinityState
from bgpd.model.prefix import Address, Prefix


class Kind(StrEnum):
    """Kinds of inconsistency."""

    UNUSED = "allocated-unused"
    UNALLOCATED = "in-use-unallocated"
    OUTSIDE = "in-use-outside-pools"
    HANDLE_EMPTY = "handle-without-addresses"
    HANDLE_MISSING = "address-without-handle"
    HANDLE_COUNT = "handle-wrong-count"
    BLOCK_MALFORMED = "block-malformed"
    RECORD_MALFORMED = "record-malformed"
    BLOCK_OUTSIDE = "block-outside-pools"
    BLOCKS_OVERLAP = "blocks-overlap"
    AFFINITY_BLOCKLESS = "affinity-without-block"
    BLOCK_AFFINITYLESS = "block-without-affinity"
    AFFINITIES_TWO = "block-with-two-affinities"
    AFFINITY_STALE = "affinity-of-another-block"
    AFFINITY_PENDING = "affinity-unconfirmed"


class Verdict(StrEnum):
    """Whether an allocated address is in use."""

    USED = "in-use"
    UNUSED = "not-in-use"
    UNKNOWN = "not-judged"


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    kind: Kind
    detail: str
    address: Address | None = None
    block: Prefix | None = None
    handle: str = ""
    node: str = ""
    key: str = ""


class Allocation(msgspec.Struct, frozen=True, kw_only=True):
    """An allocated address, and the judgement on it."""

    holding: Holding
    verdict: Verdict
    why: str


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    allocations: tuple[Allocation, ...]
    """All of them, in order of addresses."""
    leaked_handles: tuple[tuple[str, int], ...]
    """Handles that no block mentions, and the revision of each."""
    problems: tuple[Problem, ...]
    """In order of kinds, then of what they are about."""


def check(census: Census) -> Findings:
    """Judge everything that is stored."""
    allocations = tuple(
        judge(census, held)
        for stored in sorted(census.blocks, key=lambda one: one.cidr)
        if stored.record is not None
        for held in holdings(stored.record)
    )
    problems = [
        *_unused(allocations),
        *_unallocated(census, allocations),
        *_handles(census, allocations),
        *_blocks(census),
        *_affinities(census),
    ]
    order = {kind: index for index, kind in enumerate(Kind)}
    named = {held.holding.handle for held in allocations}
    leaked = tuple((name, one.revision) for name, one in sorted(census.handles.items()) if name not in named)
    return Findings(
        allocations=allocations,
        leaked_handles=leaked,
        problems=tuple(sorted(problems, key=lambda one: order[one.kind])),
    )


def judge(census: Census, held: Holding) -> Allocation:
    """Say whether an allocated address is in use, and by what that is known."""
    verdict, why = _judgement(census, held)
    return Allocation(holding=held, verdict=verdict, why=why)


def _judgement(census: Census, held: Holding) -> tuple[Verdict, str]:
    if held.address in census.endpoints:
        return Verdict.USED, f"WorkloadEndpoint {census.endpoints[held.address]}"
    if held.node is None:
        return Verdict.UNKNOWN, "the allocation names no node"
    node = census.nodes.get(held.node, StoredNode())
    if not node.resource and not node.alive:
        return Verdict.UNUSED, f"there is no node {held.node}"
    tunnel = held.tunnel
    if tunnel is not None:
        if node.tunnels.get(tunnel) == held.address:
            return Verdict.USED, f"{tunnel.value} of node {held.node}"
        if not node.resource:
            return Verdict.UNKNOWN, f"node {held.node} has no resource"
        return Verdict.UNUSED, f"node {held.node} has another {tunnel.value}, or none"
    if node.traces is not None:
        if any(trace.holds(held.address) for trace in node.traces):
            return Verdict.USED, f"node {held.node} has a route to it"
        return Verdict.UNUSED, f"node {held.node} has no trace of it"
    if held.node in census.endpoint_nodes:
        return Verdict.UNUSED, f"no WorkloadEndpoint of node {held.node} has it"
    return Verdict.UNKNOWN, f"node {held.node} does not say which addresses it uses"


# ------------------------------------------------------------------ addresses


def _unused(allocations: tuple[Allocation, ...]) -> Iterator[Problem]:
    for one in allocations:
        if one.verdict is Verdict.UNUSED:
            yield Problem(
                kind=Kind.UNUSED,
                detail=one.why,
                address=one.holding.address,
                block=one.holding.block,
                handle=one.holding.handle or "",
                node=one.holding.node or "",
            )


def _unallocated(census: Census, allocations: tuple[Allocation, ...]) -> Iterator[Problem]:
    allocated = {one.holding.address for one in allocations}
    index = PoolIndex(census.pools)
    for address, (user, node) in sorted(_users(census).items()):
        if address in allocated:
            continue
        if index.of(address, address.family.bits) is None:
            yield Problem(kind=Kind.OUTSIDE, detail=f"used by {user}", address=address, node=node)
        else:
            yield Problem(kind=Kind.UNALLOCATED, detail=f"used by {user}", address=address, node=node)


def _users(census: Census) -> dict[Address, tuple[str, str]]:
    """Return the addresses that somebody says are in use: who, and on which node."""
    found = {address: (f"WorkloadEndpoint {name}", "") for address, name in census.endpoints.items()}
    for name, node in census.nodes.items():
        for trace in node.traces or ():
            if trace.is_host:
                found.setdefault(trace.network, (f"a route of node {name}", name))
        for kind, address in node.tunnels.items():
            found.setdefault(address, (f"node {name} as {kind.value}", name))
    return found


# ------------------------------------------------------------------ handles


def _handles(census: Census, allocations: tuple[Allocation, ...]) -> Iterator[Problem]:
    held: dict[str, dict[str, int]] = {}
    for one in allocations:
        handle, block = one.holding.handle, str(one.holding.block)
        if handle is None:
            continue
        counts = held.setdefault(handle, {})
        counts[block] = counts.get(block, 0) + 1
        if handle not in census.handles:
            yield Problem(
                kind=Kind.HANDLE_MISSING,
                detail=f"handle {handle} is not stored",
                address=one.holding.address,
                block=one.holding.block,
                handle=handle,
            )
    unread = {str(stored.cidr) for stored in census.blocks if stored.record is None}
    for name, stored in sorted(census.handles.items()):
        counted = {block: count for block, count in stored.record.block.items() if block not in unread}
        if name not in held:
            if len(counted) == len(stored.record.block):
                yield Problem(kind=Kind.HANDLE_EMPTY, detail="no block has an address of it", handle=name)
        elif counted != held[name]:
            yield Problem(
                kind=Kind.HANDLE_COUNT,
                detail=f"it counts {_counts(counted)}; the blocks have {_counts(held[name])}",
                handle=name,
            )


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} in {block}" for block, count in sorted(counts.items())) or "none"


# ------------------------------------------------------------------ blocks and affinities


def _blocks(census: Census) -> Iterator[Problem]:
    index = PoolIndex(census.pools)
    stored = sorted(census.blocks, key=lambda one: (one.cidr.network, one.cidr.length))
    widest: Prefix | None = None
    for one in stored:
        if one.record is None:
            yield Problem(kind=Kind.BLOCK_MALFORMED, detail=one.defect, block=one.cidr)
        if index.of(one.cidr.network, one.cidr.length) is None:
            yield Problem(kind=Kind.BLOCK_OUTSIDE, detail="no pool covers it", block=one.cidr)
        if widest is not None and widest.covers(one.cidr):
            yield Problem(kind=Kind.BLOCKS_OVERLAP, detail=f"it lies within block {widest}", block=one.cidr)
        else:
            widest = one.cidr
    for key, defect in census.unreadable:
        yield Problem(kind=Kind.RECORD_MALFORMED, detail=defect, key=key)


def _affinities(census: Census) -> Iterator[Problem]:
    blocks = {stored.cidr: stored for stored in census.blocks}
    owners: dict[Prefix, list[str]] = {}
    for one in sorted(census.affinities, key=lambda each: (each.cidr, each.owner)):
        node = one.owner.removeprefix(HOST)
        stored = blocks.get(one.cidr)
        record = stored.record if stored is not None else None
        owners.setdefault(one.cidr, []).append(one.owner)
        if stored is None:
            detail = f"{one.owner} claims a block that does not exist"
            yield Problem(kind=Kind.AFFINITY_BLOCKLESS, detail=detail, block=one.cidr, node=node)
        elif record is not None and record.affinity != one.owner:
            detail = f"{one.owner} claims a block that is affine to {record.affinity or 'nobody'}"
            yield Problem(kind=Kind.AFFINITY_STALE, detail=detail, block=one.cidr, node=node)
        elif record is not None and one.state is not AffinityState.CONFIRMED:
            detail = f"{one.owner}'s affinity is {one.state.value}: its node completes it at its next claim"
            yield Problem(kind=Kind.AFFINITY_PENDING, detail=detail, block=one.cidr, node=node)
    for cidr, names in owners.items():
        if len(names) > 1:
            yield Problem(kind=Kind.AFFINITIES_TWO, detail=f"claimed by {' and '.join(names)}", block=cidr)
    for cidr, stored in sorted(blocks.items()):
        owner = stored.record.affinity if stored.record is not None else None
        if owner is not None and owner not in owners.get(cidr, []):
            detail = f"it is affine to {owner}, which has no affinity to it"
            yield Problem(kind=Kind.BLOCK_AFFINITYLESS, detail=detail, block=cidr, node=owner.removeprefix(HOST))
