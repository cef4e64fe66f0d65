"""How far this node is on its way out of the traffic (RFC 8326), and what is kept of that over a restart."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

TIMEOUT_LIMIT_S = 86_400.0
"""Longest wait for traffic to leave: a day; what still comes then does not leave by itself."""


class Stage(StrEnum):
    """Of a drain, in this order; undrain leads back to the first from anywhere."""

    OFF = "off"
    DRAINING = "draining"
    """Everything is announced with GRACEFUL_SHUTDOWN, so that others are preferred; traffic is waited for to leave."""
    DRAINED = "drained"
    """Nothing is announced; the sessions are up."""


class DrainRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Lead traffic around this node."""

    timeout_s: Annotated[float, msgspec.Meta(ge=0, le=TIMEOUT_LIMIT_S)] = 60.0
    """Wait so long for traffic to leave, then withdraw all the same; 0: withdraw at once."""
    below_pps: Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)] = 100
    """Packets per second received on all uplinks together: fewer count as no traffic. The sessions' own are among them."""
    keep_blocks: bool = False
    """Own blocks and borrowed addresses stay announced with GRACEFUL_SHUTDOWN: their workloads stay reachable."""


class DrainState(msgspec.Struct, frozen=True, kw_only=True):
    """What a restart finds. Times are seconds since the epoch, since they outlive a boot."""

    stage: Stage
    since: float
    request: DrainRequest
    until: float
    """While draining: when all is withdrawn in any case."""
    reason: str = ""
    """Why it was withdrawn: traffic is gone, or the time was over."""
