"""What the stages of the pipeline share: the facts, what was derived from them, what is stale, and the tables they write."""

from __future__ import annotations

from collections import deque

import msgspec

from bgpd.core.facts import Facts
from bgpd.core.rib.adj_in import AdjIn, Path
from bgpd.core.rib.decision import Selection
from bgpd.core.rib.nexthop import Resolver
from bgpd.flow.table import Table
from bgpd.model.bfd import BfdSession
from bgpd.model.forwarding import KernelKey, KernelValue
from bgpd.model.notice import Notice
from bgpd.model.peer import Peer
from bgpd.model.pool import BlockClaim
from bgpd.model.prefix import Address, Prefix
from bgpd.model.route import Announcement

HISTORY = 10_000
"""Changes kept for ``explain``, all prefixes together: some 2 MB."""
KERNEL_TARGET = "kernel"


class Change(msgspec.Struct, frozen=True):
    """An entry of the history: what a prefix became, when (monotonic seconds) and why."""

    at: float
    prefix: Prefix
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
        self.overlay = False
        """The tunnel device depends on something that changed."""
        self.own = False
        """Own blocks, pools or peers changed: announcements and claims."""

    def __bool__(self) -> bool:
        return bool(self.prefixes or self.nodes or self.learned or self.resolution or self.overlay or self.own)


class Tables:
    """The desired states, one a target."""

    def __init__(self) -> None:
        self.kernel: Table[KernelKey, KernelValue] = Table(KERNEL_TARGET)
        self.adj_rib_out: Table[tuple[Address, Prefix], Announcement] = Table("adj-rib-out")
        self.neighbors: Table[Address, Peer] = Table("neighbors")
        self.bfd: Table[Address, BfdSession] = Table("bfd")
        self.claims: Table[str, BlockClaim] = Table("claims")


class State:
    """Owns all of the core's state; the stages own none but their indices."""

    def __init__(self) -> None:
        self.now = 0.0
        """Of the event being handled, monotonic seconds."""
        self.decided = False
        """Law 3: every peer was heard, or its ceiling is over."""
        self.facts = Facts()
        self.adj_in = AdjIn()
        self.resolver = Resolver()
        self.selections: dict[Prefix, Selection] = {}
        self.ineligible: dict[Prefix, tuple[tuple[Path, str], ...]] = {}
        self.stale = Stale()
        self.tables = Tables()
        self.history: deque[Change] = deque(maxlen=HISTORY)
        self.notices: list[Notice] = []

    def note(self, name: str, **fields: str | float | bool | None) -> None:
        """Add a notice."""
        self.notices.append(Notice(name, dict(fields)))

    def remember(self, prefix: Prefix, text: str) -> None:
        """Add to the history."""
        self.history.append(Change(self.now, prefix, text))

    def selection(self, prefix: Prefix) -> Selection:
        return self.selections.get(prefix, Selection())
