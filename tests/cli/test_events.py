"""``bgpd events``: what happened, the kinds there are, and the published schema."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from bgpd.cli.main import cli
from bgpd.model.notice import KINDS
from tests.api.fake import EVENTS, FakeViews, serving

pytestmark = pytest.mark.netns


def run(*arguments: str) -> str:
    done = CliRunner().invoke(cli, ["events", *arguments])
    assert 0 == done.exit_code, done.output
    return done.output


def test_events_are_shown_a_line_each(run_dir: Path) -> None:
    """Time, level, name and fields, oldest first; -n says how many; JSON has all of it."""
    with serving(FakeViews(), run_dir / "s"):
        socket = str(run_dir / "s")
        lines = run("--socket", socket).splitlines()
        assert [["peer.established", "peer=192.0.2.1"], ["peer.lost", 'reason="hold', "timer", 'expired"']] == [
            line.split()[3:] for line in lines
        ]
        assert 1 == len(run("--socket", socket, "-n", "1").splitlines())
        assert [event.sequence for event in EVENTS] == [
            event["sequence"] for event in json.loads(run("--socket", socket, "-o", "json"))
        ]


def test_every_kind_is_explained() -> None:
    """--kinds names every event with its meaning; --schema is JSON."""
    shown = run("--kinds")
    assert all(name in shown for name in KINDS)
    assert set(KINDS) == set(json.loads(run("--kinds", "-o", "json")))
    assert "$defs" in json.loads(run("--schema"))
