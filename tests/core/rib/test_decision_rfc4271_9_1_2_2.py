"""The decision, a test a sentence of RFC 4271 section 9.1.2.2 (and 4456 section 9)."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgpd.core.rib.adj_in import Path
from bgpd.core.rib.decision import Candidate, Selection, Step, select
from bgpd.core.rib.nexthop import Resolved
from bgpd.model.forwarding import Leg
from bgpd.model.prefix import Address
from bgpd.model.route import AsSegment, Attributes, Origin, SegmentKind

pytestmark = pytest.mark.core


def path(
    peer: int, asns: tuple[int, ...] = (65101, 65002), *, external: bool = True, metric: int = 0, **changes: object
) -> Candidate:
    """Build a candidate from peer 10.0.0.*peer*."""
    address = Address.parse(f"10.0.0.{peer}")
    attributes = Attributes(next_hop=address, origin=Origin.IGP, as_path=(AsSegment(SegmentKind.SEQUENCE, asns),))
    attributes = msgspec.structs.replace(attributes, **changes)
    resolved = Resolved((Leg("eth0", address),), metric)
    return Candidate(Path(address, 0, attributes, 0.0, 1), external, Address.parse(f"1.1.1.{peer}"), resolved)


def loser(selection: Selection) -> Step:
    """Return the step of the only loser."""
    ((_, step),) = selection.lost
    return step


CASES = [
    (Step.LOCAL_PREF, path(2, external=False, local_pref=200, asns=(1, 2, 3)), path(1, external=False, local_pref=100)),
    (Step.LOCAL_PREF, path(2, external=False, local_pref=101), path(1, external=False)),
    (Step.AS_PATH, path(2, (65101,)), path(1, (65101, 65002))),
    (Step.ORIGIN, path(2, origin=Origin.IGP), path(1, origin=Origin.INCOMPLETE)),
    (Step.MED, path(2, med=10), path(1, med=20)),
    (Step.MED, path(2), path(1, med=1)),
    (Step.EXTERNAL, path(2), path(1, external=False)),
    (Step.METRIC, path(2, metric=5), path(1, metric=10)),
]


@pytest.mark.parametrize(("step", "winner", "other"), CASES)
def test_each_step_prefers_the_better_path(step: Step, winner: Candidate, other: Candidate) -> None:
    """The better path at a step wins in either order, and the loser names the step."""
    for order in ([winner, other], [other, winner]):
        selection = select(order, limit=16, relax=True)

        assert winner == selection.best
        assert step == loser(selection)


def test_local_preference_of_an_external_peer_is_ignored() -> None:
    """LOCAL_PREF received over eBGP does not count (section 5.1.5)."""
    selection = select([path(1), path(2, local_pref=500)], limit=16, relax=True)

    assert 2 == len(selection.chosen)


def test_med_compares_within_a_neighbor_as_only() -> None:
    """A higher MED through another neighbor AS does not lose (step c)."""
    selection = select([path(1, (65101, 1), med=10), path(2, (65102, 1), med=20)], limit=16, relax=True)

    assert 2 == len(selection.chosen)


def test_med_removes_within_each_group_whatever_the_order() -> None:
    """The result of step c does not depend on the order of arrival."""
    paths = [path(1, (65101, 1), med=10), path(2, (65101, 1), med=20), path(3, (65102, 1), med=30)]

    results = {select(list(order), 16, relax=True).chosen for order in itertools.permutations(paths)}

    assert 1 == len(results)
    assert (paths[0], paths[2]) == results.pop()


def test_as_set_counts_as_one() -> None:
    """An AS_SET counts as 1, no matter how many ASes are in the set (step a)."""
    merged = (AsSegment(SegmentKind.SEQUENCE, (65101,)), AsSegment(SegmentKind.SET, (1, 2, 3)))

    selection = select([path(1), path(2, as_path=merged)], limit=16, relax=True)

    assert 2 == len(selection.chosen)


@pytest.mark.parametrize(
    ("step", "better", "worse"),
    [
        (Step.ROUTER_ID, path(1), path(2)),
        (
            Step.CLUSTER_LIST,
            path(2),
            msgspec.structs.replace(path(1, cluster_list=(Address(1),)), router_id=Address.parse("1.1.1.2")),
        ),
        (Step.PEER_ADDRESS, path(1), msgspec.structs.replace(path(2), router_id=Address.parse("1.1.1.1"))),
    ],
)
def test_ties_break_by_router_id_cluster_list_and_peer_address(step: Step, better: Candidate, worse: Candidate) -> None:
    """With one path allowed, ties go by steps f and g (and RFC 4456 section 9 between them)."""
    selection = select([worse, better], limit=1, relax=True)

    assert (better,) == selection.chosen
    assert step == loser(selection)


def test_originator_id_stands_for_the_router_id() -> None:
    """The caller gives ORIGINATOR_ID as router id; the lower one wins (RFC 4456 section 9)."""
    reflected = msgspec.structs.replace(path(1), router_id=Address.parse("9.9.9.9"))

    assert path(2) == select([reflected, path(2)], limit=1, relax=True).best


def test_equals_are_bounded_by_the_limit() -> None:
    """No more than the limit is chosen; the others lost at the limit."""
    selection = select([path(peer) for peer in range(1, 21)], limit=16, relax=True)

    assert 16 == len(selection.chosen)
    assert {Step.LIMIT} == {step for _, step in selection.lost}


def test_without_relax_equals_share_the_as_path() -> None:
    """multipath-relax off keeps paths of the best one's AS path only."""
    selection = select([path(1, (65101, 1)), path(2, (65102, 1)), path(3, (65101, 1))], limit=16, relax=False)

    assert (path(1, (65101, 1)), path(3, (65101, 1))) == selection.chosen
    assert Step.RELAX == loser(selection)


def test_nothing_eligible_selects_nothing() -> None:
    """No candidate is an empty selection, no error."""
    assert Selection() == select([], limit=16, relax=True)


@given(
    st.lists(
        st.tuples(st.integers(1, 250), st.integers(1, 3), st.integers(0, 2), st.booleans()),
        max_size=8,
        unique_by=lambda t: t[0],
    ),
    st.data(),
)
def test_selection_is_a_function_of_the_set(rows: list[tuple[int, int, int, bool]], data: st.DataObject) -> None:
    """Any order of the same paths selects the same, and every path is chosen or lost exactly once."""
    paths = [path(peer, tuple(range(length)), med=med, external=external) for peer, length, med, external in rows]
    shuffled = data.draw(st.permutations(paths))

    first, second = select(paths, 4, relax=True), select(shuffled, 4, relax=True)

    assert first.chosen == second.chosen
    assert set(first.lost) == set(second.lost)
    assert sorted(c.path.peer for c in first.chosen + tuple(c for c, _ in first.lost)) == sorted(
        c.path.peer for c in paths
    )
