"""``bgpd check host`` in namespaces of a real kernel: each finding is found, said how to be mended, and mended where it can be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bgpd.sim.namespace import Namespace
from tests.netns.kernel_world import DEADLINE_S, make_space

pytestmark = pytest.mark.netns

CONFIG = """
[node]
name = "a"
address = "10.1.0.1/24"
asn = 65000
[pool]
cidr = "10.65.0.0/16"
"""


@pytest.fixture
def space() -> Iterator[Namespace]:
    made = make_space(f"bgpdck{os.getpid()}")
    for name in ("all", "default", "up0", "up1", "far0", "far1", "lo"):
        made.execute("sysctl", "-qw", f"net.ipv4.conf.{name}.rp_filter=0")
    made.execute("sysctl", "-qw", "net.ipv4.ip_forward=0")
    yield made
    made.close()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "bgpd.toml"
    path.write_text(CONFIG)
    return path


def check(space: Namespace, config: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = ["ip", "netns", "exec", space.name, sys.executable, "-m", "bgpd.cli.main", "check", "host"]
    command += ["--config", str(config), "--socket", "/nonexistent/s", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=DEADLINE_S)


def findings(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    return {finding["subject"]: finding for finding in json.loads(done.stdout)["findings"]}


@pytest.mark.vm
def test_settings_are_found_and_fixed(space: Namespace, config: Path) -> None:
    """No forwarding and a strict filter are errors; ``--fix`` sets them, says so, and how to keep them; then all is good."""
    space.execute("sysctl", "-qw", "net.ipv4.conf.up1.rp_filter=1")
    before = check(space, config, "-o", "json")

    assert 1 == before.returncode
    found = findings(before)
    assert "error" == found["net.ipv4.ip_forward"]["level"]
    assert "sysctl -w net.ipv4.ip_forward=1" == found["net.ipv4.ip_forward"]["mend"]
    assert "1 (strict)" in found["net.ipv4.conf.up1.rp_filter"]["text"]
    assert "ok" == found["nexthop objects"]["level"]
    assert "ok" == found["vxlan links"]["level"]
    assert "ok" == found["other routing daemons"]["level"]
    assert "net.ipv4.conf.up0.rp_filter" not in found
    assert "sysctl -w net.ipv4.fib_multipath_hash_policy=1" == found["net.ipv4.fib_multipath_hash_policy"]["mend"]
    assert "the monitor may have its 64 MB anyway" in found["net.core.rmem_max"]["text"]
    assert {"ok", "warning"} >= {found[f"{kind} links"]["level"] for kind in ("ipip", "wireguard")}

    fixed = check(space, config, "--fix")

    assert 0 == fixed.returncode
    lines = fixed.stdout.splitlines()
    assert "set net.ipv4.ip_forward=1" in lines
    kept = lines[lines.index("Until the next boot. To keep it, put into /etc/sysctl.d/90-bgpd.conf:") + 1 :]
    assert {"net.ipv4.ip_forward = 1", "net.ipv4.conf.up1.rp_filter = 2", "net.ipv4.nexthop_compat_mode = 0"} <= set(
        kept
    )
    assert "1" == space.execute("sysctl", "-n", "net.ipv4.ip_forward").strip()
    assert "2" == space.execute("sysctl", "-n", "net.ipv4.conf.up1.rp_filter").strip()
    assert "links" not in "".join(line for line in kept)
    assert 0 == check(space, config).returncode


def test_looking_changes_nothing(space: Namespace, config: Path) -> None:
    """Links, routes and settings are as before, though kinds of links were tried."""

    def state() -> tuple[str, str, str]:
        return (
            space.ip("link"),
            space.ip("route", "show", "table", "all"),
            space.execute("sysctl", "net.ipv4.ip_forward"),
        )

    before = state()
    check(space, config)
    assert before == state()


def test_other_owners_are_found(space: Namespace, config: Path) -> None:
    """Another that marks routes as ours do, and a daemon with routes inside our pool, are errors that name it and an example."""
    space.execute("sysctl", "-qw", "net.ipv4.ip_forward=1")
    for command in (
        "route add 10.65.3.0/26 via 10.1.0.2 proto bird",
        "route add 192.0.2.0/24 via 10.1.0.2 proto bird",
        "nexthop add id 7 via 10.1.0.2 dev up0 proto 179",
        "route add 198.51.100.0/24 nhid 7 proto 179",
    ):
        space.ip(*command.split())

    done = check(space, config, "-o", "json")

    assert 1 == done.returncode
    found = findings(done)
    assert "BIRD (1) has routes inside our pools, such as 10.65.3.0/26" in found["other routing daemons"]["text"]
    assert "export none" in found["other routing daemons"]["mend"]
    marked = found["protocol number 179"]
    assert ("error", "kernel.protocol") == (marked["level"], marked["mend"].split(": ")[1].split()[0])
    assert "another marks 1 routes and 1 nexthops with it (such as route 198.51.100.0/24)" in marked["text"]


def test_a_table_that_no_rule_leads_to_is_found(space: Namespace, config: Path) -> None:
    """Routes in a table of our own are of no use without a rule: it is an error that says both ways to mend it; either mends it."""
    space.execute("sysctl", "-qw", "net.ipv4.ip_forward=1")
    config.write_text(CONFIG + "[kernel]\ntable = 1000\n")
    before = check(space, config, "-o", "json")

    assert 1 == before.returncode
    found = findings(before)["rules of ipv4"]
    assert ("error", "none leads to table 1000 (kernel.table): no packet takes our routes") == (
        found["level"],
        found["text"],
    )
    assert "kernel.rule_priority = 1000 in bgpd.toml, or ip -4 rule add priority 1000 table 1000" == found["mend"]

    space.ip("rule", "add", "priority", "900", "table", "1000")
    assert (
        "a rule of priority 900 leads to table 1000"
        == findings(check(space, config, "-o", "json"))["rules of ipv4"]["text"]
    )
    space.ip("rule", "delete", "priority", "900")
    config.write_text(CONFIG + "[kernel]\ntable = 1000\nrule_priority = 800\n")
    assert "ok" == findings(check(space, config, "-o", "json"))["rules of ipv4"]["level"]


@pytest.mark.vm
def test_kinds_that_the_kernel_lacks_are_named(space: Namespace, config: Path) -> None:
    """A kind of link that the kernel has not is said with the module to load; only one that is needed is an error."""
    space.execute("sysctl", "-qw", "net.ipv4.ip_forward=1")
    found = findings(check(space, config, "-o", "json"))

    for kind in ("vxlan", "ipip", "wireguard"):
        there = kind_is_there(space, kind)
        assert ("ok" if there else "warning") == found[f"{kind} links"]["level"]
        assert there or f"modprobe {kind}" in found[f"{kind} links"]["mend"]


def kind_is_there(space: Namespace, kind: str) -> bool:
    """Ask ``ip`` the same: it calls a kind that the kernel has not unknown."""
    words = ["id", "7", "dstport", "4789"] if kind == "vxlan" else ["local", "10.1.0.1"] if kind == "ipip" else []
    try:
        space.ip("link", "add", "probe0", "type", kind, *words)
    except RuntimeError as error:
        return "Unknown device type" not in str(error)
    space.ip("link", "delete", "probe0")
    return True
