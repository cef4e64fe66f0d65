"""Labs on the real kernel: what up makes, and that down leaves nothing of it, whatever stopped up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from bgpd.cli.lab import lab as command
from bgpd.lab import run, state

pytestmark = pytest.mark.lab

DEADLINE_S = 30.0

SMALL = """
name: {name}
topology:
  defaults: {{kind: linux}}
  nodes:
    a:
      image: alpine
      sysctls: {{net.ipv4.ip_forward: 1}}
      binds: ["conf:/etc/bgpd-lab-test/conf:ro", "store:/var/lib/bgpd-lab-test"]
      exec:
        - ip address add 10.0.0.0/31 dev eth1
        - sh -c 'echo mine > /etc/bgpd-lab-test-mark; echo $HOSTNAME_SET > /tmp/env'
      env: {{HOSTNAME_SET: "yes"}}
    b:
      image: alpine
      cmd: sleep 1000
      binds: ["store:/var/lib/bgpd-lab-test"]
      exec: [ip address add 10.0.0.1/31 dev eth1, {last}]
  links:
    - endpoints: ["a:eth1", "b:eth1"]
"""


def eventually(what: Callable[[], bool], why: str) -> None:
    """Poll until it is so."""
    deadline = time.monotonic() + DEADLINE_S
    while not what():
        assert time.monotonic() < deadline, why
        time.sleep(0.05)


def remains(name: str) -> list[str]:
    """Everything of a lab that is still on this machine."""
    found = [str(path) for path in Path("/run/netns").glob(f"clab-{name}-*")]
    if state.directory(name).exists():
        found.append(str(state.directory(name)))
    found += [line for line in Path("/proc/mounts").read_text().splitlines() if name in line]
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if f"clab-{name}-a".encode() in words or f"clab-{name}-b".encode() in words:
            found.append(f"process {place.name}")
    return found


@pytest.fixture
def name() -> Iterator[str]:
    """A lab name of this test, taken down at its end whatever happened."""
    unique = f"t{os.getpid()}"
    yield unique
    run.down(unique, print)


def write(tmp_path: Path, name: str, last: str = "'true'") -> Path:
    """The small topology, with the files it binds."""
    (tmp_path / "conf").write_text("shown\n")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / ".gitignore").touch()
    file = tmp_path / "small.clab.yml"
    file.write_text(SMALL.format(name=name, last=last))
    return file


def test_up_makes_what_the_file_says_and_down_leaves_nothing(tmp_path: Path, name: str) -> None:
    """Links carry packets, binds and sysctls are there, nodes share what they both bind, and the host's files stay as they were."""
    before = {path.name for path in Path("/etc").iterdir()}
    made = run.up(write(tmp_path, name), os.environ, print)
    a, b = made.node("a"), made.node("b")

    assert "shown\n" == run.inside(a, ["cat", "/etc/bgpd-lab-test/conf"]).stdout
    assert "yes\n" == run.inside(a, ["cat", "/tmp/env"]).stdout
    assert "a\n" == run.inside(a, ["uname", "-n"]).stdout
    assert "1\n" == run.inside(a, ["cat", "/proc/sys/net/ipv4/ip_forward"]).stdout
    assert "0\n" == run.inside(b, ["cat", "/proc/sys/net/ipv4/ip_forward"]).stdout
    assert " 0% packet loss" in run.inside(a, ["ping", "-c", "2", "-i", "0.1", "10.0.0.1"]).stdout
    run.inside(a, ["touch", "/var/lib/bgpd-lab-test/common"])
    assert "common\n" == run.inside(b, ["ls", "/var/lib/bgpd-lab-test"]).stdout
    eventually(
        lambda: "sleep 1000" in run.inside(b, ["sh", "-c", "cat /proc/*/cmdline | tr '\\0' ' '"]).stdout, "no sleep"
    )
    assert before == {path.name for path in Path("/etc").iterdir()}
    assert [".gitignore"] == [path.name for path in (tmp_path / "store").iterdir()]

    assert run.down(name, print)
    assert [] == remains(name)
    assert not run.down(name, print)


def test_second_up_is_refused(tmp_path: Path, name: str) -> None:
    """A lab that is up is not brought up again: exit 2, naming the way out, and it stays as it is."""
    file = write(tmp_path, name)
    run.up(file, os.environ, print)

    result = CliRunner().invoke(command, ["up", str(file)])

    assert 2 == result.exit_code
    assert f"bgpd lab down {name}" in result.stderr
    assert "up" == run.status(name)[0].state


def test_failed_exec_takes_everything_down(tmp_path: Path, name: str) -> None:
    """A command of the file that fails ends the lab: it is named, and nothing is left."""
    result = CliRunner().invoke(command, ["up", str(write(tmp_path, name, last="ip link set nowhere up"))])

    assert 1 == result.exit_code
    assert "b: ip link set nowhere up: exit 1" in result.stderr
    assert [] == remains(name)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_up_that_was_ended_half_way_is_taken_down(tmp_path: Path, name: str, number: signal.Signals) -> None:
    """After an end by signal half way nothing is left; after SIGKILL, which nobody can answer, down sees to it."""
    file = write(tmp_path, name, last="sleep 50")
    code = "from bgpd.cli.lab import lab; lab()"
    root = Path(run.__file__).parents[2]
    # A shell's background jobs are born with SIGINT ignored: a test run in one is no reason to ignore it here.
    command = ["env", "--default-signal=INT", sys.executable, "-c", code, "up", str(file)]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL) as maker:
        eventually(lambda: len(list(Path("/run/netns").glob(f"clab-{name}-*"))) == 2, "no namespaces")
        eventually(lambda: b"sleep\x0050" in b"\n".join(commands()), "no exec")
        maker.send_signal(number)
        maker.wait(DEADLINE_S)

    if number == signal.SIGKILL:
        assert "broken" == run.status(name)[0].state
        assert run.down(name, print)
    assert [] == remains(name)


def commands() -> Iterator[bytes]:
    """Command lines of all processes."""
    for place in Path("/proc").glob("[0-9]*"):
        try:
            yield (place / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue


def test_killed_service_is_started_again_on_request(tmp_path: Path, name: str) -> None:
    """A node outlives its services; begin starts what is not running."""
    made = run.up(write(tmp_path, name), os.environ, print)
    b = made.node("b")
    find = ["sh", "-c", "grep -lx 'Name:[[:space:]]*sleep' /proc/[0-9]*/status | cut -d/ -f3"]
    eventually(lambda: bool(run.inside(b, find).stdout.split()), "no sleep")
    (first,) = run.inside(b, find).stdout.split()

    run.inside(b, ["sh", "-c", f"kill -9 {first}"])
    eventually(lambda: not run.inside(b, find).stdout.split(), "sleep lives")
    run.begin(b)

    eventually(lambda: bool(run.inside(b, find).stdout.split()), "sleep is not started again")
    assert "sleep ended with -9" in (state.logs(name, "b") / "sleep.log").read_text()


def test_status_and_exec_by_command(tmp_path: Path, name: str) -> None:
    """The command shows nodes and logs, runs a command in a node and passes its status on."""
    run.up(write(tmp_path, name), os.environ, print)

    shown = CliRunner().invoke(command, ["status", name, "-o", "json"])
    (view,) = msgspec.json.decode(shown.output, type=tuple[run.LabView, ...])
    assert ("up", ["a", "b"]) == (view.state, [node.name for node in view.nodes])
    assert all(Path(log).exists() for node in view.nodes for log in node.logs)
    assert 7 == CliRunner().invoke(command, ["exec", "--lab", name, "a", "--", "sh", "-c", "exit 7"]).exit_code
    assert 2 == CliRunner().invoke(command, ["exec", "--lab", name, "c", "--", "true"]).exit_code
    assert 2 == CliRunner().invoke(command, ["status", "no-such-lab"]).exit_code


ROUTERS = """
name: {name}
topology:
  defaults: {{kind: linux}}
  nodes:
    a:
      image: frrouting/frr
      binds: ["frr.conf:/etc/frr/frr.conf", "daemons:/etc/frr/daemons"]
      exec: [ip address add 10.0.0.0/31 dev eth1]
    b:
      image: bird
      binds: ["bird.conf:/etc/bird/bird.conf"]
      exec: [ip address add 10.0.0.1/31 dev eth1]
  links:
    - endpoints: ["a:eth1", "b:eth1"]
"""


def test_frr_and_bird_start_and_peer(tmp_path: Path, name: str) -> None:
    """Debian's FRR and BIRD run in a lab with the configurations the file binds, answer vtysh and birdc, and reach Established."""
    (tmp_path / "frr.conf").write_text(
        "router bgp 65001\n no bgp ebgp-requires-policy\n timers bgp 1 3\n neighbor 10.0.0.1 remote-as 65002\n"
        " neighbor 10.0.0.1 timers connect 1\n"
    )
    (tmp_path / "daemons").write_text("bgpd=yes\n")
    (tmp_path / "bird.conf").write_text(
        "router id 2.2.2.2;\nprotocol device {}\nprotocol bgp frr {\n local as 65002;\n neighbor 10.0.0.0 as 65001;\n"
        " connect delay time 1; connect retry time 1; error wait time 1, 2;\n ipv4 { import all; export all; };\n}\n"
    )
    file = tmp_path / "routers.clab.yml"
    file.write_text(ROUTERS.format(name=name))
    made = run.up(file, os.environ, print)
    frr, bird = made.node("a"), made.node("b")

    def asked(node: state.NodeState, words: list[str]) -> str:
        return run.inside(node, words, check=False).stdout

    eventually(lambda: "Established" in asked(bird, ["birdc", "show", "protocols", "frr"]), "BIRD: not Established")
    eventually(
        lambda: "BGP state = Established" in asked(frr, ["vtysh", "-c", "show bgp neighbors"]), "FRR: not Established"
    )
