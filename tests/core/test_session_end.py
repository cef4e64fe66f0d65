"""What the end of a session does to its routes (RFC 4724, RFC 8538)."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from bgpd.core.pipeline import Pipeline
from bgpd.model import event as ev
from bgpd.model.forwarding import RouteKey
from bgpd.model.peer import GracefulRestart, Notification
from bgpd.model.prefix import Family
from tests.core import world as w

pytestmark = pytest.mark.core

NATIVE = w.learned(w.TOR1, w.BLOCK2)


@pytest.mark.parametrize(
    ("agreed", "ending", "kept"),
    [
        (False, None, True),
        (False, Notification(6, 4, sent=False), False),
        (True, Notification(6, 4, sent=False), True),
        (True, Notification(4, 0, sent=True), True),
        (True, Notification(6, 2, sent=False, hard=True), False),
    ],
)
def test_routes_outlive_a_notification_only_where_that_was_agreed(
    agreed: bool, ending: Notification | None, kept: bool
) -> None:
    """RFC 8538: with the N bit of both sides routes are kept over any NOTIFICATION but a hard reset; without it over none."""
    pipeline = w.feed(Pipeline(), [w.CONFIGURED, *w.kernel(), *w.store(), ev.StoreSynced(), ev.SpeakerUp()])
    opened = replace(w.opened(1), graceful_restart=GracefulRestart(120, families=(Family.IPV4,), notification=agreed))
    w.feed(pipeline, [ev.PeerUp(w.TOR1, opened), NATIVE, ev.EndOfRib(w.TOR1, Family.IPV4), *w.session(2)])
    assert RouteKey(w.BLOCK2) in pipeline.tables.kernel

    w.feed(pipeline, [ev.PeerDown(w.TOR1, "ended", ending)], now=10.0)

    assert kept == bool(pipeline.state.adj_in.count(w.TOR1))
