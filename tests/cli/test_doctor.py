"""``bgpd doctor``: one archive for a bug report, without any secret, with or without a daemon."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bgpd.cli.main import cli
from tests.api.fake import FakeViews, serving

pytestmark = pytest.mark.adapter

PLANTED = ("hunter2-session", "hunter2-inline", "hunter2-userinfo", "hunter2-etcd", "hunter2-tls-key")
CONFIG = """
[node]
asn = 64512
[store]
url = "etcds://root:hunter2-userinfo@192.0.2.1:2379"
password_file = "{folder}/etcd-password"
key = "{folder}/tls.key"
[secrets]
directory = "{folder}/secrets"
[mqtt]
password = "hunter2-inline"
[[peer]]
name = "tor1"
address = "192.0.2.254"
local_address = "192.0.2.1"
asn = 1
password = {{ name = "fabric", key = "tor1" }}
"""


def planted(folder: Path) -> Path:
    """A configuration with secrets at every place where one could be, right or wrong."""
    (folder / "secrets" / "fabric").mkdir(parents=True)
    (folder / "secrets" / "fabric" / "tor1").write_text("hunter2-session\n")
    (folder / "etcd-password").write_text("hunter2-etcd\n")
    (folder / "tls.key").write_text("hunter2-tls-key\n")
    config = folder / "bgpd.toml"
    config.write_text(CONFIG.format(folder=folder))
    return config


def run(folder: Path, *arguments: str) -> Result:
    environment = {"BGPD_CONFIG": str(folder / "bgpd.toml"), "BGPD_SOCKET": str(folder / "bgpd.sock")}
    return CliRunner().invoke(cli, ["doctor", *arguments], env=environment)


def parts(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {one.name.removeprefix("bgpd-doctor/"): tar.extractfile(one).read() for one in tar}  # type: ignore[union-attr]


def test_no_secret_is_in_the_archive(tmp_path: Path) -> None:
    """Of secrets in files, in keys named like one and in the store's URL none is in any part, though the daemon tells one of them."""
    planted(tmp_path)

    class Leaky(FakeViews):
        def recording(self, what: str):  # type: ignore[no-untyped-def]
            """Tell a secret, as no view should."""
            return iter([b'{"leak": "hunter2-session"}\n'])

    with serving(Leaky(), tmp_path / "bgpd.sock"):
        result = run(tmp_path, "-o", str(tmp_path / "x.tar.gz"))

    assert 0 == result.exit_code, result.output
    found = parts(tmp_path / "x.tar.gz")
    assert [] == [(name, one) for name, octets in found.items() for one in PLANTED if one.encode() in octets]
    assert b'{"leak": "(removed)"}' in found["recording-last.jsonl"]
    config = found["config.toml"].decode()
    assert 'password = "(removed)"' in config
    assert "etcds://(removed)@192.0.2.1" in config
    assert 'password = { name = "fabric", key = "tor1" }' in config
    assert 0o600 == (tmp_path / "x.tar.gz").stat().st_mode & 0o777


def test_all_that_a_daemon_tells_is_in_it(tmp_path: Path) -> None:
    """With a daemon there are its views, its recordings and the kernel's state, each as the API or the kernel says it."""
    planted(tmp_path)
    with serving(FakeViews(), tmp_path / "bgpd.sock"):
        run(tmp_path, "-o", str(tmp_path / "x.tar.gz"))

    found = parts(tmp_path / "x.tar.gz")
    assert "node1" == json.loads(found["status.json"])["node"]
    assert b"one\ntwo\n" == found["recording-state.jsonl"]
    assert any(link["ifname"] == "lo" for link in json.loads(found["kernel/links.json"]))
    assert {"routes.json", "fib.json", "events.json", "kernel/nexthops.json", "kernel/rules-ipv4.json"} <= found.keys()
    versions = json.loads(found["versions.json"])
    assert versions["bgpd"]
    assert versions["exabgp"]


def test_without_a_daemon_it_says_what_is_missing(tmp_path: Path) -> None:
    """No daemon, no configuration: the rest is collected, each missing part is named with its reason, and the status is 0."""
    result = run(tmp_path, "-o", str(tmp_path / "x.tar.gz"), "--json")

    assert 0 == result.exit_code
    view = json.loads(result.stdout)
    assert "no daemon is running here" in view["missing"]["status.json"]
    assert "cannot be read" in view["missing"]["config.toml"]
    assert view["missing"] == json.loads(parts(tmp_path / "x.tar.gz")["missing.json"])
    assert "kernel/links.json" in view["parts"]


def test_an_archive_that_is_there_stays(tmp_path: Path) -> None:
    """An existing file is not overwritten, nothing is left beside it, and the status is 1."""
    archive = tmp_path / "x.tar.gz"
    archive.write_text("mine")

    result = run(tmp_path, "-o", str(archive))

    assert 1 == result.exit_code
    assert "it exists already" in result.stderr
    assert ["x.tar.gz"] == [one.name for one in tmp_path.iterdir()]
    assert "mine" == archive.read_text()
