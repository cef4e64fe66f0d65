"""Well-known communities, and what they forbid: RFC 1997 (NO_EXPORT and its kin), 7999 (BLACKHOLE), 8326 (GRACEFUL_SHUTDOWN), 9494
(LLGR_STALE, NO_LLGR).

Pure predicates over the communities of a route. NO_LLGR forbids to keep a route as long-lived stale; we keep none beyond the restart
time (RFC 4724), so it is honoured by that alone.
"""

from __future__ import annotations

from collections.abc import Collection

GRACEFUL_SHUTDOWN = 0xFFFF0000
LLGR_STALE = 0xFFFF0006
NO_LLGR = 0xFFFF0007
BLACKHOLE = 0xFFFF029A
NO_EXPORT = 0xFFFFFF01
NO_ADVERTISE = 0xFFFFFF02
NO_EXPORT_SUBCONFED = 0xFFFFFF03

_TO_NOBODY = {
    NO_ADVERTISE: "NO_ADVERTISE: it is told to no peer (RFC 1997)",
    LLGR_STALE: "LLGR_STALE: the peer does not take long-lived stale routes (RFC 9494 section 4.3)",
}
_TO_NO_EXTERNAL = {
    NO_EXPORT: "NO_EXPORT: it stays in this AS (RFC 1997)",
    NO_EXPORT_SUBCONFED: "NO_EXPORT_SUBCONFED: it is told to no external peer (RFC 1997)",
    BLACKHOLE: "BLACKHOLE: it stays in this AS (RFC 7999 section 3.2)",
}


def withheld(communities: Collection[int], external: bool) -> str:
    """Say why a route with *communities* must not be passed on to a peer, eBGP if *external*; empty if nothing forbids it.

    For routes learned from a peer. The caller announces its own routes whatever communities it attaches to them: those bind the receiver.
    """
    for community in communities:
        reason = _TO_NOBODY.get(community) or (_TO_NO_EXTERNAL.get(community) if external else None)
        if reason is not None:
            return reason
    return ""


def is_long_lived_stale(communities: Collection[int]) -> bool:
    """Whether the route is kept for a peer that is gone for long: the least preferred (RFC 9494 section 4.3)."""
    return LLGR_STALE in communities


def is_shutting_down(communities: Collection[int]) -> bool:
    """Whether the path will soon be gone, and takes the lowest LOCAL_PREF (RFC 8326 section 4.2)."""
    return GRACEFUL_SHUTDOWN in communities
