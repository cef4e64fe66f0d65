"""What is shown to people: answers of the API, one struct a command. Times are seconds since the epoch, None where never."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import msgspec

from bgpd.model.overlay import ForceView


class PhaseView(msgspec.Struct, frozen=True):
    """Start-up (law 3): store-wait, peers-wait, deciding, programming or ready."""

    name: str
    since: float
    waiting_for: tuple[str, ...] = ()


class DrainView(msgspec.Struct, frozen=True, kw_only=True):
    """How far the node is on its way out of the traffic."""

    stage: str
    """``draining`` or ``drained``."""
    since: float
    until: float | None
    """While draining: when all is withdrawn in any case."""
    traffic_pps: float | None
    """Packets per second received on all uplinks in the last second; None: not measured (yet)."""
    below_pps: int
    """Fewer count as no traffic."""
    keep_blocks: bool
    reason: str
    """Why it was withdrawn: traffic is gone, or the time was over."""
    left: tuple[str, ...]
    """Own blocks and borrowed addresses that are withdrawn, or will be, although workloads use them, and who still reaches those."""


class StatusView(msgspec.Struct, frozen=True, kw_only=True):
    node: str
    asn: int
    router_id: str
    version: str
    pid: int
    started: float
    phase: PhaseView
    store: str
    """``synced`` or ``lost: reason``."""
    store_since: float | None
    speaker: str
    """``attached`` or ``lost: reason``."""
    speaker_since: float | None
    peers_established: int
    peers_configured: int
    blocks_own: tuple[str, ...]
    routes_learned: int
    routes_desired: int
    routes_failed: int
    nodes_native: int
    nodes_fallback: int
    nodes_unreachable: int
    drain: DrainView | None = None
    """None: the node is not drained."""
    forced: tuple[ForceView, ...] = ()
    """Nodes whose way an operator has said."""
    mtu_workload_bytes: int = 0
    """What workloads may send wherever it goes; 0: not known yet."""
    mtu_uplink_bytes: int = 0


class BfdView(msgspec.Struct, frozen=True, kw_only=True):
    """The BFD session with a peer (RFC 5880)."""

    state: str
    """``up``, ``init``, ``down``, ``admin-down``, or ``unknown``."""
    since: float | None
    """When it last failed or recovered."""
    reason: str
    """Why it is not up, and why our packets cannot be sent; empty if neither is the case, or it never was up."""
    detection_time_ms: float
    """Silence of the peer that ends it."""


class Which(StrEnum):
    """Routes of a peer: all that it sent, those that may be chosen, those that may not, and ours to it."""

    RECEIVED = "received"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    ADVERTISED = "advertised"


class FamilyView(msgspec.Struct, frozen=True, kw_only=True):
    """One address family of a session."""

    family: str
    received: int
    accepted: int
    stale: int
    announced: int
    complete: bool
    """End-of-RIB came in this session, or was inferred (RFC 4724 section 2)."""


class PeerView(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    address: str
    asn: int
    local_address: str
    local_asn: int
    state: str
    """``Established``, or why not."""
    since: float | None
    received: int
    """Routes in the adj-rib-in."""
    accepted: int
    """Of these, eligible for the decision."""
    stale: int
    """Kept over a restart of the peer (RFC 4724) and not yet sent again."""
    announced: int
    reason: str
    """Why the last session ended; empty if none did."""
    transitions: int
    hold_time_s: int | None
    router_id: str
    capabilities: tuple[str, ...]
    """Of both sides, as far as used."""
    keepalive_s: int | None = None
    kind: str = "configured"
    """Where the peer comes from: configured, mesh, global, node, reverse or workload."""
    interface: str = ""
    offered: tuple[str, ...] = ()
    """Capabilities of our OPEN."""
    received_capabilities: tuple[str, ...] = ()
    """Capabilities of the neighbor's OPEN, by name or number."""
    families: tuple[FamilyView, ...] = ()
    """Only where one peer was asked for."""
    errors: dict[str, int] = {}
    """Malformed UPDATEs since the daemon's start, by treatment and attribute (RFC 7606)."""
    bfd: BfdView | None = None
    """None: the peer is not watched by BFD."""


class PathView(msgspec.Struct, frozen=True, kw_only=True):
    """A route of an adj-rib-in, with its fate in the decision."""

    peer: str
    next_hop: str
    as_path: str
    origin: str
    med: int | None
    local_pref: int | None
    communities: tuple[str, ...]
    best: bool
    equal: bool
    """Installed beside the best (ECMP)."""
    why_not: str
    """The step at which it lost, or why it is ineligible; empty for best and equals."""
    stale: bool
    since: float | None


class PeerRouteView(msgspec.Struct, frozen=True, kw_only=True):
    """A route of one peer, received or advertised."""

    prefix: str
    path: PathView
    path_id: int = 0
    """RFC 7911; 0 without add-path."""
    status: str
    """``accepted`` or ``rejected: reason``; of ours ``announced``, ``pending`` or ``refused: reason``."""


class RouteView(msgspec.Struct, frozen=True, kw_only=True):
    """A prefix: how it is reached, and what the kernel holds."""

    prefix: str
    kind: str
    """``own``, ``native``, ``direct``, ``tunnel``, ``fallback``, ``unreachable``, ``bgp`` (known only from BGP), ``foreign`` (another's
    route stands), ``waiting`` (start-up) or ``unused`` (no usable path)."""
    node: str
    """Owner of the block; empty where the store knows none."""
    reason: str
    via: tuple[str, ...]
    """Each leg as ``GATEWAY dev DEVICE``."""
    since: float | None
    status: str
    """``programmed``, ``pending`` or ``failed: reason``."""
    paths: tuple[PathView, ...] = ()


class RouteQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which routes to show."""

    after: str | None = None
    """Go on after this prefix: ``RoutePage.next`` of the page before."""
    within: str | None = None
    """Only prefixes inside of this one, or the one that covers this address best."""
    kind: str | None = None
    node: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 50


class RoutePage(msgspec.Struct, frozen=True, kw_only=True):
    rows: tuple[RouteView, ...]
    total: int
    """Of rows that fit, on all pages."""
    next: str | None
    """Where the next page goes on; None: this is the last."""


class NodeView(msgspec.Struct, frozen=True, kw_only=True):
    """A node, and how it is reached from this one."""

    name: str
    asn: int | None
    address: str
    """Of IPv4, else of IPv6; empty where none is known."""
    own: bool
    """It is this one."""
    alive: bool
    """It keeps its lease in the store."""
    path: str
    """The worst way of its blocks: ``native``, ``direct``, ``tunnel``, ``fallback``, ``unreachable``, ``waiting``; empty: it has none."""
    paths: dict[str, int]
    """How many of its blocks and borrowed addresses go each way."""
    via: tuple[str, ...]
    """Legs of the worst way, each as ``GATEWAY dev DEVICE``."""
    reason: str
    since: float | None


class StepView(msgspec.Struct, frozen=True):
    """One hop of a decision, in the order of architecture section 6."""

    step: str
    outcome: str
    detail: tuple[str, ...] = ()


class PacketView(msgspec.Struct, frozen=True, kw_only=True):
    """The route that a packet takes, as ``ip route get`` would say."""

    fate: str
    """``local``, ``unicast``, ``broadcast``, ``multicast``, ``blackhole``, ``unreachable``, ``prohibit`` or ``none``."""
    prefix: str | None
    via: tuple[str, ...]
    """Any of these, each as ``GATEWAY dev DEVICE`` or ``dev DEVICE``."""
    ours: bool


class ExplainView(msgspec.Struct, frozen=True, kw_only=True):
    query: str
    prefix: str | None
    """The longest match that we know of; None where nothing covers the address."""
    answer: str
    """One sentence."""
    steps: tuple[StepView, ...]
    changes: tuple[str, ...]
    """The last changes of whatever covers it, newest first, each with its time and reason."""
    packet: PacketView | None = None
    """None: another node's view, whose kernel is not known here."""


class BlockView(msgspec.Struct, frozen=True, kw_only=True):
    cidr: str
    node: str
    affinity: str
    size: int
    in_use: int


class PoolView(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    cidr: str
    block_size: int
    mode: str
    fallback: str
    size: int
    in_use: int
    free: int
    blocks: tuple[BlockView, ...]
    blocks_count: int = 0
    """Of all nodes, shown or not."""


class FibStatus(StrEnum):
    """Whether the kernel holds what is desired of a route."""

    PROGRAMMED = "programmed"
    PENDING = "pending"
    """To be written at once."""
    FAILED = "failed"
    """Refused; it is tried again with back-off."""
    CONTESTED = "contested"
    """Another keeps changing it; its repair waits."""
    KEPT = "kept"
    """Not desired yet, and there from before (start-up)."""
    STRAY = "stray"
    """Not desired, and about to be removed."""
    NONE = "none"


class FibQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which routes to show."""

    prefix: str | None = None
    """Only what is inside."""
    after: str | None = None
    """Go on after this key: ``FibPage.next`` of the page before."""
    status: FibStatus | None = None
    limit: int = 1000


class FibRow(msgspec.Struct, frozen=True, kw_only=True):
    """An object of ours in the kernel: how it is to be, and how it is."""

    object: str
    """``route``, ``group``, ``nexthop``, ``neighbour``, ``fdb`` or ``device``."""
    key: str
    desired: str
    """Empty: it is not to be there."""
    actual: str
    """Empty: it is not there."""
    status: FibStatus
    reason: str
    since: float | None
    """Since when it fails."""
    retry_at: float | None
    path: str
    """``native``, ``tunnel`` or ``drop``; empty for what is no route."""
    nexthop_id: int | None
    """Of the group that the route points to, in the kernel."""


class FibPage(msgspec.Struct, frozen=True, kw_only=True):
    rows: tuple[FibRow, ...]
    total: int
    """Of rows that fit, on all pages."""
    next: str | None
    """Where the next page goes on; None: this is the last."""


class ChangeView(msgspec.Struct, frozen=True):
    """One value of the configuration that differs; null: not there, or not set. What may be a secret is not shown."""

    key: str
    before: Any
    after: Any


class ReloadView(msgspec.Struct, frozen=True, kw_only=True):
    """What a reload has done, or would do."""

    done: bool
    """False: only looked at."""
    path: str
    """The file that the daemon reads."""
    changed: tuple[ChangeView, ...]
    """Taken over at once."""
    waiting: tuple[ChangeView, ...]
    """Takes effect at the next start of the daemon."""
