"""What is the case: the current facts, as the events told them. Facts decide nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from bgpd.core.health.path import Told, broken
from bgpd.core.ipam.usage import Usage
from bgpd.core.peering.world import World
from bgpd.core.rib.filter import Compiled
from bgpd.model.drain import Stage
from bgpd.model.event import Options
from bgpd.model.felix import DEFAULT, NODE, NOTHING_SAID, FelixConfiguration
from bgpd.model.health import StaticPrefix
from bgpd.model.node import Node
from bgpd.model.overlay import Path
from bgpd.model.peer import MaxPrefix, Notification, Peer, SessionOpen
from bgpd.model.pool import Affinity, AffinityState, Block, Fallback, Pool
from bgpd.model.prefix import Address, Family, Prefix


@dataclass(slots=True)
class Session:
    """The state of one configured peer's session."""

    up: bool = False
    since: float | None = None
    open: SessionOpen | None = None
    learned: set[Family] = field(default_factory=set)
    """Families whose End-of-RIB came in this session."""
    learned_once: set[Family] = field(default_factory=set)
    """Families whose End-of-RIB came in any session of this process: what the start-up gate asks for."""
    reason: str = ""
    unreachable_since: float | None = None
    """Since when every attempt to connect was refused or led nowhere; None: the last one was not, or there is a session."""
    notification: Notification | None = None
    transitions: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    """Malformed UPDATEs since the daemon's start by kind, as ``treat-as-withdraw ORIGIN``; as many kinds as treatments and attributes."""


@dataclass(slots=True)
class StoreState:
    synced_once: bool = False
    lost_reason: str = ""
    since: float | None = None


@dataclass(slots=True)
class Limit:
    """A peer sent more prefixes than it may: its session is ended."""

    reason: str
    until: float | None
    """When it may come back (monotonic seconds); None: when somebody resets it."""
    limit: MaxPrefix
    """What it broke; another limit gives it another try."""


@dataclass(slots=True)
class Facts:
    """Owns every fact but the learned routes (core/rib/adj_in.py) and the kernel's (core/rib/nexthop.py)."""

    me: Node = field(default_factory=lambda: Node(name=""))
    options: Options = field(default_factory=Options)
    world: World = field(default_factory=World)
    """What peers are worked out from; shares *nodes*."""
    peers: dict[Address, Peer] = field(default_factory=dict)
    """As worked out (core/peers.py), the held ones too."""
    sessions: dict[Address, Session] = field(default_factory=dict)
    """Of every peer that there is, and of what the speaker told of others: an event may come before what explains it."""
    filters: dict[str, Compiled] = field(default_factory=dict)
    filter_users: dict[str, set[Address]] = field(default_factory=dict)
    """Peers by the filters that they name, missing ones too."""
    gateways: dict[Address, Address] = field(default_factory=dict)
    """Peers that are reached by a gateway (reachableBy)."""
    forced: dict[str, Path] = field(default_factory=dict)
    """Nodes whose way an operator has said."""
    limits: dict[Address, Limit] = field(default_factory=dict)
    log_level: str = ""
    """As BGPConfiguration says; empty: it says nothing."""
    drain: Stage = Stage.OFF
    """Graceful shutdown (RFC 8326): all that is announced asks to be avoided, or is withdrawn."""
    drain_keeps_blocks: bool = False
    announce: tuple[StaticPrefix, ...] = ()
    """Of the node's file."""
    health: dict[str, bool] = field(default_factory=dict)
    """What each health check said last."""
    bfd: dict[Address, Told] = field(default_factory=dict)
    """What BFD says of a peer; a peer that is not there is not watched, or nothing is known."""
    pools: dict[str, Pool] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    alive: set[str] = field(default_factory=set)
    blocks: dict[Prefix, Block] = field(default_factory=dict)
    affinities: dict[tuple[Prefix, str], Affinity] = field(default_factory=dict)
    blocks_of: dict[str, set[Prefix]] = field(default_factory=dict)
    """Owned blocks by owner; kept by :meth:`reown`."""
    owner: dict[Prefix, str] = field(default_factory=dict)
    covered: dict[Prefix, set[Prefix]] = field(default_factory=dict)
    """Each shorter prefix of an owned block or borrowed address -> those under it, so that an aggregate finds them without a search."""
    borrower: dict[Prefix, str] = field(default_factory=dict)
    """Addresses (as /32, /128) held by another node than their block's: that node; kept by :meth:`borrow`."""
    borrowed_of: dict[str, set[Prefix]] = field(default_factory=dict)
    """The same by node."""
    usage: Usage = field(default_factory=Usage)
    """What is in use of each pool; kept by :meth:`count` and :meth:`recount`."""
    felix: dict[str, FelixConfiguration] = field(default_factory=dict)
    wireguard_key: str | None = None
    """Public key of this node; None: none was made yet."""
    key_holders: dict[str, set[str]] = field(default_factory=dict)
    """Nodes by the WireGuard key that they name: a copied disk makes two of one."""
    store: StoreState = field(default_factory=StoreState)
    kernel_synced: bool = False
    speaker_up: bool = False
    speaker_since: float | None = None
    speaker_reason: str = "not attached yet"

    def __post_init__(self) -> None:
        self.nodes = self.world.nodes

    def own_node(self) -> Node:
        """Return this node as its file describes it, with the labels and the cluster id of its resource."""
        resource = self.nodes.get(self.me.name)
        if resource is None:
            return self.me
        return msgspec.structs.replace(self.me, labels=resource.labels, cluster_id=resource.cluster_id)

    def felix_of(self, node: str) -> FelixConfiguration:
        """Return the FelixConfiguration that holds for a node."""
        default, own = self.felix.get(DEFAULT, NOTHING_SAID), self.felix.get(NODE + node)
        return default if own is None else own.over(default)

    def hold_key(self, name: str, node: Node | None) -> set[str]:
        """Note the WireGuard key that a node names now, before *nodes* changes; returns the other nodes that this concerns."""
        concerned: set[str] = set()
        before = self.nodes.get(name)
        if before is not None and before.wireguard_key is not None:
            holders = self.key_holders[before.wireguard_key]
            holders.discard(name)
            concerned |= holders
            if not holders:
                del self.key_holders[before.wireguard_key]
        if node is not None and node.wireguard_key is not None:
            holders = self.key_holders.setdefault(node.wireguard_key, set())
            concerned |= holders
            holders.add(name)
        return concerned - {name}

    def as_peer(self, node: Node) -> Node:
        """Return *node* with its WireGuard key only if that is its own: of several that name the same, the first by name has it."""
        if node.wireguard_key is None or min(self.key_holders[node.wireguard_key]) == node.name:
            return node
        return msgspec.structs.replace(node, wireguard_key=None)

    def broken(self, peer: Address) -> str:
        """Say why BFD holds the routes of *peer* for unusable; empty where it does not."""
        session = self.sessions.get(peer)
        return broken(self.bfd.get(peer), session is not None and session.up, session.since if session else None)

    @property
    def router_id(self) -> Address | None:
        """Our BGP identifier."""
        return self.options.router_id or self.me.ipv4_address

    def reown(self, cidr: Prefix) -> set[str]:
        """Recompute who owns *cidr*; returns the nodes concerned (the former owner, the new one).

        Owned means: the block names the node and the node's affinity is confirmed. A pending one counts as absent (calico.md 2.5).
        A block of one address that is borrowed is its borrower's, as that address.
        """
        block = self.blocks.get(cidr)
        new = block.node if block is not None else None
        if new is not None:
            affinity = self.affinities.get((cidr, new))
            if affinity is None or affinity.state is not AffinityState.CONFIRMED or cidr in self.borrower:
                new = None
        old = self.owner.get(cidr)
        if old == new:
            return {new} if new is not None else set()
        if old is not None:
            self.blocks_of[old].discard(cidr)
            if not self.blocks_of[old]:
                del self.blocks_of[old]
            del self.owner[cidr]
        if new is not None:
            self.owner[cidr] = new
            self.blocks_of.setdefault(new, set()).add(cidr)
        self._index(cidr, new is not None)
        return {name for name in (old, new) if name is not None}

    def borrow(self, before: Block | None, after: Block | None) -> dict[Prefix, None]:
        """Take note of who borrows of a block; returns the addresses whose borrower changed. Call it before :meth:`reown`."""
        old = _borrowers(before)
        new = _borrowers(after)
        changed = {prefix: None for prefix in {**old, **new} if old.get(prefix) != new.get(prefix)}
        for prefix in changed:
            if (was := self.borrower.pop(prefix, None)) is not None:
                self.borrowed_of[was].discard(prefix)
                if not self.borrowed_of[was]:
                    del self.borrowed_of[was]
            if (now := new.get(prefix)) is not None:
                self.borrower[prefix] = now
                self.borrowed_of.setdefault(now, set()).add(prefix)
            self._index(prefix, now is not None)
        return changed

    def holder(self, prefix: Prefix) -> str | None:
        """Return the node that a block or a borrowed address is routed to."""
        return self.owner.get(prefix) or self.borrower.get(prefix)

    def holders(self) -> dict[str, None]:
        """Return the nodes that something is routed to."""
        return dict.fromkeys((*self.blocks_of, *self.borrowed_of))

    def pool_of(self, prefix: Prefix) -> Pool | None:
        """Return the pool that covers *prefix*. O(pools), of which a cluster has a handful."""
        return next((pool for pool in self.pools.values() if pool.cidr.covers(prefix)), None)

    def fallback_of(self, pool: Pool | None) -> tuple[Fallback, ...]:
        """Return the kinds that traffic of *pool* may fall back to, in order: its own, else those of the node's file."""
        return self.options.fallback if pool is None or pool.fallback is None else pool.fallback

    def count(self, cidr: Prefix) -> None:
        """Count what is in use of the block *cidr*, where there is one."""
        block = self.blocks.get(cidr)
        if block is None:
            self.usage.forget(cidr)
        else:
            pool = self.pool_of(cidr)
            self.usage.count(cidr, pool.name if pool is not None else "", block.in_use)

    def recount(self) -> None:
        """Count every block anew, after pools have changed. O(blocks)."""
        for cidr in self.blocks:
            self.count(cidr)

    def _index(self, cidr: Prefix, owned: bool) -> None:
        for length in range(1, cidr.length):
            parent = Prefix.of(cidr.network, length)
            if owned:
                self.covered.setdefault(parent, set()).add(cidr)
            elif parent in self.covered:
                self.covered[parent].discard(cidr)
                if not self.covered[parent]:
                    del self.covered[parent]


def _borrowers(block: Block | None) -> dict[Prefix, str]:
    if block is None:
        return {}
    return {Prefix.of(address, address.family.bits): node for address, node in block.borrowed}
