"""``bgpd config check`` and the start of ``bgpd run``: good files are summed up, bad ones named with every defect."""

from __future__ import annotations

import configparser
import json
import shlex
from pathlib import Path

import pytest

from bgpd.cli.run import run
from tests.cli.conftest import Bgpd

pytestmark = pytest.mark.netns

ROOT = Path(__file__).parents[2]

GOOD = """\
[node]
name = "node1"
address = "192.0.2.1/32"
asn = 65101

[store]
url = "sqlite:///var/lib/bgpd/store.db"

[pool]
name = "main"
cidr = "10.42.0.0/16"
vxlan_mode = "CrossSubnet"

[[peer]]
name = "tor1"
address = "10.1.1.1"
asn = 65001
local_address = "10.1.1.2"
hold_time_s = 9

[[peer]]
name = "tor2"
address = "10.1.2.1"
asn = 65002
local_address = "10.1.2.2"
passive = true
multihop_ttl = 2
"""

SUMMARY = """\
{path} is good. What it says:

node      node1, AS 65101, router id 192.0.2.1, reached at 192.0.2.1/32
store     sqlite:///var/lib/bgpd/store.db
pool      main 10.42.0.0/16, blocks of /26, VXLAN CrossSubnet, fallback VXLAN; created where the store has none
peers     2
fallback  VXLAN, VNI 4096, UDP port 4789, back to native after 10 to 300 s
ecmp      up to 16 equal paths, through any neighbor AS
start-up  removes nothing for up to 120 s, until all peers have spoken
speaker   ExaBGP in raw mode, in /run/bgpd/speaker
socket    /run/bgpd/bgpd.sock
log       info (or as BGPConfiguration says) and above, as auto

NAME  ADDRESS   PORT     AS  LOCAL ADDRESS  FAMILIES  HOLD S  RESTART S  CONNECTION
tor1  10.1.1.1   179  65001  10.1.1.2       ipv4           9        120  active
tor2  10.1.2.1   179  65002  10.1.2.2       ipv4          90        120  passive, multihop TTL 2
"""

BAD = """\
[node]
name = "node1"
address = "192.0.2.1/32"
asn = 65101
colour = "red"

[pool]
cidr = "10.42.0.1/16"
"""


def test_good_file_is_summed_up(bgpd: Bgpd, run_dir: Path) -> None:
    """A good file is told as what it would start."""
    (run_dir / "bgpd.toml").write_text(GOOD)

    named, by_environment = bgpd("config", "check", str(run_dir / "bgpd.toml")), bgpd("config", "check")

    assert SUMMARY.format(path=run_dir / "bgpd.toml").splitlines() == named.stdout.splitlines()
    assert (named.exit_code, named.stderr) == (0, "")
    assert by_environment.stdout == named.stdout


def test_what_is_beside_the_url_is_told(bgpd: Bgpd, run_dir: Path) -> None:
    """How the store is reached, own labels, and which peer would stay down for its password; nothing of a secret."""
    secret = run_dir / "secret"
    secret.write_text("hush")
    secret.chmod(0o600)
    text = GOOD.replace("asn = 65101", "asn = 65101\nlabels = { rack = 1 }", 1)
    store = f'url = "etcds://etcd.example.org:2379"\nuser = "u"\npassword_file = "{secret}"\nca = "{secret}"'
    text = text.replace('url = "sqlite:///var/lib/bgpd/store.db"', store)
    text += f'password = {{ name = "a", key = "b" }}\n[secrets]\ndirectory = "{run_dir}"\n'
    (run_dir / "bgpd.toml").write_text(text)

    result, as_json = bgpd("config", "check"), bgpd("config", "check", "-o", "json")

    lines = result.stdout.splitlines()
    assert "reached at 192.0.2.1/32, rack=1" in lines[2]
    assert f"etcds://etcd.example.org:2379; as user u, password from {secret}; trusting {secret}" in lines[3]
    assert lines[-1].endswith("passive, multihop TTL 2, password a/b")
    reason = f"password {run_dir}/a/b: the file cannot be read: No such file or directory"
    assert (0, f"bgpd: peer tor2 would stay down: {reason}\n") == (result.exit_code, result.stderr)
    view = json.loads(as_json.stdout)
    assert (str(run_dir / "bgpd.toml"), "u") == (view["path"], view["config"]["store"]["user"])
    assert {"name": "a", "key": "b"} == view["config"]["peer"][1]["password"]
    assert {"peers_learned_ceiling_s": 120.0} == view["config"]["startup"]
    assert "hush" not in result.output + as_json.output


def test_example_is_good(bgpd: Bgpd) -> None:
    """The example configuration in the repository is good."""
    result = bgpd("config", "check", str(ROOT / "config" / "bgpd.toml"))

    assert (result.exit_code, result.stderr) == (0, "")


def test_show_tells_where_each_value_comes_from(bgpd: Bgpd, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each value stands beside its line, its variable or "default", and when a change of it takes effect."""
    (run_dir / "bgpd.toml").write_text(GOOD)
    monkeypatch.setenv("BGPD_ECMP_LIMIT", "4")

    result, as_json = bgpd("config", "show"), bgpd("config", "show", "-o", "json")

    rows = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines()}
    assert (0, "") == (result.exit_code, result.stderr)
    assert ["VALUE", "FROM", "EFFECT"] == rows["KEY"]
    assert ["65101", f"{run_dir}/bgpd.toml:4", "start"] == rows["node.asn"]
    assert ['"10.1.2.1"', f"{run_dir}/bgpd.toml:23", "reload"] == rows["peer[1].address"]
    assert ["4", "BGPD_ECMP_LIMIT", "reload"] == rows["ecmp.limit"]
    assert ["-", "default", "reload"] == rows["mqtt.host"]
    found = {one["key"]: one for one in json.loads(as_json.stdout)["values"]}
    assert found["ecmp.limit"] == {
        "key": "ecmp.limit",
        "value": 4,
        "from": "environment",
        "line": None,
        "variable": "BGPD_ECMP_LIMIT",
        "effect": "reload",
    }
    assert ("file", 4, "start") == tuple(found["node.asn"][name] for name in ("from", "line", "effect"))


def test_show_hides_what_may_be_a_secret(bgpd: Bgpd, run_dir: Path) -> None:
    """A password in the URL of a check is not shown, neither as a table nor as JSON."""
    (run_dir / "bgpd.toml").write_text(GOOD + '[[check]]\nname = "web"\nhttp = "http://u:hush@127.0.0.1/"\n')

    shown = bgpd("config", "show").output + bgpd("config", "show", "-o", "json").output

    assert "hush" not in shown
    assert "//…@127.0.0.1/" in shown


@pytest.mark.parametrize("arguments", [("config", "check"), ("run", "--config")], ids=" ".join)
def test_bad_file_is_named_with_every_defect(bgpd: Bgpd, run_dir: Path, arguments: tuple[str, ...]) -> None:
    """A bad file ends with status 2 and each defect's place; nothing is started."""
    (run_dir / "bad.toml").write_text(BAD)

    result = bgpd(*arguments, str(run_dir / "bad.toml"))

    first, second = result.stderr.splitlines()
    assert (result.exit_code, result.stdout) == (2, "")
    assert first.startswith(f"bgpd: {run_dir}/bad.toml:5: node.colour")
    assert second.startswith(f"{run_dir}/bad.toml:8: pool.cidr")
    assert list(run_dir.iterdir()) == [run_dir / "bad.toml"]


@pytest.mark.parametrize("arguments", [("config", "check"), ("run",)], ids=" ".join)
def test_missing_file(bgpd: Bgpd, run_dir: Path, arguments: tuple[str, ...]) -> None:
    """A missing file ends with status 2 and its name."""
    result = bgpd(*arguments)

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"bgpd: {run_dir}/bgpd.toml: the file does not exist")


def test_record_needs_a_directory(bgpd: Bgpd, run_dir: Path) -> None:
    """A recording into a directory that does not exist is refused before anything starts."""
    (run_dir / "bgpd.toml").write_text(GOOD)

    result = bgpd("run", "--record", str(run_dir / "missing" / "events"))

    assert (result.exit_code, result.stdout) == (2, "")
    assert f"the directory of {run_dir}/missing/events does not exist" in result.stderr


def test_unit_starts_the_command_as_it_is() -> None:
    """The systemd unit calls ``bgpd run`` with options that it has, and keeps exit status 2 from restarting it."""
    unit = configparser.RawConfigParser(strict=False, interpolation=None)
    unit.read(ROOT / "config" / "systemd" / "bgpd.service")
    service = unit["Service"]

    command, name, *arguments = shlex.split(service["ExecStart"])
    context = run.make_context("run", arguments)

    assert (Path(command).name, name) == ("bgpd", "run")
    assert context.params == {"path": Path("/etc/bgpd/bgpd.toml"), "record": None, "attach": True}
    assert (service["Restart"], service["RestartPreventExitStatus"]) == ("on-failure", "2")
