"""Bidirectional Forwarding Detection as configured and as told of (RFC 5880)."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from bgpd.model.peer import Bfd
from bgpd.model.prefix import Address


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
    problem: str = ""
    """Why our packets cannot be sent; empty if they are."""
    detection_time_ms: float = 0.0
