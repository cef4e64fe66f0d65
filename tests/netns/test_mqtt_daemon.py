"""A real daemon tells a real broker: its phase, and after kill -9 its last will."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.netns.test_daemon import Host, wait

pytestmark = pytest.mark.netns

MQTT = """
[mqtt]
host = "127.0.0.1"
cluster = "lab"
"""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    one = Host("a", tmp_path, "node1", "10.0.0.1")
    conf = tmp_path / "mosquitto.conf"
    conf.write_text("listener 1883 127.0.0.1\nallow_anonymous true\nuser root\n")
    broker = one.netns.start("mosquitto", "-c", str(conf))
    try:
        one.config.write_text(one.config.read_text() + MQTT)
        yield one
    finally:
        broker.terminate()
        broker.wait(10)
        assert broker.stdout is not None
        broker.stdout.close()
        one.close()


def heard(host: Host, topic: str) -> dict[str, Any]:
    """Return what the broker has retained of *topic*, or an empty dict."""
    command = ("mosquitto_sub", "-t", f"bgpd/lab/node1/{topic}", "-C", "1", "-W", "2")
    try:
        return dict(json.loads(host.netns.execute(*command)))
    except RuntimeError:
        return {}


def asked_of_broker(host: Host, *arguments: str) -> str:
    """Run ``bgpd events`` on the broker of the daemon's configuration, in its namespace."""
    return host.netns.execute(sys.executable, "-m", "bgpd.cli.main", "events", "--config", str(host.config), *arguments)


def test_the_broker_knows_how_the_daemon_is(host: Host) -> None:
    """Online and ready while it runs, offline after kill -9, ready after its return; ``bgpd events`` shows what it knows."""
    host.start()
    wait(host.ready, host)
    wait(lambda: heard(host, "status").get("phase") == "ready", host)
    events = host.ask("events")
    assert isinstance(events, list)
    assert {"phase.entered", "block.claimed"} <= {event["event"] for event in events}
    wait(
        lambda: all(word in asked_of_broker(host, "--node", "node1") for word in ("phase=ready", "block.claimed")), host
    )
    host.end(signal.SIGKILL)
    wait(lambda: heard(host, "status").get("state") == "offline", host)
    wait(lambda: "node1  offline" in asked_of_broker(host, "--node", "node1"), host)
    told = asked_of_broker(host, "--all-nodes", "-n", "100")
    assert all(word in told for word in ("phase.entered", "block.claimed"))
    assert all(
        json.loads(row)["message"]["node"] == "node1"
        for row in asked_of_broker(host, "--node", "node1", "-o", "json").splitlines()
    )
    follower = host.netns.start(
        sys.executable,
        "-m",
        "bgpd.cli.main",
        "events",
        "--config",
        str(host.config),
        "--node",
        "node1",
        "-n0",
        "--follow",
    )
    host.start()
    wait(lambda: heard(host, "status").get("phase") == "ready", host)
    assert follower.stdout is not None
    line = ""
    while "phase=ready" not in line:
        line = follower.stdout.readline()
        assert line, "the follower ended"
    assert line.startswith("node1  ")
    follower.terminate()
    follower.wait(10)
    follower.stdout.close()
