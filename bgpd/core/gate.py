"""Which peers the start waits for, before anything may be removed (law 3).

A peer is waited for until it has sent End-of-RIB for each of its families, or is known to be down: held down by us; BFD says so, which
tests the path itself (RFC 5882); or every attempt to connect has been refused or led nowhere for UNREACHABLE_S. The last is a weaker sign,
since a router whose BGP restarts refuses connections and forwards on (RFC 4724): it counts only once another peer was heard, so that
traffic has a way.
"""

from __future__ import annotations

from bgpd.core.facts import Facts, Session
from bgpd.model.peer import Peer
from bgpd.model.prefix import Address

UNREACHABLE_S = 10.0
"""Longer than a router's BGP process takes to listen again after a crash (seconds), shorter than a restart time (RFC 4724: 120 s)."""


def awaited(facts: Facts, now: float) -> list[Peer]:
    """Return the peers that the start still waits for."""
    silent = {address: peer for address, peer in facts.peers.items() if not _heard(peer, facts.sessions[address])}
    some_heard = len(silent) < len(facts.peers)
    return [
        peer
        for address, peer in silent.items()
        if not _held_down(facts, address, peer) and not (some_heard and _unreachable(facts.sessions[address], now))
    ]


def deadlines(facts: Facts, now: float) -> list[float]:
    """Return when peers that refuse connections will have done so for long enough (monotonic seconds)."""
    since = (session.unreachable_since for session in facts.sessions.values())
    return [at + UNREACHABLE_S for at in since if at is not None and at + UNREACHABLE_S > now]


def _heard(peer: Peer, session: Session) -> bool:
    return set(peer.families) <= session.learned_once


def _held_down(facts: Facts, address: Address, peer: Peer) -> bool:
    told = facts.bfd.get(address)
    return bool(peer.policy.hold_reason) or (told is not None and told.status.failed and not facts.sessions[address].up)


def _unreachable(session: Session, now: float) -> bool:
    return session.unreachable_since is not None and now >= session.unreachable_since + UNREACHABLE_S
