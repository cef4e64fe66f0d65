"""Phase 2 of the decision process (RFC 4271 section 9.1.2.2), with equals for ECMP.

A loser keeps the step at which it lost, so that ``explain`` needs no second computation.

Theory of operation: every step but the MED is a number of the path alone, so the steps before it, those after it and the tie-breaks are
three tuples, compared in C; where a tuple first differs from the best one is the step at which its path lost. The tuples that attributes
give are kept with the Candidate, which the caller makes once for all prefixes that share a path. Paths that tie in all of it (``rank``)
are the common case, and go to the tie-break at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from operator import attrgetter

import msgspec

from bgpd.core.rib.adj_in import Path
from bgpd.core.rib.community import is_long_lived_stale, is_shutting_down
from bgpd.core.rib.nexthop import Resolved
from bgpd.model.prefix import Address
from bgpd.model.route import DEFAULT_LOCAL_PREF, Attributes


class Step(StrEnum):
    """Where a path loses, in order."""

    LONG_LIVED_STALE = "long-lived stale"
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


_BEFORE = (Step.LONG_LIVED_STALE, Step.LOCAL_PREF, Step.AS_PATH, Step.ORIGIN)
_AFTER = (Step.EXTERNAL, Step.METRIC)
_TIE = (Step.ROUTER_ID, Step.CLUSTER_LIST, Step.PEER_ADDRESS, Step.PATH_ID)


class Candidate(msgspec.Struct, frozen=True):
    """An eligible path, with what the decision compares; made by :func:`candidate`. In each tuple lower is better."""

    path: Path
    external: bool
    router_id: Address
    """ORIGINATOR_ID if there is one (RFC 4456 section 9), else the peer's router id."""
    resolved: Resolved
    rank: tuple[int, ...]
    """All that follows but the neighbor AS and the tie-breaks: who equals another in it loses no step to it."""
    before: tuple[int, ...]
    """The steps before MED."""
    med: tuple[int, int]
    """Neighbor AS and MED."""
    after: tuple[int, ...]
    tie: tuple[int, ...]


def candidate(
    path: Path, resolved: Resolved, *, external: bool, asn: int, router_id: Address, local_pref: int | None = None
) -> Candidate:
    """Make a candidate of an eligible *path*; *external*, *asn* and *router_id* are the peer's.

    *local_pref* is that of the attributes where import policy has set it: then it counts for an external peer, too.
    The neighbor AS of a path that begins with none is the peer's: on iBGP that is our own (RFC 4271 section 9.1.2.2 c).
    """
    attributes = path.attributes
    identifier = router_id if external else attributes.originator_id or router_id
    stale = is_long_lived_stale(attributes.communities)
    preference = local_preference(attributes, external and local_pref is None)
    before = (stale, -preference, attributes.path_length, int(attributes.origin))
    med = attributes.med or 0
    after = (not external, resolved.metric)
    return Candidate(
        path=path,
        external=external,
        router_id=identifier,
        resolved=resolved,
        rank=(*before, med, *after),
        before=before,
        med=(attributes.neighbor_asn or asn, med),
        after=after,
        tie=(identifier, len(attributes.cluster_list), path.peer, path.path_id),
    )


def local_preference(attributes: Attributes, external: bool) -> int:
    """Return the degree of preference (RFC 4271 section 9.1.1).

    LOCAL_PREF counts on iBGP only, one from an external peer is ignored (section 5.1.5); GRACEFUL_SHUTDOWN lowers it to 0 (RFC 8326).
    """
    if is_shutting_down(attributes.communities):
        return 0
    return DEFAULT_LOCAL_PREF if external or attributes.local_pref is None else attributes.local_pref


class Selection(msgspec.Struct, frozen=True):
    """The outcome for a prefix: best first among the chosen, and each loser's step."""

    chosen: tuple[Candidate, ...] = ()
    lost: tuple[tuple[Candidate, Step], ...] = ()

    @property
    def best(self) -> Candidate | None:
        return self.chosen[0] if self.chosen else None


NOTHING = Selection()


class Rules(msgspec.Struct, frozen=True):
    """Settings of the decision."""

    limit: int = 16
    """ECMP: at most so many paths are used."""
    relax: bool = True
    """Equals may have other AS paths of the same length."""
    always_compare_med: bool = False
    """Compare MEDs of different neighbor ASes, too."""


def select(candidates: Sequence[Candidate], rules: Rules) -> Selection:
    """Choose the best path and its equals up to the limit (RFC 4271 section 9.1.2.2; draft-lapukhov-bgp-ecmp-considerations).

    Equals tie through the metric to the next hop; without *relax* they must also have the best one's AS path. O(n) and a sort of the
    equals. Raises nothing: no candidate is an empty Selection.
    """
    if len(candidates) == 1:
        return Selection((candidates[0],))
    if not candidates:
        return NOTHING
    lost: list[tuple[Candidate, Step]] = []
    left = list(candidates)
    rank = left[0].rank
    for one in left:
        if one.rank != rank:
            left = _eliminate(left, lost, rules.always_compare_med)
            break
    return _share(left, lost, rules)


def _eliminate(left: list[Candidate], lost: list[tuple[Candidate, Step]], across: bool) -> list[Candidate]:
    """Remove from consideration what loses at a step before the tie-breaks."""
    left = _keep_least(left, lost, _BEFORE, _before_of)
    if len(left) > 1:
        left = _compare_med(left, lost, across)
    return _keep_least(left, lost, _AFTER, _after_of)


def _keep_least(
    left: list[Candidate],
    lost: list[tuple[Candidate, Step]],
    steps: tuple[Step, ...],
    rank: Callable[[Candidate], tuple[int, ...]],
) -> list[Candidate]:
    if len(left) == 1:
        return left
    ranks = list(map(rank, left))
    least = min(ranks)
    kept = []
    for one, value in zip(left, ranks, strict=True):
        if value == least:
            kept.append(one)
        else:
            lost.append((one, _step(steps, least, value)))
    return kept


def _share(equals: list[Candidate], lost: list[tuple[Candidate, Step]], rules: Rules) -> Selection:
    """Break the tie for the best, and let it share with its equals."""
    if len(equals) > 1:
        equals.sort(key=_tie_of)
        if not rules.relax:
            path = equals[0].path.attributes.as_path
            lost += [(one, Step.RELAX) for one in equals if one.path.attributes.as_path != path]
            equals = [one for one in equals if one.path.attributes.as_path == path]
        limit = rules.limit
        if len(equals) > limit:
            best = equals[0].tie
            lost += [(one, Step.LIMIT if limit > 1 else _step(_TIE, best, one.tie)) for one in equals[limit:]]
            del equals[limit:]
    return Selection(tuple(equals), tuple(lost))


_before_of = attrgetter("before")
_after_of = attrgetter("after")
_tie_of = attrgetter("tie")


def _compare_med(left: list[Candidate], lost: list[tuple[Candidate, Step]], across: bool) -> list[Candidate]:
    """Drop, within each neighbor AS, what has a MED above the least (step c); a missing MED is 0, the lowest."""
    least: dict[int, int] = {}
    for one in left:
        asn, med = one.med
        group = 0 if across else asn
        least[group] = min(med, least.get(group, med))
    kept = []
    for one in left:
        if one.med[1] > least[0 if across else one.med[0]]:
            lost.append((one, Step.MED))
        else:
            kept.append(one)
    return kept


def _step(steps: tuple[Step, ...], best: tuple[int, ...], other: tuple[int, ...]) -> Step:
    """Return where *other* first differs from *best*, as it does."""
    at = 0
    while best[at] == other[at]:
        at += 1
    return steps[at]
