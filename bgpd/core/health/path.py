"""What BFD says about the way to a peer, and what follows for the routes learned from it (RFC 5882)."""

from __future__ import annotations

import msgspec

from bgpd.model.bfd import BfdSession, BfdStatus
from bgpd.model.peer import Peer


class Told(msgspec.Struct, frozen=True):
    """A state of a BFD session, and since when it is so (monotonic seconds)."""

    status: BfdStatus
    since: float


def session_for(peer: Peer) -> BfdSession | None:
    """Return the BFD session that goes with a BGP session; None where none is asked for."""
    if peer.policy.bfd is None:
        return None
    return BfdSession(
        local=peer.local_address,
        multihop=peer.multihop_ttl > 0 and not peer.interface,
        interface=peer.interface,
        timers=peer.policy.bfd,
    )


def broken(told: Told | None, session_up: bool, session_since: float | None) -> str:
    """Say why routes of the peer are unusable; empty where BFD has nothing against them.

    A BGP session that came up after the failure proves the path, so BFD that a router does not speak any more blocks nothing. With the
    session down, its routes are kept for a graceful restart: a failure ends that only where the neighbor's BFD does not share the fate
    of its control plane (C bit, RFC 5882 section 4.3).
    """
    if told is None or not told.status.failed:
        return ""
    if session_up and session_since is not None and session_since > told.since:
        return ""
    if not session_up and not told.status.independent:
        return ""
    return f"BFD is down: {told.status.diagnostic}"
