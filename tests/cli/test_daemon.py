"""The command against a real daemon: its own process in a network namespace of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from bgpd.api.client import Client, Unreachable
from bgpd.api.protocol import AssignRequest
from bgpd.model.view import ExplainView, PeerView, RouteView, StatusView

pytestmark = pytest.mark.netns

COMMAND = [sys.executable, "-m", "bgpd"]
START_LIMIT_S = 30.0
STOP_LIMIT_S = 15.0

CONFIG = """\
[node]
name = "node1"
address = "192.0.2.1/24"
asn = 65101
[store]
url = "sqlite://{dir}/store.db"
[pool]
name = "main"
cidr = "10.42.0.0/16"
[speaker]
runtime_dir = "{dir}/speaker"
[api]
socket = "{dir}/s"
"""


@pytest.fixture(scope="module")
def daemon() -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """A daemon without peers, in a namespace with one address; ends with the module, whatever happens."""
    namespace = f"bgpd-cli-{os.getpid()}"
    with tempfile.TemporaryDirectory(prefix="bgpd-cli-") as name:
        (Path(name) / "bgpd.toml").write_text(CONFIG.format(dir=name))
        subprocess.run(["ip", "netns", "add", namespace], check=True)
        try:
            for words in ("link set lo up", "addr add 192.0.2.1/24 dev lo"):
                subprocess.run(["ip", "-n", namespace, *words.split()], check=True)
            command = ["ip", "netns", "exec", namespace, *COMMAND, "run", "--config", f"{name}/bgpd.toml"]
            with (Path(name) / "log").open("wb") as log, subprocess.Popen(command, stderr=log) as process:
                try:
                    wait_until_ready(Path(name), process)
                    yield Path(name), process
                finally:
                    process.terminate()
                    process.wait(STOP_LIMIT_S)
        finally:
            subprocess.run(["ip", "netns", "delete", namespace], check=True)


def wait_until_ready(directory: Path, process: subprocess.Popen[bytes]) -> None:
    """Poll the daemon until it is ready and holds a block; its log is the reason of a failure."""
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            status = Client(directory / "s").status()
        except Unreachable:
            status = None
        if status is not None and status.phase.name == "ready" and status.blocks_own:
            return
        time.sleep(0.1)
    raise AssertionError((directory / "log").read_text())


def ask(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run an asking command as a process of its own."""
    environment = {**os.environ, "BGPD_SOCKET": str(directory / "s")}
    return subprocess.run(
        [*COMMAND, *arguments], env=environment, capture_output=True, text=True, timeout=START_LIMIT_S, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ("status", StatusView),
        ("peers", list[PeerView]),
        ("routes", list[RouteView]),
        ("explain 10.42.0.1", ExplainView),
        ("explain 10.42.0.0/16", ExplainView),
        ("explain 2001:db8::1", ExplainView),
    ],
)
@pytest.mark.parametrize("form", ["json", "table"])
def test_daemon_answers(
    daemon: tuple[Path, subprocess.Popen[bytes]], arguments: str, kind: type[object], form: str
) -> None:
    """A real daemon answers every reading command, and its JSON is the view."""
    result = ask(daemon[0], *arguments.split(), "-o", form)

    assert result.returncode == 0, result.stderr
    if form == "json":
        msgspec.json.decode(result.stdout, type=kind)


def test_route_of_the_own_block(daemon: tuple[Path, subprocess.Popen[bytes]]) -> None:
    """The daemon's own block is a route, an answer of explain, and a block with an address assigned from it."""
    client = Client(daemon[0] / "s")
    (block,) = client.status().blocks_own

    address = client.assign("w1", "main")
    routes = client.routes()

    assert [(block, "own", "programmed")] == [(view.prefix, view.kind, view.status) for view in routes]
    assert client.explain(address).prefix == block
    assert ask(daemon[0], "routes", block).stdout.startswith(f"prefix   {block}\nreached  own: ")


def test_several_and_explicit_addresses(daemon: tuple[Path, subprocess.Popen[bytes]]) -> None:
    """A handle gets several addresses and keeps them; another gets the very one it asks for; one in use, or of no pool, is refused."""
    client = Client(daemon[0] / "s")
    asked = AssignRequest(handle="several", ipv4=3, attributes={"pod": "web"})
    found = client.assign_all(asked).addresses
    free = found[-1].rpartition(".")[0] + "." + str(int(found[-1].rpartition(".")[2]) + 1)

    assert 3 == len(set(found))
    assert found == client.assign_all(asked).addresses
    assert (free,) == client.assign_all(AssignRequest(handle="very", address=free)).addresses
    taken = ask(daemon[0], "ipam", "assign", "--handle", "other", "--ip", free)
    assert (1, True) == (taken.returncode, "is in use by handle very" in taken.stderr)
    six = ask(daemon[0], "ipam", "assign", "--handle", "other", "-6")
    assert (1, True) == (six.returncode, "no ipv6 pool qualifies" in six.stderr)


def test_unknown_pool_is_refused(daemon: tuple[Path, subprocess.Popen[bytes]]) -> None:
    """An assignment from a pool that does not exist ends with status 1 and a reason."""
    result = ask(daemon[0], "ipam", "assign", "--handle", "w2", "--pool", "other")

    assert (result.returncode, result.stdout) == (1, "")
    assert "other" in result.stderr


def test_daemon_ends_on_sigterm(daemon: tuple[Path, subprocess.Popen[bytes]]) -> None:
    """SIGTERM ends the daemon with status 0, and its socket is gone."""
    directory, process = daemon

    process.send_signal(signal.SIGTERM)

    assert process.wait(STOP_LIMIT_S) == 0
    assert not (directory / "s").exists()
    assert ask(directory, "status").returncode == 3
