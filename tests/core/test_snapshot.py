"""The present facts as events give a fresh pipeline the same tables."""

from __future__ import annotations

import pytest

from bgpd.core.pipeline import Pipeline
from bgpd.core.snapshot import snapshot
from bgpd.model import event as ev
from bgpd.model.bfd import BfdStatus
from bgpd.model.drain import Stage
from bgpd.model.event import Recorded
from bgpd.model.wire import encode
from bgpd.sim.replay import replay
from tests.core import world as w

pytestmark = pytest.mark.core

LOST = [ev.PeerDown(w.TOR1, "hold timer"), ev.BfdChanged(w.TOR2, BfdStatus(diagnostic="silence", failed=True))]
STATES: dict[str, list[ev.Event]] = {
    "empty": [],
    "running": w.whole(),
    "drained": [*w.whole(), ev.DrainChanged(Stage.DRAINED, keep_blocks=True)],
    "broken": [*w.whole(), *LOST],
    "everything": [*w.whole(), *(event for lane in w.resources() for event in lane)],
}


@pytest.mark.parametrize("state", sorted(STATES))
def test_a_snapshot_makes_the_same_tables(state: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Written as a recording and replayed, a snapshot ends in the tables of the daemon that it is of."""
    pipeline = w.feed(Pipeline(), STATES[state])
    w.feed(pipeline, [ev.Tick()], now=10_000.0)
    file = tmp_path / "recording.jsonl"
    lines = [Recorded(20_000.0, event) for event in snapshot(pipeline)]
    file.write_bytes(b"".join(encode(one) + b"\n" for one in lines))

    again = replay(file)

    w.feed(again, [ev.Tick()], now=40_000.0)
    assert w.tables(pipeline) == w.tables(again)
