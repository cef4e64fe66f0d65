"""A recording replays to the tables it was made with."""

from __future__ import annotations

from pathlib import Path

import pytest

from bgpd.daemon.record import Recorder
from bgpd.model import event as ev
from bgpd.model.peer import Notification
from bgpd.sim.replay import read, replay
from tests.core import world as w

pytestmark = pytest.mark.core


def test_recording_replays_to_the_same_tables(tmp_path: Path) -> None:
    """Every kind of event survives the recording, and folding it again gives the same tables."""
    path = tmp_path / "events.jsonl"
    recorder = Recorder(path)
    events = [
        *w.whole(),
        ev.PeerDown(w.TOR1, "shut down", Notification(6, 2, sent=False, text="maintenance")),
        ev.Tick(),
    ]
    pipeline = w.Pipeline()
    for number, event in enumerate(events):
        recorder.write(event, float(number))
        w.feed(pipeline, [event], now=float(number))
    recorder.close()

    replayed = replay(path)

    assert events == [item.event for item in read(path)]
    assert w.tables(pipeline) == w.tables(replayed)
    assert 0o600 == path.stat().st_mode & 0o777


def test_line_cut_short_by_a_crash_is_left_out(tmp_path: Path) -> None:
    """The last line without its end is ignored; a bad line in the middle is named."""
    path = tmp_path / "events.jsonl"
    recorder = Recorder(path)
    recorder.write(ev.Tick(), 1.0)
    recorder.close()
    whole = path.read_bytes()

    path.write_bytes(whole + b'{"now":2.0,"eve')
    assert [ev.Tick()] == [item.event for item in read(path)]
    path.write_bytes(b"nonsense\n" + whole)
    with pytest.raises(ValueError, match="line 1"):
        list(read(path))
