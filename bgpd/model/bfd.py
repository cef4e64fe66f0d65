"""Bidirectional Forwarding Detection as configured and as told of (RFC 5880)."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from bgpd.model.prefix import Address


class Bfd(msgspec.Struct, frozen=True, kw_only=True):
    """Timers of a session. The neighbor has a say too: the slower of both wishes counts."""

    min_tx_ms: int = 300
    """Least time between our packets, 50 to 60000."""
    min_rx_ms: int = 300
    """Least time between packets of the neighbor that we can take, 50 to 60000."""
    multiplier: int = 3
    """Packets in a row that may be lost before the path counts as down, 1 to 255."""


class BfdSession(msgspec.Struct, frozen=True, kw_only=True):
    """A session that is wanted with a neighbor, whose address is its identity."""

    local: Address
    multihop: bool = False
    """RFC 5883, port 4784; else RFC 5881 on the link."""
    interface: str = ""
    """The link, where the address alone does not say it (link-local)."""
    timers: Bfd = Bfd()


class BfdState(StrEnum):
    """State of a session (RFC 5880 section 6.2)."""

    ADMIN_DOWN = "admin-down"
    DOWN = "down"
    INIT = "init"
    UP = "up"


class BfdStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a session."""

    state: BfdState = BfdState.DOWN
    diagnostic: str = ""
    """Why it is not up, in the words of RFC 5880 section 4.1; empty where it never was."""
    failed: bool = False
    """It was up, and went down by silence or because the neighbor hears nothing: the path does not work. A neighbor that
    was told to end BFD (AdminDown) is no failure (RFC 5882 section 3.2)."""
    independent: bool = False
    """The neighbor's BFD outlives its control plane (C bit): a failure ends a graceful restart (RFC 5882 section 4.3)."""
    detection_time_ms: float = 0.0
