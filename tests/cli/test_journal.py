"""``bgpd history``, ``confirm``, ``rollback`` and ``apply --confirm``, on an SQLite store, with no daemon."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bgpd.adapters.store.base import Put, Store
from bgpd.adapters.store.keys import alive_key
from bgpd.adapters.store.sqlite import SqliteStore
from bgpd.cli.main import cli

pytestmark = pytest.mark.adapter

Run = Callable[..., Result]
POOL = "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: main}\nspec: {cidr: 10.65.0.0/24}\n"
NAT = POOL.replace("10.65.0.0/24", "10.65.0.0/24, natOutgoing: true")


@pytest.fixture
def bgpd(tmp_path: Path) -> Run:
    """Run ``bgpd ARGUMENTS`` in this process, as ann, on a store of its own."""

    def run(*arguments: str, stdin: str = "") -> Result:
        environment = {
            "BGPD_STORE": f"sqlite://{tmp_path}/store.db",
            "BGPD_CONFIG": str(tmp_path / "bgpd.toml"),
            "SUDO_USER": "ann",
        }
        return CliRunner().invoke(cli, arguments, prog_name="bgpd", env=environment, input=stdin)

    return run


@pytest.fixture
def watched(tmp_path: Path) -> None:
    """Let a daemon have its lease in the store."""

    async def put() -> None:
        store: Store = SqliteStore(tmp_path / "store.db")
        await store.txn((), (Put(alive_key("node1"), b"{}"),))
        await store.close()

    asyncio.run(put())


def test_history_shows_each_change_and_rollback_takes_it_back(bgpd: Run) -> None:
    """Every command that changes resources is in the history, with author and fields; rollback restores and is told, too."""
    bgpd("apply", "-f", "-", stdin=POOL)
    before = bgpd("get", "ippool", "main", "-o", "json").stdout
    bgpd("label", "ippool", "main", "tier=one")
    bgpd("apply", "-f", "-", stdin=NAT)

    rolled = bgpd("rollback")
    assert (0, "IPPool main: replaced\nchange 3 is rolled back, by change 4\n") == (rolled.exit_code, rolled.stdout)
    assert (0, "change 2 is rolled back, by change 5") == (
        (again := bgpd("rollback")).exit_code,
        again.stdout.splitlines()[-1],
    )

    after, was = (json.loads(text)["spec"] for text in (bgpd("get", "ippool", "main", "-o", "json").stdout, before))
    assert was == after
    table = [line.split("  ") for line in bgpd("history").stdout.splitlines()]
    assert ["NUMBER", "AGE", "WHO", "COMMAND", "CHANGED", "STATE"] == [cell.strip() for cell in table[0] if cell]
    entries = json.loads(bgpd("history", "-o", "json").stdout)
    assert ["apply -f -", "label ippool main tier=one", "apply -f -", "rollback", "rollback"] == [
        entry["title"] for entry in entries
    ]
    assert entries[0]["who"].startswith("ann@")
    assert '+ metadata.labels.tier: "one"' in bgpd("history", "2").stdout


def test_history_and_rollback_of_what_is_not_there(bgpd: Run) -> None:
    """Without changes, and with a number that is none, they say so with exit status 1."""
    bgpd("apply", "-f", "-", stdin=POOL)

    for command in (("history", "9"), ("rollback", "9"), ("confirm",)):
        result = bgpd(*command)
        assert (1, "") == (result.exit_code, result.stdout)
        assert result.stderr.startswith(("bgpd: the journal has no change 9", "bgpd: no change waits"))
    assert 2 == bgpd("rollback", "zero").exit_code


def test_confirm_needs_a_daemon_that_would_take_back(bgpd: Run) -> None:
    """Where no daemon has its lease in the store, apply --confirm writes nothing and says why."""
    result = bgpd("apply", "-f", "-", "--confirm", "60", stdin=POOL)

    assert 1 == result.exit_code
    assert "nobody would take the change back" in result.stderr
    assert "there is no IPPool" in bgpd("get", "ippools").stderr


@pytest.mark.usefixtures("watched")
def test_apply_confirm_and_confirm(bgpd: Run) -> None:
    """The change is told as waiting, in words and JSON; a second one is refused; confirmed, it stands."""
    applied = bgpd("apply", "-f", "-", "--confirm", "600", "-o", "json", stdin=POOL)
    view = json.loads(applied.stdout)
    assert ([["IPPool", "main", "created"]], True, 1) == (view["resources"], view["written"], view["change"])
    assert view["until"] is not None
    assert "to be confirmed within" in bgpd("history").stdout

    second = bgpd("apply", "-f", "-", "--confirm", "600", stdin=NAT)
    assert 1 == second.exit_code
    assert "change 1 waits for its confirmation" in second.stderr

    assert (0, "change 1 is confirmed\n") == ((done := bgpd("confirm")).exit_code, done.stdout)
    assert "confirmed" in bgpd("history").stdout
    assert 2 == bgpd("apply", "-f", "-", "--confirm", "0", stdin=NAT).exit_code


def test_a_dry_run_is_no_change(bgpd: Run) -> None:
    """What is only tried has no entry, and says so in JSON."""
    bgpd("apply", "-f", "-", stdin=POOL)
    view = json.loads(bgpd("apply", "-f", "-", "--dry-run", "-o", "json", stdin=NAT).stdout)

    assert ([["IPPool", "main", "replaced"]], False, None) == (view["resources"], view["written"], view["change"])
    assert 1 == len(json.loads(bgpd("history", "-o", "json").stdout))
