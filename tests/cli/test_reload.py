"""``bgpd reload`` and ``bgpd config check --against-running``: the outcome in words, as JSON, and as the exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.api.fake import FakeViews
from tests.cli.conftest import Bgpd
from tests.cli.test_config import GOOD

pytestmark = pytest.mark.netns


def test_reload_tells_what_has_changed_and_what_waits(bgpd: Bgpd, views: FakeViews) -> None:
    """Each changed value stands with its old and new one, and when it takes effect."""
    result = bgpd("reload")

    assert (0, "") == (result.exit_code, result.stderr)
    assert ["KEY", "BEFORE", "AFTER", "EFFECT"] == result.stdout.splitlines()[0].split()
    assert "peer[tor1].asn  65001   65009  at once" == result.stdout.splitlines()[1]
    assert "node.asn        65101   65102  at the next start" == result.stdout.splitlines()[2]
    assert [False] == views.reloads


def test_dry_run_only_asks(bgpd: Bgpd, views: FakeViews) -> None:
    """With --dry-run nothing is taken over, and the answer says so."""
    view = json.loads(bgpd("reload", "--dry-run", "-o", "json").stdout)

    assert [True] == views.reloads
    assert view["done"] is False
    assert {"key": "peer[tor1].asn", "before": 65001, "after": 65009} == view["changed"][0]
    assert "by `bgpd reload`" in bgpd("reload", "--dry-run").stdout


def test_a_bad_configuration_is_told_whole(bgpd: Bgpd, views: FakeViews) -> None:
    """A configuration that the daemon cannot use ends with status 2 and every defect."""
    views.bad_configuration = "/etc/bgpd/bgpd.toml:3: node.asn: is required\n/etc/bgpd/bgpd.toml:9: ecmp.limit = 0: no"

    result = bgpd("reload")

    assert (2, "") == (result.exit_code, result.stdout)
    assert f"bgpd: {views.bad_configuration}\n" == result.stderr


def test_without_a_daemon(bgpd: Bgpd) -> None:
    """Without a daemon the exit status is 3."""
    assert 3 == bgpd("reload").exit_code


def test_check_against_running(bgpd: Bgpd, run_dir: Path, views: FakeViews) -> None:
    """The check of the file that the daemon reads shows what a reload would change; another file is refused."""
    (run_dir / "bgpd.toml").write_text(GOOD)

    result = bgpd("config", "check", "--against-running")

    assert 2 == result.exit_code
    assert f"the daemon reads /etc/bgpd/bgpd.toml, not {run_dir}/bgpd.toml" in result.stderr
    assert [True] == views.reloads
