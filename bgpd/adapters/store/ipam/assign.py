"""Assigning addresses: of own blocks, of new ones, and of other nodes' where that is allowed.

Asking again for the same handle returns the addresses that it has: so a caller that does not know what became of its
request asks again, and a partial answer is made whole by asking again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import msgspec

from bgpd.adapters.store import keys
from bgpd.adapters.store.base import Comparison, Put, Scan, Store, Transient, Write
from bgpd.adapters.store.ipam.claim import claim_block
from bgpd.adapters.store.ipam.reading import LOCKED, Attempt, Context
from bgpd.adapters.store.keys import Malformed
from bgpd.adapters.store.records import affinity_bytes, block_bytes, handle_bytes
from bgpd.adapters.store.transact import CONFLICTS_MAX, Plan, transact
from bgpd.core.ipam.allocate import limit_reached
from bgpd.core.ipam.block import (
    Attribute,
    BlockRecord,
    HandleRecord,
    Refused,
    assigned_at,
    new_block,
    write_time,
)
from bgpd.core.ipam.grant import Grant, grant
from bgpd.core.ipam.qualify import Qualified, Wanted, no_pool, qualify
from bgpd.core.ipam.search import search_order
from bgpd.model.pool import AffinityState, Pool, Use
from bgpd.model.prefix import Address, Family, Prefix

ADDRESSES_MAX = 1024
"""Addresses of one family in one request: more than any holder has use for, and a bound for the work of one call."""
BORROW_PAGE_BLOCKS = 64
"""Blocks of others looked at in one reading: most have a free address, so the first page nearly always does."""
BORROW_PAGES_MAX = 2000
"""Pages of others' blocks looked at for a free address: 128,000 blocks, far more than a pool without one holds."""


class AddressRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Who wants addresses, how many and where from."""

    node: str
    handle_id: str
    attributes: Mapping[str, str] = {}
    """Stored with the addresses (Calico's ActiveOwnerAttrs: pod, namespace, type, …); ``node`` is added."""
    ipv4: int = 1
    ipv6: int = 0
    use: Use = Use.WORKLOAD
    pools: tuple[str, ...] = ()
    """Names or CIDRs of the pools to take from, in order; empty: those that serve by themselves."""
    namespace_labels: Mapping[str, str] | None = None
    """Of the workload's namespace, for pools with a namespaceSelector; None: not known."""
    max_blocks: int = 0
    """Lowers the cluster's limit of blocks for the node; 0: that limit."""

    @property
    def holder(self) -> Attribute:
        return Attribute(handle_id=self.handle_id, secondary={**self.attributes, "node": self.node})


class Granted(msgspec.Struct, frozen=True):
    """The addresses that the handle has, of all families asked for; *short* says for each family why they are fewer than asked."""

    addresses: tuple[Address, ...]
    short: tuple[str, ...] = ()


class _Step(msgspec.Struct, frozen=True):
    """What the handle has after a step."""

    held: tuple[Address, ...]
    pools: tuple[Pool, ...] = ()
    """To claim blocks of, where that is not enough."""
    may_borrow: bool = False
    strict: bool = False
    refused: str = ""
    grown: bool = False


async def assign(store: Store, request: AddressRequest) -> Granted | Refused:
    """Give the handle as many addresses of each family as asked for, those it has included.

    Fewer than asked is no error: *short* says why. Refused where it has none at all. Raises Transient, and Malformed for
    a stored value that cannot be used; what was assigned before that is found by asking again. Raises ValueError for a
    request beyond ADDRESSES_MAX.
    """
    addresses: list[Address] = []
    short: list[str] = []
    for family, count in ((Family.IPV4, request.ipv4), (Family.IPV6, request.ipv6)):
        if not 0 <= count <= ADDRESSES_MAX:
            raise ValueError(f"{count} {family!s} addresses: a request is for 0 to {ADDRESSES_MAX}")
        if count:
            held, why = await _assign_family(store, request, family, count)
            addresses += held
            if len(held) < count:
                short.append(f"{len(held)} of {count} {family!s} addresses: {why}" if held else why)
    if short and not addresses:
        return Refused("; ".join(short))
    return Granted(tuple(addresses), tuple(short))


async def assign_address(
    store: Store, node: str, handle_id: str, attrs: Mapping[str, str], pool_name: str | None = None
) -> Address | Refused:
    """Give *handle_id* one IPv4 address; the one that it has, if any. Raises as :func:`assign` does."""
    pools = (pool_name,) if pool_name else ()
    answer = await assign(store, AddressRequest(node=node, handle_id=handle_id, attributes=attrs, pools=pools))
    return answer if isinstance(answer, Refused) else answer.addresses[0]


async def assign_at(store: Store, request: AddressRequest, address: Address) -> Address | Refused:
    """Give the handle this very address (numbers and pools of the request do not matter): of an own block, of a new one, of
    another node's where that is allowed.

    Raises Transient, and Malformed for a stored value that cannot be used.
    """
    return await transact(store, lambda: _plan_at(Attempt(store), request, address))


# ------------------------------------------------------------------ automatic


async def _assign_family(
    store: Store, request: AddressRequest, family: Family, count: int
) -> tuple[tuple[Address, ...], str]:
    """Return what the handle has in the end, and why it is not more."""
    reasons: list[str] = []
    step = _Step(())
    # A block may be of one address, and each takes a round for the block and one for the address.
    for _ in range(CONFLICTS_MAX + 2 * count):
        step = await transact(store, lambda: _plan_own(Attempt(store), request, family, count))
        if len(step.held) >= count or step.refused:
            return step.held, step.refused
        reasons = [] if step.grown else reasons
        if not step.grown and not await _claim_any(store, request, step.pools, reasons):
            break
    else:
        raise Transient(f"others took what was free of each block that was claimed, {CONFLICTS_MAX} times")
    if step.strict:
        return step.held, f"{'; '.join(reasons)}; and strict affinity forbids addresses of other nodes' blocks"
    if not step.may_borrow:
        return step.held, "; ".join(reasons)
    held = step.held
    while True:
        borrowed = await transact(store, lambda: _plan_borrow(Attempt(store), request, family, count))
        if len(borrowed.held) >= count or not borrowed.grown:
            return borrowed.held, borrowed.refused or _none_left(step.pools, reasons)
        assert len(borrowed.held) > len(held), "each round has a new address"
        held = borrowed.held


def _none_left(pools: tuple[Pool, ...], reasons: list[str]) -> str:
    cidrs = ", ".join(f"{pool.name} ({pool.cidr})" for pool in pools)
    return f"no address is left in the pools {cidrs}: {'; '.join(reasons)}; no other node's block has a free address"


async def _claim_any(store: Store, request: AddressRequest, pools: tuple[Pool, ...], reasons: list[str]) -> bool:
    """Claim a block with room of the first pool that has one; where none has, *reasons* says why."""
    reasons.clear()
    for pool in pools:
        block = await claim_block(store, pool, request.node, room=True, reclaims=True, limit=request.max_blocks)
        if not isinstance(block, Refused):
            return True
        if block.reason not in reasons:
            reasons.append(block.reason)
    return False


async def _plan_own(attempt: Attempt, request: AddressRequest, family: Family, count: int) -> Plan[_Step]:
    """Take what is missing of the node's own blocks, in the order of the pools."""
    context, handle, held = await _begin(attempt, request, family)
    qualified = _qualified(context, request, family)
    if context.locked or len(held) >= count or not qualified.pools:
        refused = LOCKED.reason if context.locked else no_pool(_wanted(context, request, family), qualified)
        return Plan(_Step(held[:count], refused="" if len(held) >= count else refused))
    own = _own_blocks(context, qualified.pools)
    await attempt.load(keys.block_key(cidr) for cidr in own)
    blocks = [block for cidr in own if (block := attempt.readable_block(cidr)) and block.node == request.node]
    found = grant(blocks, handle, request.holder, count - len(held), context.reserved)
    step = _Step(
        (*held, *found.addresses),
        pools=qualified.pools,
        may_borrow=context.config.may_borrow,
        strict=context.config.strict_affinity,
        grown=bool(found.addresses),
    )
    return _granting(attempt, context, found, step)


async def _plan_borrow(attempt: Attempt, request: AddressRequest, family: Family, count: int) -> Plan[_Step]:
    """Take what is missing of other nodes' blocks, from the node's own place among them on."""
    context, handle, held = await _begin(attempt, request, family)
    qualified = _qualified(context, request, family)
    if context.locked or not context.config.may_borrow or not qualified.pools:
        refused = LOCKED.reason if context.locked else "the settings changed meanwhile"
        return Plan(_Step(held[:count], refused=refused))
    for pool in qualified.pools:
        async for blocks in _stored_blocks(attempt, pool, request.node):
            # Of a virtual owner's block nothing is borrowed: who has it announces all of it.
            others = [block for block in blocks if block.affinity is None or block.node is not None]
            found = grant(others, handle, request.holder, count - len(held), context.reserved)
            if found.addresses:
                return _granting(attempt, context, found, _Step((*held, *found.addresses), grown=True))
    return Plan(_Step(held[:count]))


async def _begin(
    attempt: Attempt, request: AddressRequest, family: Family
) -> tuple[Context, HandleRecord, tuple[Address, ...]]:
    """Read the settings and what the handle has. A handle that counts an address that no block has is not believed."""
    context = await attempt.context(request.node, family, keys.handle_key(request.handle_id))
    handle = attempt.handle(request.handle_id)
    cidrs = [cidr for cidr in _counted(handle) if cidr.family is family]
    await attempt.load(keys.block_key(cidr) for cidr in cidrs)
    held: list[Address] = []
    for cidr in cidrs:
        block = attempt.readable_block(cidr)
        held += block.held_by(request.handle_id) if block else ()
    return context, handle, tuple(held)


def _counted(handle: HandleRecord) -> list[Prefix]:
    """Return the blocks that a handle counts addresses in; raises Malformed."""
    try:
        return [Prefix.parse(text) for text in handle.block]
    except ValueError as error:
        raise Malformed(keys.handle_key(handle.handle_id), str(error)) from error


def _wanted(context: Context, request: AddressRequest, family: Family) -> Wanted:
    return Wanted(
        family=family,
        use=request.use,
        asked=request.pools,
        node_labels=context.node_labels,
        namespace_labels=request.namespace_labels,
    )


def _qualified(context: Context, request: AddressRequest, family: Family) -> Qualified:
    found = qualify(context.pools, _wanted(context, request, family))
    return Qualified(found.pools, (*found.others, *context.unreadable_pools))


def _own_blocks(context: Context, pools: tuple[Pool, ...]) -> list[Prefix]:
    """Return the blocks of the node's confirmed affinities, in the order of the pools; what is pending is a claim's to finish."""
    confirmed = sorted(held.affinity.cidr for held in context.held if held.affinity.state is AffinityState.CONFIRMED)
    return [cidr for pool in pools for cidr in confirmed if pool.cidr.covers(cidr)]


async def _stored_blocks(attempt: Attempt, pool: Pool, node: str) -> AsyncIterator[list[BlockRecord]]:
    """Iterate over the stored blocks of *pool* in order of keys, from the node's own place on and round to it."""
    prefix = keys.pool_blocks_prefix(pool.cidr)
    begin = keys.block_key(next(search_order(pool, node)))
    start, wrapped = begin, False
    for _ in range(BORROW_PAGES_MAX):
        reading = await attempt.store.read([Scan(prefix, BORROW_PAGE_BLOCKS, start=start)])
        page = reading.pages[0]
        items = [item for item in page.items if not wrapped or item.key < begin]
        attempt.note(items)
        yield [block for item in items if (block := _block_of(attempt, item.key, pool)) is not None]
        if wrapped and (not page.more or len(items) < len(page.items)):
            return
        if page.more:
            start = page.items[-1].key + "\0"
        else:
            start, wrapped = "", True


def _block_of(attempt: Attempt, key: str, pool: Pool) -> BlockRecord | None:
    try:
        about = keys.parse(key)
    except Malformed:
        return None
    if not isinstance(about, keys.BlockKey) or not pool.cidr.covers(about.cidr):
        return None
    return attempt.readable_block(about.cidr)


def _granting(attempt: Attempt, context: Context, found: Grant, step: _Step) -> Plan[_Step]:
    if not found.addresses:
        return Plan(step)
    key = keys.handle_key(found.handle.handle_id)
    compares: list[Comparison] = [*context.compares, attempt.unchanged(key)]
    writes: list[Write] = [Put(key, handle_bytes(found.handle))]
    for block in found.blocks:
        key = keys.block_key(block.cidr)
        compares.append(attempt.unchanged(key))
        writes.append(Put(key, block_bytes(block)))
    return Plan(step, tuple(compares), tuple(writes))


# ------------------------------------------------------------------ explicit


async def _plan_at(attempt: Attempt, request: AddressRequest, address: Address) -> Plan[Address | Refused]:
    handle_key = keys.handle_key(request.handle_id)
    context = await attempt.context(request.node, address.family, handle_key)
    pool = next((pool for pool in context.pools if pool.cidr.holds(address)), None)
    cidr = await _place(attempt, context, pool, address)
    block_key, affinity_key = keys.block_key(cidr), keys.affinity_key(request.node, cidr)
    await attempt.load([block_key])
    block = attempt.block(cidr)
    holder = block.holder(address) if block else None
    if holder is not None and holder.handle_id == request.handle_id:
        return Plan(address)
    if refusal := _refusal(context, pool, request, address):
        return Plan(Refused(refusal))
    fresh = _fresh(attempt, context, request, cidr) if block is None else _allowed(context, request, block)
    if isinstance(fresh, Refused):
        return Plan(fresh)
    after = assigned_at(fresh, request.holder, address)
    if isinstance(after, Refused):
        return Plan(after)
    handle = attempt.handle(request.handle_id).counting(fresh, after)
    compares = (*context.compares, context.affinities, attempt.unchanged(block_key), attempt.unchanged(handle_key))
    writes: tuple[Write, ...] = (Put(block_key, block_bytes(after)), Put(handle_key, handle_bytes(handle)))
    stored = attempt.affinity(affinity_key)
    state = next((held.affinity.state for held in context.held if held.affinity.cidr == cidr), None)
    if after.node == request.node and state is not AffinityState.CONFIRMED:
        value = affinity_bytes(affinity_key, AffinityState.CONFIRMED, stored.value if stored else None)
        compares = (*compares, attempt.unchanged(affinity_key))
        writes = (*writes, Put(affinity_key, value))
    return Plan(address, compares, writes)


def _refusal(context: Context, pool: Pool | None, request: AddressRequest, address: Address) -> str:
    """Say why an address cannot be had whoever has it now; empty where it can."""
    if context.locked:
        return LOCKED.reason
    if (name := context.reserved.by(address)) is not None:
        return f"address {address} is reserved by {name}"
    if pool is None:
        return f"address {address} is in no pool"
    # A pool that an address is asked of by name of the address serves whatever its selectors say, as one asked for by name does.
    wanted = Wanted(family=address.family, use=request.use, asked=(pool.name,))
    return "; ".join(qualify(context.pools, wanted).others)


async def _place(attempt: Attempt, context: Context, pool: Pool | None, address: Address) -> Prefix:
    """Return the block that *address* is in: a stored one of the node, whatever its size, or one of the pool's size."""
    for held in context.held:
        if held.affinity.cidr.holds(address):
            await attempt.load([keys.block_key(held.affinity.cidr)])
            if attempt.item(keys.block_key(held.affinity.cidr)) is not None:
                return held.affinity.cidr
    return Prefix.of(address, pool.block_size if pool is not None else address.family.bits)


def _fresh(attempt: Attempt, context: Context, request: AddressRequest, cidr: Prefix) -> BlockRecord | Refused:
    """Make the block: the node's, or nobody's where the node has as many as it may and addresses may be borrowed."""
    limit = min(context.config.limit, request.max_blocks or context.config.limit)
    mine = any(held.affinity.cidr == cidr for held in context.held)
    if context.held_count < limit or mine:
        return new_block(cidr, request.node, attempt.now_ns, write_time(attempt.now))
    if context.config.may_borrow:
        return new_block(cidr, None, attempt.now_ns, None)
    return limit_reached(limit, request.node)


def _allowed(context: Context, request: AddressRequest, block: BlockRecord) -> BlockRecord | Refused:
    """Return the block if the node may have an address of it."""
    if block.node == request.node:
        return block
    if block.affinity is not None and block.node is None:
        return Refused(f"block {block.cidr} belongs to {block.affinity}")
    if context.config.strict_affinity:
        owner = f"node {block.node}" if block.node else "nobody"
        return Refused(
            f"block {block.cidr} is of {owner}, and strict affinity forbids node {request.node} its addresses"
        )
    return block
