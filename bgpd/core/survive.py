"""What is left of selections whose paths were just lost, before the decision has come to their prefixes.

Theory of operation: a lost peer is one event and tens of thousands of decisions. Its nodes' groups need not wait for those: a path that was
chosen and is gone is known by its peer (BFD), its next hop, or its absence from the adj-rib-in (as in BGP PIC,
draft-ietf-rtgwg-bgp-pic). Whatever is found here is found again by the decision: this is haste, not another opinion.
"""

from __future__ import annotations

import msgspec

from bgpd.core.rib.decision import Candidate, Selection
from bgpd.core.state import State
from bgpd.model.prefix import Address, Prefix


class Survivors:
    """Owns what was found of peers and next hops in the look under way: a handful of either."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._broken: dict[Address, bool] = {}

    def of(self, prefix: Prefix, selection: Selection) -> Selection | None:
        """Return what is left of the *selection* of *prefix*: itself where nothing was lost.

        None says that it takes the decision: all that was chosen is gone, and a path that had lost may be taken instead.
        """
        left = [self._left(prefix, one) for one in selection.chosen]
        if all(now is one for now, one in zip(left, selection.chosen, strict=True)):
            return selection
        alive = tuple(one for one in left if one is not None)
        if not alive and any(self._left(prefix, one) is not None for one, _ in selection.lost):
            return None
        return Selection(alive)

    def _left(self, prefix: Prefix, candidate: Candidate) -> Candidate | None:
        path = candidate.path
        if self._is_broken(path.peer) or (path.peer, path.path_id) not in self._state.adj_in.paths(prefix):
            return None
        resolved = self._state.resolve(path)
        if resolved is candidate.resolved or resolved == candidate.resolved:
            return candidate
        return msgspec.structs.replace(candidate, resolved=resolved) if resolved.legs else None

    def _is_broken(self, peer: Address) -> bool:
        found = self._broken.get(peer)
        if found is None:
            found = self._broken[peer] = bool(self._state.facts.broken(peer))
        return found
