"""A real daemon tells a real broker: its phase, and after kill -9 its last will."""

from __future__ import annotations

import json
import signal
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


def test_the_broker_knows_how_the_daemon_is(host: Host) -> None:
    """Online and ready while it runs, offline after kill -9; ``bgpd events`` shows the same events without a broker."""
    host.start()
    wait(host.ready, host)
    wait(lambda: heard(host, "status").get("phase") == "ready", host)
    events = host.ask("events")
    assert isinstance(events, list)
    assert {"phase.entered", "block.claimed"} <= {event["event"] for event in events}
    host.end(signal.SIGKILL)
    wait(lambda: heard(host, "status").get("state") == "offline", host)
