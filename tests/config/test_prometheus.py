"""The alert rules and the dashboard: parsed by Prometheus' own promtool, and about metrics that there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bgpd.adapters.mqtt.broker import Broker
from bgpd.adapters.mqtt.options import Options
from bgpd.model import event as ev
from tests.core import world as w
from tests.daemon.test_metrics import metrics, watched

pytestmark = pytest.mark.adapter

CONFIG = Path(__file__).parents[2] / "config"
RULES = CONFIG / "prometheus" / "bgpd.rules.yml"
DASHBOARD = CONFIG / "grafana" / "bgpd.json"
UNPACKED = "/var/cache/bgpd/promtool"
"""Where containerlab/prepare puts it."""


def promtool(*arguments: str) -> str:
    """Run promtool; its output, whatever it thinks of what it was given."""
    program = shutil.which("promtool", path=f"{UNPACKED}:/usr/local/bin:/usr/bin")
    assert program is not None, "no promtool: run containerlab/prepare test"
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


def alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def queries() -> Iterator[str]:
    """Every query of the dashboard, with its variables filled in as Grafana does."""
    for panel in panels():
        for target in panel["targets"]:
            yield target["expr"].replace("$job", "bgpd").replace("$instance", ".*")


def shown() -> set[str]:
    """Every series that a daemon in use shows."""
    pipeline = w.feed(watched(), [ev.UpdateMalformed(w.TOR1, ev.Treatment.WITHDRAW, "bad", "ORIGIN")])
    broker = Broker(Options(host="192.0.2.1", port=1883, cluster="c", node="n"), lambda _notice: None)
    one = metrics(pipeline, broker)
    one.compared(0, 0.1)
    return {re.split("[{ ]", line)[0] for line in one.render().decode().splitlines() if not line.startswith("#")}


def test_prometheus_takes_the_rules() -> None:
    """promtool finds no fault in any alert."""
    assert f"SUCCESS: {len(alerts())} rules found" in promtool("check", "rules", str(RULES))


def test_prometheus_takes_every_query_of_the_dashboard(tmp_path: Path) -> None:
    """promtool parses each panel's query, written as a recording rule."""
    rules = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(queries())]
    path = tmp_path / "dashboard.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"SUCCESS: {len(rules)} rules found" in promtool("check", "rules", str(path))


def test_every_metric_that_is_asked_for_exists() -> None:
    """A rule or panel about a series that no daemon shows would be silent for ever."""
    there = shown()
    for query in (*queries(), *(alert["expr"] for alert in alerts())):
        for name in re.findall(r"\bbgpd_\w+", query):
            assert name in there, query


def test_every_metric_that_is_shown_is_on_the_dashboard() -> None:
    """What is worth a series is worth a place where it is looked at."""
    asked = set(re.findall(r"\bbgpd_\w+", " ".join((*queries(), *(alert["expr"] for alert in alerts())))))
    families = {re.sub("_(bucket|sum|count)$", "", name) for name in shown()}
    assert not {name for name in families if not {name, f"{name}_bucket"} & asked}


def test_every_alert_says_what_to_do() -> None:
    """A severity, a summary, a description; names begin with Bgpd and are there once."""
    names = [alert["alert"] for alert in alerts()]
    assert len(set(names)) == len(names)
    for alert in alerts():
        assert re.fullmatch("Bgpd[A-Z][A-Za-z]+", alert["alert"])
        assert alert["labels"]["severity"] in {"page", "ticket"}
        assert {"summary", "description"} == set(alert["annotations"])


SERIES = [
    ('up{job="bgpd",instance="n"}', "0+0x20"),
    ('bgpd_nodes{job="bgpd",instance="n",path="fallback"}', "0 2+0x19"),
    ('bgpd_nodes{job="bgpd",instance="n",path="unreachable"}', "0+0x20"),
    ('bgpd_peer_up{job="bgpd",instance="n",peer="tor1",address="192.0.2.1"}', "1 0+0x19"),
    ('bgpd_peer_up{job="bgpd",instance="n",peer="tor2",address="192.0.2.2"}', "1+0x20"),
    ('bgpd_peer_routes_accepted{job="bgpd",instance="n",peer="tor2",address="192.0.2.2",family="ipv4"}', "0+0x20"),
    ('bgpd_ipam_addresses_in_use{job="bgpd",instance="n",pool="p"}', "250+0x20"),
    ('bgpd_ipam_pool_addresses{job="bgpd",instance="n",pool="p"}', "256+0x20"),
    ('bgpd_kernel_objects_failed{job="bgpd",instance="n"}', "0+0x20"),
]
"""A node that is in trouble: two minutes and more after the first sample."""
FIRES = {"BgpdDown", "BgpdFallback", "BgpdSessionDown", "BgpdNoRoutes", "BgpdPoolNearlyFull"}
SILENT = {"BgpdUnreachable", "BgpdKernelRefuses", "BgpdNoSession"}


def test_alerts_fire_when_they_should(tmp_path: Path) -> None:
    """Prometheus' own evaluation of the rules over a series of samples: those for what happened fire, the others do not."""
    labels = {
        "BgpdDown": {"job": "bgpd", "instance": "n"},
        "BgpdFallback": {"job": "bgpd", "instance": "n", "path": "fallback"},
        "BgpdSessionDown": {"job": "bgpd", "instance": "n", "peer": "tor1", "address": "192.0.2.1"},
        "BgpdNoRoutes": {"job": "bgpd", "instance": "n", "peer": "tor2", "address": "192.0.2.2"},
        "BgpdPoolNearlyFull": {"job": "bgpd", "pool": "p"},
    }
    by_name = {alert["alert"]: alert for alert in alerts()}
    expected = [
        {
            "eval_time": "15m",
            "alertname": name,
            "exp_alerts": [{"exp_labels": {"severity": by_name[name]["labels"]["severity"], **labels[name]}}]
            if name in FIRES
            else [],
        }
        for name in sorted(FIRES | SILENT)
    ]
    rules = yaml.safe_load(RULES.read_text())
    for alert in rules["groups"][0]["rules"]:
        del alert["annotations"]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rules))
    test = {
        "interval": "1m",
        "input_series": [{"series": a, "values": b} for a, b in SERIES],
        "alert_rule_test": expected,
    }
    path = tmp_path / "test.yml"
    path.write_text(yaml.safe_dump({"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": [test]}))
    assert "SUCCESS" in promtool("test", "rules", str(path))
