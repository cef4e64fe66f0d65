"""Ways to remote nodes as people see them, and what an operator may force (``bgpd overlay``)."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

FORCE_LIMIT_S = 604_800.0
"""Longest time that a forced way holds where one is said: a week."""
PROBES_LIMIT = 20
INTERVAL_LIMIT_MS = 200
"""With PROBES_LIMIT and the wait for the last answer: what fits into one request."""
_NAME = Annotated[str, msgspec.Meta(min_length=1, max_length=253)]


class Path(StrEnum):
    """A way that traffic to a node may be forced to."""

    NATIVE = "native"
    VXLAN = "vxlan"
    IPIP = "ipip"
    WIREGUARD = "wireguard"
    AUTO = "auto"
    """The table of decisions."""


class ForceRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Send traffic to a node by a way, whatever its pools say; AUTO ends that."""

    node: _NAME
    path: Path
    for_s: Annotated[float, msgspec.Meta(gt=0, le=FORCE_LIMIT_S)] | None = None
    """None: until it is ended."""


class Force(msgspec.Struct, frozen=True):
    """What a restart finds."""

    path: Path
    until: float | None
    """Seconds since the epoch; None: until it is ended."""


class ForceView(msgspec.Struct, frozen=True):
    node: str
    path: str
    until: float | None


class CandidateView(msgspec.Struct, frozen=True, kw_only=True):
    """A way to a node, for the first of its blocks."""

    path: str
    usable: bool
    in_use: bool
    via: tuple[str, ...] = ()
    mtu_bytes: int = 0
    """Longest packet that fits; 0: not known."""
    reason: str = ""
    """Why it cannot be taken, or is not allowed; empty where nothing is in its way."""


class CounterView(msgspec.Struct, frozen=True, kw_only=True):
    """What the kernel has counted."""

    of: str
    """``nexthop`` (of this node's group, kernels from 6.9) or ``device`` (all nodes together)."""
    name: str
    sent_packets: int
    sent_bytes: int | None = None
    received_packets: int | None = None
    received_bytes: int | None = None
    errors: int | None = None
    """Both directions, dropped ones included."""


class OverlayView(msgspec.Struct, frozen=True, kw_only=True):
    """How one remote node is reached."""

    node: str
    address: str
    alive: bool
    path: str
    """Worst of the ways that its blocks go; empty where it has none."""
    reason: str
    via: tuple[str, ...]
    since: float | None
    blocks: dict[str, int]
    """How many blocks and borrowed addresses go which way."""
    mtu_bytes: int
    candidates: tuple[CandidateView, ...]
    forced: str = ""
    forced_until: float | None = None
    counters: tuple[CounterView, ...] = ()


class ProbeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Probe a node by each way."""

    node: _NAME
    count: Annotated[int, msgspec.Meta(ge=1, le=PROBES_LIMIT)] = 5
    interval_ms: Annotated[int, msgspec.Meta(ge=10, le=INTERVAL_LIMIT_MS)] = 100


class ProbeView(msgspec.Struct, frozen=True, kw_only=True):
    """What came back of the probes by one way."""

    path: str
    device: str
    sent: int
    received: int
    min_ms: float | None = None
    avg_ms: float | None = None
    max_ms: float | None = None
    reason: str = ""
    """Why it could not be probed, or how the last probe failed."""

    @property
    def loss_percent(self) -> float:
        return 100.0 * (self.sent - self.received) / self.sent if self.sent else 100.0
