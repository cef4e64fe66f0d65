"""The decision, a test a sentence of RFC 4271 section 9.1.2.2, with the steps that RFC 4456 section 9, 8326 and 9494 add to it."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgpd.core.rib.adj_in import Path
from bgpd.core.rib.community import GRACEFUL_SHUTDOWN, LLGR_STALE
from bgpd.core.rib.decision import Candidate, Rules, Selection, Step, candidate, select
from bgpd.core.rib.nexthop import Resolved
from bgpd.model.forwarding import Leg
from bgpd.model.prefix import Address
from bgpd.model.route import AsSegment, Attributes, Origin, SegmentKind

pytestmark = pytest.mark.core

OURS = 65000
ONE = Rules(limit=1)


def path(
    peer: int,
    asns: tuple[int, ...] = (65101, 65002),
    *,
    external: bool = True,
    metric: int = 0,
    router_id: int = 0,
    path_id: int = 0,
    **changes: object,
) -> Candidate:
    """Build a candidate from peer 10.0.0.*peer*, whose router id is 1.1.1.*router_id* (or *peer*)."""
    address = Address.parse(f"10.0.0.{peer}")
    attributes = Attributes(next_hop=address, origin=Origin.IGP, as_path=(AsSegment(SegmentKind.SEQUENCE, asns),))
    attributes = msgspec.structs.replace(attributes, **changes)
    return candidate(
        Path(address, path_id, attributes, 0.0, 1),
        Resolved((Leg("eth0", address),), metric),
        external=external,
        asn=65101 if external else OURS,
        router_id=Address.parse(f"1.1.1.{router_id or peer}"),
    )


def lost_at(winner: Candidate, other: Candidate, rules: Rules = ONE) -> Step:
    """Assert that *winner* wins in either order; return the step at which *other* lost."""
    steps = set()
    for order in ([winner, other], [other, winner]):
        selection = select(order, rules)
        assert (winner,) == selection.chosen
        ((loser, step),) = selection.lost
        assert other == loser
        steps.add(step)
    (step,) = steps
    return step


def equal(*paths: Candidate) -> bool:
    """Whether all *paths* share."""
    return len(paths) == len(select(paths, Rules()).chosen)


SET = (AsSegment(SegmentKind.SEQUENCE, (65101,)), AsSegment(SegmentKind.SET, (1, 2, 3)))
CONFED = (AsSegment(SegmentKind.CONFED_SEQUENCE, (64512, 64513)), AsSegment(SegmentKind.SEQUENCE, (65101, 65002)))


# ------------------------------------------------------------------ the degree of preference (sections 9.1.1, 9.1.2)


def test_the_highest_degree_of_preference_wins() -> None:
    """The tie-breaking procedure is for routes of the same degree of preference: a higher LOCAL_PREF wins before all of it."""
    winner = path(2, (1, 2, 3), external=False, local_pref=200, origin=Origin.INCOMPLETE)
    assert Step.LOCAL_PREF == lost_at(winner, path(1, external=False, local_pref=100))


def test_a_missing_local_pref_is_the_default() -> None:
    """Without LOCAL_PREF an internal route has the default, 100."""
    assert Step.LOCAL_PREF == lost_at(path(2, external=False, local_pref=101), path(1, external=False))
    assert Step.LOCAL_PREF == lost_at(path(2, external=False), path(1, external=False, local_pref=99))


def test_local_pref_of_an_external_peer_is_ignored() -> None:
    """LOCAL_PREF received over eBGP does not count (section 5.1.5)."""
    assert equal(path(1), path(2, local_pref=500))


def test_internal_and_external_routes_are_considered_together() -> None:
    """The local speaker considers all routes with the same degree of preference, from internal and from external peers."""
    assert Step.AS_PATH == lost_at(path(2, (65101,), external=False), path(1))


# ------------------------------------------------------------------ a to c


def test_a_the_smallest_number_of_as_numbers() -> None:
    """Step a: removed are all not tied for the smallest number of AS numbers in AS_PATH."""
    assert Step.AS_PATH == lost_at(path(2, (65101,)), path(1))


def test_a_an_as_set_counts_as_one() -> None:
    """Step a: an AS_SET counts as 1, no matter how many ASes are in the set."""
    assert equal(path(1), path(2, as_path=SET))


def test_a_confederation_segments_count_nothing() -> None:
    """Step a: AS_CONFED_SEQUENCE and AS_CONFED_SET are not counted (RFC 5065 section 5.3)."""
    assert equal(path(1, external=False), path(2, as_path=CONFED, external=False))


@pytest.mark.parametrize(("better", "worse"), list(itertools.combinations(sorted(Origin), 2)))
def test_b_the_lowest_origin(better: Origin, worse: Origin) -> None:
    """Step b: removed are all not tied for the lowest Origin number."""
    assert Step.ORIGIN == lost_at(path(2, origin=better), path(1, origin=worse))


def test_c_the_lowest_multi_exit_disc() -> None:
    """Step c: routes with less-preferred MULTI_EXIT_DISC are removed."""
    assert Step.MED == lost_at(path(2, med=10), path(1, med=20))


def test_c_is_comparable_within_a_neighboring_as_only() -> None:
    """Step c: MULTI_EXIT_DISC is only comparable between routes learned from the same neighboring AS."""
    assert equal(path(1, (65101, 1), med=10), path(2, (65102, 1), med=20))


def test_c_a_missing_multi_exit_disc_is_the_lowest() -> None:
    """Step c: routes without MULTI_EXIT_DISC have the lowest possible value, 0."""
    assert Step.MED == lost_at(path(2), path(1, med=1))
    assert equal(path(1), path(2, med=0))


def test_c_the_neighbor_as_of_an_internal_route_is_the_one_it_was_learned_from() -> None:
    """Step c: learned via iBGP, and not originated there, the neighbor AS is the one the other speaker learned it from."""
    assert Step.MED == lost_at(path(2, external=False, med=1), path(1, external=False, med=2))
    assert equal(path(1, (65101, 1), external=False, med=1), path(2, (65102, 1), external=False, med=2))


def test_c_the_neighbor_as_of_a_route_originated_inside_is_ours() -> None:
    """Step c: originated by the other iBGP speaker, or aggregated with AS_PATH empty or begun by an AS_SET, it is the local AS."""
    aggregated = (AsSegment(SegmentKind.SET, (65101, 65102)),)
    originated = path(2, as_path=(), external=False, med=1)
    assert (OURS, 1) == originated.med
    assert Step.MED == lost_at(originated, path(1, as_path=(), external=False, med=2))
    assert (OURS, 2) == path(1, as_path=aggregated, external=False, med=2).med


def test_c_removes_within_each_neighbor_as_whatever_the_order() -> None:
    """Step c: the procedure compares each pair, so the outcome does not depend on the order of arrival."""
    paths = [path(1, (65101, 1), med=10), path(2, (65101, 1), med=20), path(3, (65102, 1), med=30)]

    results = {select(list(order), Rules()).chosen for order in itertools.permutations(paths)}

    assert {(paths[0], paths[2])} == results


def test_c_may_compare_across_neighbor_ases() -> None:
    """The option always_compare_med compares MULTI_EXIT_DISC whatever the neighboring AS."""
    rules = Rules(always_compare_med=True)
    assert Step.MED == lost_at(path(2, (65102, 1), med=10), path(1, (65101, 1), med=20), rules)


# ------------------------------------------------------------------ d to g


def test_d_external_before_internal() -> None:
    """Step d: with a route received via eBGP, all received via iBGP are removed."""
    assert Step.EXTERNAL == lost_at(path(2, metric=50), path(1, external=False))


def test_e_the_least_interior_cost() -> None:
    """Step e: routes with less-preferred interior cost, the metric to the NEXT_HOP, are removed."""
    assert Step.METRIC == lost_at(path(2, metric=5), path(1, metric=10))


def test_e_equal_costs_go_on() -> None:
    """Step e: costs that are equal remove nothing."""
    assert equal(path(1, metric=7), path(2, metric=7))


def test_f_the_lowest_bgp_identifier() -> None:
    """Step f: removed are all but the route advertised by the speaker with the lowest BGP Identifier."""
    assert Step.ROUTER_ID == lost_at(path(2, router_id=1), path(1, router_id=2))


def test_f_originator_id_stands_for_the_identifier() -> None:
    """A reflected route's ORIGINATOR_ID is treated as the BGP Identifier (RFC 4456 section 9)."""
    reflected = path(1, external=False, originator_id=Address.parse("9.9.9.9"))
    assert Step.ROUTER_ID == lost_at(path(2, external=False), reflected)


def test_f_then_the_shortest_cluster_list() -> None:
    """Between f and g: the shorter CLUSTER_LIST is preferred, and a route without has length zero (RFC 4456 section 9)."""
    clusters = (Address.parse("1.0.0.1"),)
    longer = path(1, external=False, router_id=3, cluster_list=clusters)
    assert Step.CLUSTER_LIST == lost_at(path(2, external=False, router_id=3), longer)


def test_g_the_lowest_peer_address() -> None:
    """Step g: the route received from the lowest peer address is preferred."""
    assert Step.PEER_ADDRESS == lost_at(path(1, router_id=9), path(2, router_id=9))


def test_paths_of_one_peer_are_told_apart_by_path_id() -> None:
    """After all steps, two paths of one peer (RFC 7911) tie by the lower path id."""
    assert Step.PATH_ID == lost_at(path(1, path_id=1), path(1, path_id=2))


# ------------------------------------------------------------------ the order of the criteria

LADDER = [
    (Step.LONG_LIVED_STALE, {}, {"communities": (LLGR_STALE,)}),
    (Step.LOCAL_PREF, {"local_pref": 200}, {"local_pref": 100}),
    (Step.AS_PATH, {"asns": (65101,)}, {"asns": (65101, 1)}),
    (Step.ORIGIN, {"origin": Origin.IGP}, {"origin": Origin.EGP}),
    (Step.MED, {"med": 1}, {"med": 2}),
    (Step.METRIC, {"metric": 1}, {"metric": 2}),
    (Step.ROUTER_ID, {"router_id": 1}, {"router_id": 2}),
    (Step.CLUSTER_LIST, {}, {"cluster_list": (Address(1),)}),
]


@pytest.mark.parametrize("at", range(len(LADDER)))
def test_the_criteria_are_applied_in_the_order_specified(at: int) -> None:
    """A path better at one step wins over a path better at every step after it."""
    step, good, bad = LADDER[at]
    winner, loser = dict(good), dict(bad)
    for _, better, worse in LADDER[at + 1 :]:
        winner |= worse
        loser |= better
    winner, loser = {"router_id": 7} | winner, {"router_id": 7} | loser

    assert step == lost_at(path(9, external=False, **winner), path(8, external=False, **loser))


def test_a_single_route_is_chosen_without_criteria() -> None:
    """The algorithm terminates as soon as one route remains."""
    alone = path(1)
    assert Selection((alone,)) == select([alone], ONE)


def test_nothing_eligible_selects_nothing() -> None:
    """No candidate is an empty selection, no error."""
    assert Selection() == select([], ONE)


# ------------------------------------------------------------------ graceful shutdown and long-lived stale


@pytest.mark.parametrize("external", [True, False])
def test_graceful_shutdown_is_the_lowest_preference(external: bool) -> None:
    """A path with GRACEFUL_SHUTDOWN has local preference 0, and wins where it is the only one (RFC 8326 section 4)."""
    leaving = path(1, external=external, communities=(GRACEFUL_SHUTDOWN,), local_pref=300)

    assert Step.LOCAL_PREF == lost_at(path(2, (1, 2, 3), external=external), leaving)
    assert (leaving,) == select([leaving], ONE).chosen


def test_long_lived_stale_is_the_least_preferred() -> None:
    """A path with LLGR_STALE loses against any without it, also against one that is shutting down (RFC 9494 section 4.3)."""
    stale = path(1, external=False, communities=(LLGR_STALE,), local_pref=300)
    leaving = path(2, external=False, communities=(GRACEFUL_SHUTDOWN,))

    assert Step.LONG_LIVED_STALE == lost_at(leaving, stale)
    assert (stale,) == select([stale], ONE).chosen


# ------------------------------------------------------------------ equals


def test_equals_share_up_to_the_limit() -> None:
    """No more than the limit is chosen; the others lost at the limit."""
    selection = select([path(peer) for peer in range(1, 21)], Rules(limit=16))

    assert 16 == len(selection.chosen)
    assert {Step.LIMIT} == {step for _, step in selection.lost}


def test_without_relax_equals_share_the_as_path() -> None:
    """multipath-relax off keeps paths of the best one's AS path only."""
    first, other, same = path(1, (65101, 1)), path(2, (65102, 1)), path(3, (65101, 1))

    selection = select([first, other, same], Rules(relax=False))

    assert (first, same) == selection.chosen
    assert ((other, Step.RELAX),) == selection.lost


@given(
    st.lists(
        st.tuples(st.integers(1, 250), st.integers(1, 3), st.integers(0, 2), st.booleans(), st.integers(0, 1)),
        max_size=8,
        unique_by=lambda t: t[0],
    ),
    st.booleans(),
    st.data(),
)
def test_selection_is_a_function_of_the_set(
    rows: list[tuple[int, int, int, bool, int]], across: bool, data: st.DataObject
) -> None:
    """Any order of the same paths selects the same, and every path is chosen or lost exactly once."""
    paths = [
        path(peer, tuple(range(1, length + 1)), med=med, external=external, metric=metric)
        for peer, length, med, external, metric in rows
    ]
    shuffled = data.draw(st.permutations(paths))
    rules = Rules(limit=4, always_compare_med=across)

    first, second = select(paths, rules), select(shuffled, rules)

    assert first.chosen == second.chosen
    assert set(first.lost) == set(second.lost)
    everybody = [*first.chosen, *(one for one, _ in first.lost)]
    assert sorted(one.path.peer for one in everybody) == sorted(one.path.peer for one in paths)
