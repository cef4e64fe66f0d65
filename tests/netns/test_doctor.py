"""``bgpd doctor`` beside a real daemon and kernel: its recording replays to the daemon's own tables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bgpd.model.forwarding import RouteKey
from bgpd.sim.replay import replay
from tests.netns.test_daemon import Host, hosts, wait

pytestmark = pytest.mark.netns

__all__ = ["hosts"]


def test_the_recording_of_a_daemon_that_records_nothing_replays(hosts: Callable[..., Host], tmp_path: Path) -> None:
    """State and last events of a running daemon, each replayed, want the routes that the kernel has of it."""
    host = hosts("a")
    host.start()
    wait(host.ready, host)
    wait(lambda: any("blackhole" in route for route in host.routes()), host)
    environment = {**os.environ, "BGPD_SOCKET": str(host.socket), "BGPD_CONFIG": str(host.config)}
    command = ["ip", "netns", "exec", host.netns.name, sys.executable, "-m", "bgpd.cli.main", "doctor"]

    done = subprocess.run(
        [*command, "-o", str(tmp_path / "x.tar.gz")], env=environment, capture_output=True, text=True, check=False
    )

    assert 0 == done.returncode, done.stderr
    subprocess.run(["tar", "-C", str(tmp_path), "-xzf", str(tmp_path / "x.tar.gz")], check=True)
    folder = tmp_path / "bgpd-doctor"
    routes = json.loads((folder / "kernel" / "routes-ipv4.json").read_text())
    blocks = [route["dst"] for route in routes if route.get("type") == "blackhole"]
    assert blocks
    for name in ("recording-state.jsonl", "recording-last.jsonl"):
        tables = replay(folder / name).tables
        assert blocks == [str(key.prefix) for key, _ in tables.kernel.items() if isinstance(key, RouteKey)]
