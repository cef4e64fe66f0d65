"""Phase 2 of the decision process (RFC 4271 section 9.1.2.2), with equals for ECMP.

A loser keeps the step at which it lost, so that ``explain`` needs no second computation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum

import msgspec

from bgpd.core.rib.adj_in import Path
from bgpd.core.rib.nexthop import Resolved
from bgpd.model.prefix import Address
from bgpd.model.route import DEFAULT_LOCAL_PREF


class Step(StrEnum):
    """Where a path loses, in order."""

    LOCAL_PREF = "lower local preference"
    AS_PATH = "longer AS path"
    ORIGIN = "worse origin"
    MED = "higher MED from the same neighbor AS"
    EXTERNAL = "iBGP, the best is eBGP"
    METRIC = "higher metric to the next hop"
    ROUTER_ID = "higher router id"
    CLUSTER_LIST = "longer cluster list"
    PEER_ADDRESS = "higher peer address"
    PATH_ID = "higher path id"
    LIMIT = "beyond the ECMP limit"
    RELAX = "another AS path, and multipath-relax is off"


class Candidate(msgspec.Struct, frozen=True):
    """An eligible path, with what the decision compares and its attributes do not hold."""

    path: Path
    external: bool
    router_id: Address
    """ORIGINATOR_ID if there is one (RFC 4456 section 9), else the peer's router id."""
    resolved: Resolved


class Selection(msgspec.Struct, frozen=True):
    """The outcome for a prefix: best first among the chosen, and each loser's step."""

    chosen: tuple[Candidate, ...] = ()
    lost: tuple[tuple[Candidate, Step], ...] = ()

    @property
    def best(self) -> Candidate | None:
        return self.chosen[0] if self.chosen else None


# Lower is better in each. MED is not among them: it compares only within a neighbor AS.
_BEFORE_MED: tuple[tuple[Step, Callable[[Candidate], int]], ...] = (
    (Step.LOCAL_PREF, lambda c: -_local_pref(c)),
    (Step.AS_PATH, lambda c: c.path.attributes.path_length),
    (Step.ORIGIN, lambda c: c.path.attributes.origin),
)
_AFTER_MED: tuple[tuple[Step, Callable[[Candidate], int]], ...] = (
    (Step.EXTERNAL, lambda c: not c.external),
    (Step.METRIC, lambda c: c.resolved.metric),
)
_TIE_BREAK: tuple[tuple[Step, Callable[[Candidate], int]], ...] = (
    (Step.ROUTER_ID, lambda c: c.router_id),
    (Step.CLUSTER_LIST, lambda c: len(c.path.attributes.cluster_list)),
    (Step.PEER_ADDRESS, lambda c: c.path.peer),
    (Step.PATH_ID, lambda c: c.path.path_id),
)


def select(candidates: Sequence[Candidate], limit: int, relax: bool) -> Selection:
    """Choose the best path and up to *limit* equals (RFC 4271 section 9.1.2.2; draft-lapukhov-bgp-ecmp-considerations).

    Equals tie through the metric to the next hop; without *relax* they must also have the best one's AS path. O(n) a step.
    Raises nothing: no candidate is an empty Selection.
    """
    if len(candidates) == 1:
        return Selection((candidates[0],))
    lost: list[tuple[Candidate, Step]] = []
    left = list(candidates)
    for step, rank in _BEFORE_MED:
        left = _keep_least(left, step, rank, lost)
    left = _compare_med(left, lost)
    for step, rank in _AFTER_MED:
        left = _keep_least(left, step, rank, lost)
    if not left:
        return Selection()
    equals = sorted(left, key=lambda c: tuple(rank(c) for _, rank in _TIE_BREAK))
    best, chosen = equals[0], [equals[0]]
    for other in equals[1:]:
        if not relax and other.path.attributes.as_path != best.path.attributes.as_path:
            lost.append((other, Step.RELAX))
        elif len(chosen) >= limit:
            lost.append((other, Step.LIMIT if limit > 1 else _tie_step(best, other)))
        else:
            chosen.append(other)
    return Selection(tuple(chosen), tuple(lost))


def _keep_least(
    left: list[Candidate], step: Step, rank: Callable[[Candidate], int], lost: list[tuple[Candidate, Step]]
) -> list[Candidate]:
    if len(left) < 2:
        return left
    ranks = [rank(candidate) for candidate in left]
    least = min(ranks)
    lost.extend((candidate, step) for candidate, value in zip(left, ranks, strict=True) if value != least)
    return [candidate for candidate, value in zip(left, ranks, strict=True) if value == least]


def _compare_med(left: list[Candidate], lost: list[tuple[Candidate, Step]]) -> list[Candidate]:
    """Drop, within each neighbor AS, what has a MED above the least (step c); a missing MED is 0, the lowest."""
    if len(left) < 2:
        return left
    least: dict[int | None, int] = {}
    for candidate in left:
        asn, med = candidate.path.attributes.neighbor_asn, candidate.path.attributes.med or 0
        least[asn] = min(med, least.get(asn, med))
    kept = []
    for candidate in left:
        attributes = candidate.path.attributes
        if (attributes.med or 0) > least[attributes.neighbor_asn]:
            lost.append((candidate, Step.MED))
        else:
            kept.append(candidate)
    return kept


def _tie_step(best: Candidate, other: Candidate) -> Step:
    return next(step for step, rank in _TIE_BREAK if rank(best) != rank(other))


def _local_pref(candidate: Candidate) -> int:
    """LOCAL_PREF counts on iBGP only: one from an external peer is ignored (RFC 4271 section 5.1.5)."""
    value = candidate.path.attributes.local_pref
    return DEFAULT_LOCAL_PREF if value is None or candidate.external else value
