"""BFD on wish: with what a BGPPeer names, routers and other nodes, by its annotation; and what is told of it."""

from __future__ import annotations

import pytest

from bgpd.core.resource.annotations import parse_bfd
from bgpd.model import event as ev
from bgpd.model.bfd import BfdSession, BfdState, BfdStatus
from bgpd.model.bgp import BgpPeer
from bgpd.model.peer import Bfd
from tests.core import world as w

pytestmark = pytest.mark.core

FAST = Bfd(min_tx_ms=100, min_rx_ms=100, multiplier=5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("true", Bfd()), ("false", None), ("100ms,5", FAST), ("1s", Bfd(min_tx_ms=1000, min_rx_ms=1000))],
)
def test_the_annotation_says_interval_and_multiplier(text: str, expected: Bfd | None) -> None:
    """true is 300 ms x 3, false is none, and one interval is that of both directions."""
    assert expected == parse_bfd(text)


@pytest.mark.parametrize("text", ["", "yes", "10ms", "61s", "300ms,0", "300ms,256", "300ms,x", "100ms,5,1", "1.5ms"])
def test_what_no_session_can_have_is_refused(text: str) -> None:
    """Intervals below 50 ms or above 60 s, and multipliers out of a byte, are refused."""
    with pytest.raises(ValueError, match="must be"):
        parse_bfd(text)


def test_a_peer_that_is_a_node_gets_a_multihop_session() -> None:
    """peerSelector with the annotation: BFD runs with the other nodes' own addresses (RFC 5883), and ends with the wish."""
    peer = BgpPeer(name="nodes", peer_selector="all()", bfd=FAST)
    pipeline = w.feed(w.running(), [ev.BgpPeerChanged(peer)])

    wanted = BfdSession(local=w.A("10.0.0.1"), multihop=True, timers=FAST)
    found = {
        address: one for address, one in pipeline.tables.bfd.items() if address in (w.A("10.0.0.2"), w.A("10.0.0.3"))
    }
    assert dict.fromkeys((w.A("10.0.0.2"), w.A("10.0.0.3")), wanted) == found

    w.feed(pipeline, [ev.BgpPeerChanged(BgpPeer(name="nodes", peer_selector="all()"))])
    assert 0 == len(pipeline.tables.bfd)


def test_packets_that_cannot_be_sent_are_told_once() -> None:
    """A problem of sending is a notice when it begins or changes, not with each state."""
    mute = BfdStatus(state=BfdState.DOWN, problem="packets cannot be sent: Operation not permitted")
    pipeline = w.running()
    pipeline.take_notices()
    w.feed(pipeline, [ev.BfdChanged(w.TOR1, mute), ev.BfdChanged(w.TOR1, mute)])

    assert ["bfd.mute"] == [notice.name for notice in pipeline.take_notices()]
