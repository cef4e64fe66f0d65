"""``bgpd apply --confirm`` before real daemons: the change is taken back though command and daemon are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.netns.test_daemon import Host, hosts, wait

pytestmark = pytest.mark.netns

__all__ = ["hosts"]

POOL = "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: late}\nspec: {cidr: 10.77.0.0/24}\n"
CONFIRM_S = 5


def bgpd(folder: Path, *command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "BGPD_STORE": f"sqlite:///{folder}/store.db"}
    words = [sys.executable, "-m", "bgpd.cli.main", *command]
    return subprocess.run(words, input=stdin, env=environment, capture_output=True, text=True, check=False, timeout=60)


def pools(folder: Path) -> set[str]:
    return set(bgpd(folder, "get", "ippools", "-o", "name").stdout.split())


def test_a_killed_daemon_takes_it_back_after_its_restart(hosts: Callable[..., Host], tmp_path: Path) -> None:
    """The only daemon is killed while the change waits, and started again: the pool goes, once."""
    host = hosts("a")
    host.start()
    wait(host.ready, host)
    applied = bgpd(tmp_path, "apply", "-f", "-", "--confirm", str(CONFIRM_S), stdin=POOL)
    assert (0, {"ippool/late"}) == (applied.returncode, pools(tmp_path) & {"ippool/late"}), applied.stderr
    wait(lambda: any(line.startswith("10.77.0.") for line in host.routes()), host)
    host.end(signal.SIGKILL)

    host.start()

    wait(lambda: "ippool/late" not in pools(tmp_path), host)
    assert 1 == bgpd(tmp_path, "history").stdout.count("takes back 1")
    assert "change.rolled_back" in host.log.read_text()
