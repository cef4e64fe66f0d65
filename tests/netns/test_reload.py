"""A running daemon that loads its configuration again: peers, prefixes, metrics and the log follow; the kernel's routes stay."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.netns.test_daemon import DEADLINE_S, Host, hosts, wait

__all__ = ["hosts"]  # the fixture
pytestmark = pytest.mark.netns

ANNOUNCE = '\n[[announce]]\nprefixes = ["203.0.113.0/24"]\n'
PEER = """
[[peer]]
name = "tor1"
address = "192.0.2.254"
asn = 65002
local_address = "192.0.2.1"
passive = true
hold_time_s = {hold_s}
"""


def bgpd(host: Host, *command: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "bgpd.cli.main", *command, "--socket", str(host.socket)]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=DEADLINE_S)


def reload(host: Host) -> dict[str, Any]:
    done = bgpd(host, "reload", "-o", "json")
    assert 0 == done.returncode, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def keys(answer: dict[str, Any], name: str) -> set[str]:
    return {one["key"].partition(".")[0] for one in answer[name]}


def entries(host: Host, event: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in host.log.read_text().splitlines() if f'"{event}"' in line]


def scraped(host: Host, port: int, path: str = "metrics") -> bool:
    """Whether somebody answers on *port* in the host's namespace."""
    script = f"import urllib.request as u; u.urlopen('http://127.0.0.1:{port}/{path}', timeout=5)"
    command = ["ip", "netns", "exec", host.netns.name, sys.executable, "-c", script]
    return 0 == subprocess.run(command, capture_output=True, check=False, timeout=DEADLINE_S).returncode


def test_a_reload_takes_over_what_it_can(hosts: Callable[..., Host]) -> None:
    """An announced prefix, a peer, the metrics' port and the log's level follow the file; the node's AS waits; the rest stays."""
    host = hosts("a")
    host.start()
    wait(host.ready, host)
    before, pid, text = host.routes(), host.process and host.process.pid, host.config.read_text()

    changed = text.replace("asn = 65001", "asn = 65009").replace('format = "json"', 'format = "json"\nlevel = "debug"')
    host.config.write_text(
        changed + ANNOUNCE + PEER.format(hold_s=30) + "\n[metrics]\nport = 9179\n[web]\nport = 9190\n"
    )
    answer = reload(host)

    assert {"announce[0]", "peer[tor1]", "metrics", "web", "log"} == keys(answer, "changed")
    assert [{"key": "node.asn", "before": 65001, "after": 65009}] == answer["waiting"]
    wait(lambda: "203.0.113.0/24 blackhole 179" in host.routes(), host)
    assert scraped(host, 9179)
    assert scraped(host, 9190, "")
    peers: Any = host.ask("peers")
    assert ["tor1"] == [peer["name"] for peer in peers]
    assert before == [route for route in host.routes() if "203.0.113.0/24" not in route]

    host.config.write_text(text + PEER.format(hold_s=30) + "\n[metrics]\nport = 9180\n")
    assert {"announce[0]", "metrics", "web", "log"} == keys(reload(host), "changed")

    wait(lambda: before == host.routes(), host)
    assert not scraped(host, 9179)
    assert scraped(host, 9180)
    assert not scraped(host, 9190, "")
    status: Any = host.ask("status")
    assert (65001, pid) == (status["asn"], status["pid"])
    assert 2 == len(entries(host, "configuration.reloaded"))


def test_a_bad_file_changes_nothing(hosts: Callable[..., Host]) -> None:
    """By SIGHUP or by command: a file with a defect, or a port that somebody has, leaves all as it was, and is told."""
    host = hosts("a")
    host.config.write_text(host.config.read_text() + ANNOUNCE + "\n[metrics]\nport = 9179\n[web]\nport = 9191\n")
    host.start()
    wait(host.ready, host)
    before, text = host.routes(), host.config.read_text()
    assert host.process is not None

    host.config.write_text(text.replace("203.0.113.0/24", "203.0.113.0/99") + "[ecmp]\nlimt = 2\n")
    refused = bgpd(host, "reload")
    host.process.send_signal(signal.SIGHUP)
    wait(lambda: 2 == len(entries(host, "configuration.refused")), host)
    script = "import socket, time; s = socket.create_server(('127.0.0.1', 9181)); print('listens', flush=True); time.sleep(600)"
    with host.netns.start(sys.executable, "-c", script) as other:
        assert other.stdout is not None
        assert "listens" in other.stdout.readline()
        host.config.write_text(
            text.replace("9191", "9181").replace("9179", "9191").replace("203.0.113.0/24", "203.0.114.0/24")
        )
        in_use = bgpd(host, "reload")
        other.kill()

    assert 2 == refused.returncode
    first, second = refused.stderr.splitlines()
    assert first.startswith(f"bgpd: {host.config}:")
    assert "announce[0].prefixes" in first
    assert second.endswith("ecmp.limt = 2: unknown key; did you mean 'limit'?")
    assert 2 == in_use.returncode
    assert "web: cannot listen on 127.0.0.1 port 9181" in in_use.stderr
    assert before == host.routes()
    assert scraped(host, 9179)
    assert scraped(host, 9191, "")
    assert [] == entries(host, "configuration.reloaded")

    host.config.write_text(text.replace("203.0.113.0/24", "203.0.114.0/24"))
    host.process.send_signal(signal.SIGHUP)
    wait(lambda: "203.0.114.0/24 blackhole 179" in host.routes(), host)
    wait(lambda: "203.0.113.0/24 blackhole 179" not in host.routes(), host)
    assert 0 == host.end(signal.SIGTERM)


def test_check_against_running_shows_what_a_reload_would_change(hosts: Callable[..., Host]) -> None:
    """The file that the daemon reads is compared with what it runs; nothing is taken over."""
    host = hosts("a")
    host.start()
    wait(host.ready, host)
    host.config.write_text(host.config.read_text() + ANNOUNCE)

    done = bgpd(host, "config", "check", str(host.config), "--against-running")

    assert (0, "") == (done.returncode, done.stderr)
    assert "by `bgpd reload`" in done.stdout
    assert not any("203.0.113" in route for route in host.routes())
    assert {"announce[0]"} == keys(reload(host), "changed")
