"""How many routes of each limited peer are accepted, and what happens at the limit (``bgpd.io/max-prefix``).

What import policy refuses does not count, so that a filter is a remedy. One route more than the limit ends the session with Cease,
Maximum Number of Prefixes Reached (RFC 4486 section 4), and it stays down for the restart time, or until somebody resets it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from bgpd.core.facts import Limit
from bgpd.core.state import State
from bgpd.model.peer import MaxPrefix, Notification, Peer
from bgpd.model.prefix import Address, Family, Prefix

_CEASE: Final = 6
_TOO_MANY: Final = 1
_AFI: Final = {Family.IPV4: 1, Family.IPV6: 2}


def over(peer: Peer) -> Notification:
    """Return what ends the session of a peer beyond its limit: it names the limit where the session carries one family (RFC 4486)."""
    limit, families = peer.policy.max_prefix, peer.families
    data = b""
    if limit is not None and len(families) == 1:
        data = _AFI[families[0]].to_bytes(2, "big") + b"\1" + limit.limit.to_bytes(4, "big")
    return Notification(_CEASE, _TOO_MANY, sent=True, data=data)


class Limits:
    """Owns the counts, and who was told to be near its limit; a peer without a limit costs nothing."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._limited: dict[Address, MaxPrefix] = {}
        self._accepted: Counter[Address] = Counter()
        self._counted: dict[Prefix, tuple[Address, ...]] = {}
        self._near: set[Address] = set()

    @property
    def any(self) -> bool:
        """Whether anything is, or was, to be counted."""
        return bool(self._limited or self._counted)

    def begin(self) -> None:
        """Look who is limited, before prefixes are decided. O(peers)."""
        now = {
            address: peer.policy.max_prefix
            for address, peer in self._state.facts.peers.items()
            if peer.policy.max_prefix is not None
        }
        lowered = [address for address, limit in now.items() if self._limited.get(address, limit) != limit]
        self._limited = now
        for address in lowered:
            self._check(address)

    def count(self, prefix: Prefix, accepted: Iterable[Address]) -> None:
        """Take note of whose routes to *prefix* are accepted, one entry a path."""
        now = tuple(peer for peer in accepted if peer in self._limited)
        before = self._counted.get(prefix, ())
        if now == before:
            return
        if now:
            self._counted[prefix] = now
        else:
            del self._counted[prefix]
        self._accepted.subtract(before)
        self._accepted.update(now)
        for peer in {*before, *now}:
            self._check(peer)

    def _check(self, peer: Address) -> None:
        limit, accepted = self._limited.get(peer), self._accepted[peer]
        if limit is None:
            return
        is_near = bool(limit.warn_percent) and accepted * 100 >= limit.limit * limit.warn_percent
        if is_near and peer not in self._near:
            self._state.note("peer.near_limit", peer=str(peer), routes=accepted, limit=limit.limit)
        (self._near.add if is_near else self._near.discard)(peer)
        facts = self._state.facts
        if accepted <= limit.limit or peer in facts.limits:
            return
        until = self._state.now + limit.restart_s if limit.restart_s else None
        reason = f"it sent {accepted} routes, and its limit is {limit.limit}"
        facts.limits[peer] = Limit(reason, until, limit)
        self._state.stale.peers[peer] = None
