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


CONFIG = """
[node]
name = "node1"
address = "10.0.0.1/32"
asn = 65001
[store]
url = "memory://"
"""


def test_without_a_broker_only_this_node_answers(run_dir: Path) -> None:
    """--node with this node's name is answered by its daemon; another's is an error that says what is missing."""
    config = run_dir / "bgpd.toml"
    config.write_text(CONFIG)
    with serving(FakeViews(), run_dir / "s"):
        common = ("--socket", str(run_dir / "s"), "--config", str(config))
        assert 2 == len(run("--node", "node1", *common).splitlines())
    done = CliRunner().invoke(cli, ["events", "--node", "node2", *common])
    assert 2 == done.exit_code
    assert "names no broker ([mqtt] host)" in done.output


@pytest.mark.parametrize("arguments", [("--node", "a", "--all-nodes"), ("--node", "+"), ("--node", "")])
def test_a_bad_node_is_refused(arguments: tuple[str, ...]) -> None:
    """A wildcard is no name, and one node is not all."""
    done = CliRunner().invoke(cli, ["events", *arguments])
    assert 2 == done.exit_code
    assert "bgpd: " in done.output


def test_a_broker_that_is_away_is_exit_status_3(run_dir: Path) -> None:
    """A broker that cannot be reached ends the command as an absent daemon does."""
    config = run_dir / "bgpd.toml"
    config.write_text(CONFIG + '[mqtt]\nhost = "127.0.0.1"\nport = 1\n')
    done = CliRunner().invoke(cli, ["events", "--all-nodes", "--config", str(config)])
    assert 3 == done.exit_code
    assert "127.0.0.1:1" in done.output
