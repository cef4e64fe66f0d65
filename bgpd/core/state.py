"""What the stages of the pipeline share: the facts, what was derived from them, what is stale, and the tables they write."""

from __future__ import annotations

from collections import Counter, deque

import msgspec

from bgpd.core.facts import Facts
from bgpd.core.overlay.mtu import Mtu
from bgpd.core.peering.resolve import Sessions
from bgpd.core.rib.adj_in import AdjIn, Path
from bgpd.core.rib.decision import NOTHING, Selection
from bgpd.core.rib.lengths import Lengths
from bgpd.core.rib.nexthop import Resolved, Resolver
from bgpd.core.rib.policy import Exportable
from bgpd.flow.table import Table
from bgpd.model.bfd import BfdSession
from bgpd.model.forwarding import KernelKey, KernelValue
from bgpd.model.notice import Notice
from bgpd.model.peer import Peer
from bgpd.model.pool import BlockClaim, BlockRelease
from bgpd.model.prefix import Address, Family, Prefix
from bgpd.model.route import Announcement

HISTORY = 10_000
"""Changes kept for ``explain``, of all prefixes: some 2 MB. The blocks of a node that change together are one."""
KERNEL_TARGET = "kernel"


class Change(msgspec.Struct, frozen=True):
    """An entry of the history: what prefixes became together, when (monotonic seconds) and why."""

    at: float
    prefixes: tuple[Prefix, ...]
    text: str


class Stale:
    """Owns the keys to recompute, by stage; dicts are ordered sets."""

    def __init__(self) -> None:
        self.prefixes: dict[Prefix, None] = {}
        """To decide."""
        self.nodes: dict[str, None] = {}
        """Whose blocks to forward."""
        self.learned: dict[Prefix, None] = {}
        """Prefixes that BGP alone knows, to forward."""
        self.resolution = False
        """Links or routes of others changed."""
        self.losses = False
        """Peers or next hops may be gone: groups of nodes to take off them before anything is decided."""
        self.overlay = False
        """The tunnel device depends on something that changed."""
        self.own = False
        """Own blocks, pools or settings changed: what is announced, and claims."""
        self.peers: dict[Address, None] = {}
        """To be looked at again: who wins there, and whether it is held."""
        self.policies: dict[Address, None] = {}
        """Peers whose routes, received and sent, are judged anew."""
        self.gateways: dict[Address, None] = {}
        """Peers whose route by a gateway to write."""
        self.exports: dict[Prefix, None] = {}
        """To announce to whoever gets it, or to withdraw."""
        self.exporters: dict[Address, None] = {}
        """Peers that get everything anew."""
        self.pairs: dict[tuple[Address, Prefix], None] = {}
        """The same for one peer."""

    def __bool__(self) -> bool:
        upstream = self.peers or self.policies or self.prefixes or self.resolution or self.losses or self.gateways
        forward = self.nodes or self.learned or self.overlay or self.own
        return bool(upstream or forward or self.exports or self.exporters or self.pairs)


class Tables:
    """The desired states, one a target."""

    def __init__(self) -> None:
        self.kernel: Table[KernelKey, KernelValue] = Table(KERNEL_TARGET)
        self.adj_rib_out: Table[tuple[Address, Prefix], Announcement] = Table("adj-rib-out")
        self.neighbors: Table[Address, Peer] = Table("neighbors")
        self.bfd: Table[Address, BfdSession] = Table("bfd")
        self.claims: Table[str, BlockClaim] = Table("claims")
        self.releases: Table[Prefix, BlockRelease] = Table("releases")


class State:
    """Owns all of the core's state; the stages own none but their indices."""

    def __init__(self) -> None:
        self.now = 0.0
        """Of the event being handled, monotonic seconds."""
        self.decided = False
        """Law 3: every peer was heard, or its ceiling is over."""
        self.facts = Facts()
        self.sessions = Sessions(self.facts.world)
        self.sessions.file_only = True
        self.adj_in = AdjIn()
        self.resolver = Resolver()
        self.selections: dict[Prefix, Selection] = {}
        """Written by :meth:`select` alone."""
        self.selected_lengths = Lengths()
        self.ineligible: dict[Prefix, tuple[tuple[Path, str], ...]] = {}
        """Written by :meth:`refuse` alone."""
        self.refused: Counter[tuple[Address, Family]] = Counter()
        """How many paths of a peer and family are ineligible."""
        self.originated: dict[Prefix, Exportable] = {}
        """What this node announces of its own (core/originate.py)."""
        self.transit: set[Address] = set()
        """Peers that could get learned routes (core/export.py)."""
        self.mtu = Mtu(0, 0, {})
        """As links, pools and settings are now; of none at first."""
        self.wireguard_wanted = False
        """Some pool could use WireGuard: this node needs a key pair."""
        self.stale = Stale()
        self.tables = Tables()
        self.history: deque[Change] = deque(maxlen=HISTORY)
        self.notices: list[Notice] = []

    @property
    def settled(self) -> bool:
        return not (self.sessions or self.stale)

    def resolve(self, path: Path) -> Resolved:
        """Say where the next hop of *path* leads: over a session on one link, a link-local one is on that link."""
        peer, hop = self.facts.peers.get(path.peer), path.next_hop
        if peer is not None and peer.interface and hop.is_link_local:
            return self.resolver.on_link(peer.interface, hop)
        return self.resolver.resolve(hop)

    def note(self, name: str, **fields: str | float | bool | None) -> None:
        """Add a notice."""
        self.notices.append(Notice(name, dict(fields)))

    def remember(self, prefixes: tuple[Prefix, ...], text: str) -> None:
        """Add to the history."""
        self.history.append(Change(self.now, prefixes, text))

    def select(self, prefix: Prefix, selection: Selection | None) -> None:
        """Replace the outcome of the decision for *prefix*; None: no path is eligible."""
        if selection is None:
            if self.selections.pop(prefix, None) is not None:
                self.selected_lengths.remove(prefix)
            return
        if prefix not in self.selections:
            self.selected_lengths.add(prefix)
        self.selections[prefix] = selection

    def refuse(self, prefix: Prefix, refused: tuple[tuple[Path, str], ...]) -> None:
        """Replace which paths of *prefix* are ineligible, and why."""
        if self.ineligible.get(prefix) is refused:
            return
        for path, _ in self.ineligible.pop(prefix, ()):
            self.refused[path.peer, prefix.family] -= 1
        for path, _ in refused:
            self.refused[path.peer, prefix.family] += 1
        if refused:
            self.ineligible[prefix] = refused

    def accepted(self, peer: Address, family: Family) -> int:
        """Return how many routes of *peer* are eligible for the decision. O(1)."""
        return self.adj_in.count(peer, family) - self.refused[peer, family]

    def selection(self, prefix: Prefix) -> Selection:
        return self.selections.get(prefix, NOTHING)
