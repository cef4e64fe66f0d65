"""Which addresses and blocks nobody needs any more (calico.md 1.6; Calico: kube-controllers/pkg/controllers/node/ipam.go).

Theory of operation. The collector is told what is stored, change by change, and remembers what it suspects. Nothing is
given back on one look: an address without a trace must be missing in two of its node's publications at least the grace
time apart and in all between them, and a block must be empty, unchanged, over the grace time. Only the end of a node that
was seen to be deleted needs no second look. What is found is handed out as *work*; who does it decides anew, in a
transaction that compares what the judgement rests on, so that a late or doubled piece of work frees nothing.

Laws:

* What is not known is valid: no handle, no node, no sequence number, a node that publishes nothing.
* A node is gone where neither its Node resource nor its daemon's lease exists. What it had at that moment goes at once; where
  nobody saw it end (it was gone when reading began), after UNSEEN_S, since a node that starts is not all there at once.
* All or none per handle: one address that is valid, or not known, keeps all the others of its handle.
* A tunnel's address is judged by its node's existence alone.
* A node keeps a block of each pool. Blocks that hold or rest an address stay.
* Cost per change is O(addresses of the block, or of the node, that changed).
"""

from __future__ import annotations

from enum import StrEnum
from heapq import heappop, heappush
from math import inf

import msgspec

from bgpd.core.ipam.block import BlockRecord
from bgpd.core.ipam.census import Holding, PoolIndex, holdings
from bgpd.core.ipam.ranges import Ranges
from bgpd.model.pool import Pool
from bgpd.model.prefix import Address, Prefix

GRACE_S = 900.0
"""Between the first and the last look at what is suspected (Calico's leakGracePeriod)."""
UNSEEN_S = 60.0
"""A node that was never seen to exist is gone after so long: a daemon that starts writes its lease, its Node and its first
block within seconds."""


class Why(StrEnum):
    """Why something is given back."""

    NODE_GONE = "node-gone"
    NO_TRACE = "no-trace"
    EMPTY = "empty"


class Leak(msgspec.Struct, frozen=True):
    """All that a handle has, none of which is in use."""

    handle: str
    addresses: tuple[tuple[Address, int], ...]
    """Each with the sequence number of its allocation."""
    blocks: tuple[tuple[Prefix, int], ...]
    """How many in which block: what the handle must count, or there is more to it."""
    nodes: tuple[str, ...]
    why: Why
    published: tuple[tuple[str, int], ...] = ()
    """With NO_TRACE: nodes, and the revision of the publication that has no trace."""


class Surplus(msgspec.Struct, frozen=True):
    """A block that its node, or nobody, needs; *node* None: it is nobody's."""

    cidr: Prefix
    node: str | None
    why: Why
    sequence: int | None
    """With EMPTY: the block's sequence number all the time."""


Work = Leak | Surplus


class _Node:
    """What is known of a node."""

    def __init__(self) -> None:
        self.resource = False
        self.alive = False
        self.seen = False
        """It existed at some moment."""
        self.gone_since: float | None = None
        self.traces: Ranges | None = None
        self.revision = 0
        """Of the publication of the traces."""
        self.holds: set[Address] = set()
        self.blocks: set[Prefix] = set()
        """Blocks affine to it, and blocks of which it has an affinity."""

    @property
    def exists(self) -> bool:
        return self.resource or self.alive

    @property
    def gone_at(self) -> float | None:
        """When it counts as gone; None while it exists."""
        if self.gone_since is None:
            return None
        return self.gone_since if self.seen else self.gone_since + UNSEEN_S


class _Block:
    """What is known of a block; its record is not kept, since an elected collector knows of tens of thousands."""

    def __init__(self) -> None:
        self.present = False
        self.node: str | None = None
        self.sequence: int | None = None
        self.addresses: tuple[Address, ...] = ()
        """Those that are held."""
        self.empty_since: float | None = None
        self.claims: set[str] = set()
        """Nodes that have an affinity to it."""
        self.leaving = False
        """It was handed out as surplus, and is so until it is told anew."""

    def become(self, record: BlockRecord | None) -> None:
        self.present = record is not None
        self.node = record.node if record is not None else None
        self.sequence = record.sequence_number if record is not None else None
        self.leaving = False


class Collector:
    """Owns what is known of blocks, nodes and handles, what is suspected since when, and the work found and not yet taken."""

    def __init__(self, *, grace_s: float = GRACE_S) -> None:
        self._grace_s = grace_s
        self._nodes: dict[str, _Node] = {}
        self._blocks: dict[Prefix, _Block] = {}
        self._held: dict[Address, Holding] = {}
        self._handles: dict[str, set[Address]] = {}
        self._suspects: dict[Address, tuple[int | None, float]] = {}
        """Sequence number of the allocation, and when it was first without a trace."""
        self._confirmed: dict[Address, int] = {}
        """Addresses without a trace to the end, and the revision of the last publication without it."""
        self._pools: dict[str, Pool] = {}
        self._index = PoolIndex(())
        self._ready = False
        self._timers: list[tuple[float, str, str]] = []
        """A heap of (when, kind, name) to be looked at; whether there is something to do is judged then."""
        self._earliest: dict[tuple[str, str], float] = {}
        """The timer of each name that counts; one that comes too early is set anew."""
        self._due: dict[tuple[str, str], None] = {}
        """Handles and blocks to be looked at now; an ordered set."""

    # -------------------------------------------------------------- what is told

    def pool(self, name: str, pool: Pool | None) -> None:
        """Take in that a pool is so; None: it is gone."""
        if pool is None:
            self._pools.pop(name, None)
        else:
            self._pools[name] = pool
        self._index = PoolIndex(tuple(self._pools.values()))

    def node(self, name: str, *, exists: bool, now: float) -> None:
        """Take in whether a Node resource exists."""
        node = self._node(name)
        node.resource = exists
        self._presence(name, node, now)

    def alive(self, name: str, *, alive: bool, now: float) -> None:
        """Take in whether a node's lease exists."""
        node = self._node(name)
        node.alive = alive
        self._presence(name, node, now)

    def published(self, name: str, traces: tuple[Prefix, ...] | None, revision: int, now: float) -> None:
        """Take in which addresses a node has a trace of; None: it says nothing any more. O(addresses that it holds)."""
        node = self._node(name)
        node.traces = Ranges(traces) if traces is not None else None
        node.revision = revision
        for address in node.holds:
            self._look(address, node, now)
        self._forget(name)

    def affinity(self, cidr: Prefix, node: str, *, exists: bool, now: float) -> None:
        """Take in whether a node has an affinity to a block."""
        block = self._blocks.setdefault(cidr, _Block())
        (block.claims.add if exists else block.claims.discard)(node)
        self._own(cidr, block, node, now)
        self._drop(cidr)

    def block(self, cidr: Prefix, record: BlockRecord | None, now: float) -> None:
        """Take in that a block is so; None: it is gone, or cannot be read. O(its addresses)."""
        block = self._blocks.setdefault(cidr, _Block())
        before, sequence = block.node, block.sequence
        gone = set(block.addresses)
        touched = {self._unhold(address) for address in gone}
        held = tuple(holdings(record)) if record is not None else ()
        block.become(record)
        block.addresses = tuple(one.address for one in held)
        touched |= {self._hold(one, now) for one in held}
        for address in gone - set(block.addresses):
            self._suspects.pop(address, None)
            self._confirmed.pop(address, None)
        if record is None or held or (record.affinity is not None and record.node is None):
            block.empty_since = None  # in use, or of an owner that is no node
        elif block.empty_since is None or sequence != record.sequence_number:
            block.empty_since = now
            self._at(now + self._grace_s, "block", str(cidr))
        for name in (before, block.node):
            if name is not None:
                self._own(cidr, block, name, now)
        for handle in touched - {None}:
            self._again(handle or "", now)
        self._drop(cidr)

    def ready(self, now: float) -> None:
        """Take in that all that is stored was told: from here on, what is not there does not exist."""
        self._ready = True
        for name, node in list(self._nodes.items()):
            self._presence(name, node, now)

    # -------------------------------------------------------------- what is to be done

    def deadline(self) -> float | None:
        """Return when there may be work without another change; None: not before one."""
        if not self._ready:
            return None
        if self._due:
            return 0.0
        return self._timers[0][0] if self._timers else None

    def work(self, now: float, limit: int) -> list[Work]:
        """Take up to *limit* pieces of work that are due. What could not be done comes back by :meth:`retry`."""
        if not self._ready:
            return []
        while self._timers and self._timers[0][0] <= now:
            when, kind, name = heappop(self._timers)
            if self._earliest.get((kind, name)) != when:
                continue
            del self._earliest[kind, name]
            if kind == "node":
                self._node_ended(name, now)
            else:
                self._due[kind, name] = None
        found: list[Work] = []
        while self._due and len(found) < limit:
            kind, name = next(iter(self._due))
            del self._due[kind, name]
            one = self._leak(name, now) if kind == "handle" else self._surplus(Prefix.parse(name), now)
            if one is not None:
                found.append(one)
        return found

    def retry(self, work: Work, at: float) -> None:
        """Look again at *at* at what was handed out and could not be done."""
        if isinstance(work, Leak):
            self._at(at, "handle", work.handle)
        else:
            block = self._blocks.get(work.cidr)
            if block is not None:
                block.leaving = False
            self._at(at, "block", str(work.cidr))

    # -------------------------------------------------------------- judgement

    def _leak(self, handle: str, now: float) -> Leak | None:
        """Return all that a handle has, if none of it is valid."""
        addresses: list[tuple[Address, int]] = []
        blocks: dict[Prefix, int] = {}
        nodes: set[str] = set()
        published: dict[str, int] = {}
        for address in sorted(self._handles.get(handle, ())):
            held = self._held[address]
            if held.node is None or held.sequence is None:
                return None
            node = self._node(held.node)
            if not self._is_gone(node, now):
                if address not in self._confirmed or self._confirmed[address] != node.revision:
                    return None
                published[held.node] = node.revision
            nodes.add(held.node)
            addresses.append((address, held.sequence))
            blocks[held.block] = blocks.get(held.block, 0) + 1
        if not addresses:
            return None
        return Leak(
            handle=handle,
            addresses=tuple(addresses),
            blocks=tuple(sorted(blocks.items())),
            nodes=tuple(sorted(nodes)),
            why=Why.NO_TRACE if published else Why.NODE_GONE,
            published=tuple(sorted(published.items())),
        )

    def _surplus(self, cidr: Prefix, now: float) -> Surplus | None:
        """Return a block that is to be given back."""
        block = self._blocks.get(cidr)
        if block is None or block.leaving:
            return None
        owners = block.claims | ({block.node} if block.node is not None else set())
        for name in sorted(owners):
            if self._is_gone(self._node(name), now):
                block.leaving = True
                return Surplus(cidr, name, Why.NODE_GONE, None)
        if block.empty_since is None or not self._spare(cidr, block):
            return None
        if now < block.empty_since + self._grace_s:
            self._at(block.empty_since + self._grace_s, "block", str(cidr))
            return None
        block.leaving = True
        return Surplus(cidr, block.node, Why.EMPTY, block.sequence)

    def _spare(self, cidr: Prefix, block: _Block) -> bool:
        """Whether the block's node has another one of its pool. O(blocks of the node)."""
        pool = self._index.of(cidr.network, cidr.length)
        if block.node is None or pool is None:
            return True
        others = (
            self._blocks[other] for other in self._node(block.node).blocks if other != cidr and pool.cidr.covers(other)
        )
        return any(one.node == block.node and not one.leaving for one in others)

    def _is_gone(self, node: _Node, now: float) -> bool:
        return node.gone_at is not None and now >= node.gone_at

    def _look(self, address: Address, node: _Node, now: float) -> None:
        """Look for the trace of an address in its node's last publication."""
        held = self._held[address]
        self._confirmed.pop(address, None)
        if node.traces is None or held.tunnel is not None or node.traces.holds(address):
            self._suspects.pop(address, None)
            return
        sequence, since = self._suspects.setdefault(address, (held.sequence, now))
        if sequence != held.sequence:
            self._suspects[address] = (held.sequence, now)
        elif now - since >= self._grace_s and held.handle is not None:
            self._confirmed[address] = node.revision
            self._due["handle", held.handle] = None

    # -------------------------------------------------------------- bookkeeping

    def _node(self, name: str) -> _Node:
        return self._nodes.setdefault(name, _Node())

    def _presence(self, name: str, node: _Node, now: float) -> None:
        """Take note of a node's beginning or end."""
        if node.exists:
            node.seen, node.gone_since = True, None
        else:
            self._charged(name, node, now)
        self._forget(name)

    def _charged(self, name: str, node: _Node, now: float) -> None:
        """Take note that a node has something; one that is gone, or that nobody has heard of, is looked at in time."""
        if self._ready and not node.exists and node.gone_since is None:
            node.gone_since = now
        if node.gone_at is not None and (node.holds or node.blocks):
            self._at(max(now, node.gone_at), "node", name)

    def _node_ended(self, name: str, now: float) -> None:
        node = self._nodes.get(name)
        if node is None or node.gone_at is None:
            return
        if now < node.gone_at:
            self._at(node.gone_at, "node", name)
            return
        for address in node.holds:
            handle = self._held[address].handle
            if handle is not None:
                self._due["handle", handle] = None
        for cidr in node.blocks:
            self._due["block", str(cidr)] = None

    def _hold(self, held: Holding, now: float) -> str | None:
        """Take note of a holder; return its handle."""
        self._held[held.address] = held
        if held.handle is not None:
            self._handles.setdefault(held.handle, set()).add(held.address)
        if held.node is not None:
            node = self._node(held.node)
            node.holds.add(held.address)
            self._charged(held.node, node, now)
        return held.handle

    def _unhold(self, address: Address) -> str | None:
        """Forget a holder; return its handle."""
        held = self._held.pop(address)
        if held.handle is not None:
            mine = self._handles[held.handle]
            mine.discard(address)
            if not mine:
                del self._handles[held.handle]
        if held.node is not None:
            self._node(held.node).holds.discard(address)
            self._forget(held.node)
        return held.handle

    def _own(self, cidr: Prefix, block: _Block, name: str, now: float) -> None:
        """Take note of whether a block is a node's, by its record or by an affinity."""
        node = self._node(name)
        if block.node == name or name in block.claims:
            node.blocks.add(cidr)
            self._charged(name, node, now)
            for other in node.blocks:
                # It may be a spare one now that it was not before.
                since = self._blocks[other].empty_since
                if since is not None and other != cidr:
                    self._at(since + self._grace_s, "block", str(other))
        else:
            node.blocks.discard(cidr)
            self._forget(name)

    def _again(self, handle: str, now: float) -> None:
        """Look at a handle again of which something changed, if any of it is known to be unused."""
        for address in self._handles.get(handle, ()):
            held = self._held[address]
            if address in self._confirmed or (held.node is not None and self._is_gone(self._node(held.node), now)):
                self._due["handle", handle] = None
                return

    def _at(self, when: float, kind: str, name: str) -> None:
        if when < self._earliest.get((kind, name), inf):
            self._earliest[kind, name] = when
            heappush(self._timers, (when, kind, name))

    def _drop(self, cidr: Prefix) -> None:
        block = self._blocks[cidr]
        if not block.present and not block.claims:
            del self._blocks[cidr]

    def _forget(self, name: str) -> None:
        node = self._nodes.get(name)
        if node is not None and not node.exists and not node.holds and not node.blocks and node.traces is None:
            del self._nodes[name]
