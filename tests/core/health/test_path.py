"""What BFD says about a peer's path, in the pipeline: routes of a peer whose path fails are unusable at once."""

from __future__ import annotations

import msgspec
import pytest

from bgpd.core.overlay.choose import How
from bgpd.core.pipeline import Pipeline
from bgpd.model import event as ev
from bgpd.model.bfd import BfdSession, BfdState, BfdStatus
from bgpd.model.peer import Notification
from tests.core import world as w

pytestmark = pytest.mark.core

UP = BfdStatus(state=BfdState.UP)
FAILED = BfdStatus(state=BfdState.DOWN, diagnostic="control detection time expired", failed=True)


def running(restart_s: int = 0) -> Pipeline:
    sessions = [
        *w.session(1, w.learned(w.TOR1, w.BLOCK2), restart_s=restart_s),
        *w.session(2, w.learned(w.TOR2, w.BLOCK2), restart_s=restart_s),
    ]
    events = [w.WATCHED, *w.kernel(), *w.store(), ev.StoreSynced(), ev.SpeakerUp(), *sessions]
    return w.feed(Pipeline(), [*events, ev.BfdChanged(w.TOR1, UP), ev.BfdChanged(w.TOR2, UP)])


def how(pipeline: Pipeline) -> tuple[How, list[str]]:
    reached = pipeline.forwarder.reached[w.BLOCK2]
    return reached.how, [leg.device for leg in reached.legs]


def test_each_watched_peer_has_a_session() -> None:
    """A peer with BFD settings makes a BFD session from its local address; one without makes none."""
    pipeline = running()
    assert {
        w.TOR1: BfdSession(local=w.A("10.1.11.1")),
        w.TOR2: BfdSession(local=w.A("10.1.21.1")),
    } == dict(pipeline.tables.bfd.items())
    assert {} == dict(w.running().tables.bfd.items())


def test_one_failed_path_of_two_is_an_ecmp_change_and_both_are_a_fallback() -> None:
    """The routes of a peer whose BFD failed carry nothing; with no other path left the destination moves to the tunnel."""
    pipeline = running()
    assert (How.NATIVE, ["eth1", "eth2"]) == how(pipeline)
    w.feed(pipeline, [ev.BfdChanged(w.TOR1, FAILED)])
    assert (How.NATIVE, ["eth2"]) == how(pipeline)
    w.feed(pipeline, [ev.BfdChanged(w.TOR2, FAILED)])
    assert (How.FALLBACK, ["vxlan.bgpd"]) == how(pipeline)
    assert "BFD is down: control detection time expired" in pipeline.forwarder.reached[w.BLOCK2].reason
    assert pipeline.state.facts.sessions[w.TOR1].up


def test_a_recovered_path_is_used_again() -> None:
    """BFD that comes up again makes the routes usable, which the peer need not send again."""
    pipeline = running()
    w.feed(pipeline, [ev.BfdChanged(w.TOR1, FAILED), ev.BfdChanged(w.TOR1, UP)])
    assert (How.NATIVE, ["eth1", "eth2"]) == how(pipeline)
    assert ["bfd.up", "bfd.up", "bfd.down", "bfd.up"] == [
        notice.name for notice in pipeline.take_notices() if notice.name.startswith("bfd.")
    ]


@pytest.mark.parametrize("status", [None, BfdStatus(), BfdStatus(state=BfdState.ADMIN_DOWN)])
def test_what_is_not_known_to_have_failed_stays_in_use(status: BfdStatus | None) -> None:
    """A BFD process that died, a session that never was up and one that was ended by order say nothing about the path."""
    pipeline = running()
    w.feed(pipeline, [ev.BfdChanged(w.TOR1, status)])
    assert (How.NATIVE, ["eth1", "eth2"]) == how(pipeline)


def test_a_session_established_after_the_failure_proves_the_path() -> None:
    """BGP that comes up after BFD failed carries routes again: BFD that the router does not speak any more blocks nothing."""
    pipeline = running()
    w.feed(pipeline, [ev.BfdChanged(w.TOR1, FAILED), ev.PeerDown(w.TOR1, "hold timer", Notification(4, 0, True))], 5.0)
    assert (How.NATIVE, ["eth2"]) == how(pipeline)
    w.feed(pipeline, w.session(1, w.learned(w.TOR1, w.BLOCK2)), 6.0)
    assert (How.NATIVE, ["eth1", "eth2"]) == how(pipeline)


@pytest.mark.parametrize("independent", [False, True])
@pytest.mark.parametrize("first", ["bfd", "bgp"])
def test_a_graceful_restart_outlives_bfd_unless_bfd_is_independent(independent: bool, first: str) -> None:
    """With the C bit clear BFD dies with the restarting control plane and proves nothing; with it set its failure ends the restart."""
    pipeline = running(restart_s=60)
    failure = ev.BfdChanged(w.TOR1, msgspec.structs.replace(FAILED, independent=independent))
    lost = ev.PeerDown(w.TOR1, "connection closed")
    w.feed(pipeline, [failure, lost] if first == "bfd" else [lost, failure], 5.0)
    assert (How.NATIVE, ["eth2"] if independent else ["eth1", "eth2"]) == how(pipeline)


def test_a_peer_that_goes_takes_its_bfd_session_along() -> None:
    """A peer that is configured no more, or without BFD, wants no BFD session, and what BFD said of it is forgotten."""
    pipeline = running()
    w.feed(pipeline, [ev.BfdChanged(w.TOR1, FAILED), w.CONFIGURED])
    assert ({}, {}) == (dict(pipeline.tables.bfd.items()), pipeline.state.facts.bfd)
    assert (How.NATIVE, ["eth1", "eth2"]) == how(pipeline)
