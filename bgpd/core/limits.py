"""How many routes of each limited peer are accepted, and what happens at the limit (``bgpd.io/max-prefix``).

What import policy refuses does not count, so that a filter is a remedy. One route more than the limit ends the session, which
stays down for the restart time, or until somebody resets it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from bgpd.core.facts import Limit
from bgpd.core.state import State
from bgpd.model.peer import MaxPrefix
from bgpd.model.prefix import Address, Prefix


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
