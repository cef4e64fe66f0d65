"""The units under a real systemd, with all their sandboxing: ready, journal, exposure, reload, drain, restart, watchdog."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bgpd.api.client import Client
from bgpd.model.drain import DrainRequest
from bgpd.sim.namespace import Namespace

pytestmark = [pytest.mark.vm(init="systemd"), pytest.mark.timeout(600)]

TOP = Path(__file__).parents[2]
UNITS = ("bgpd.service", "bgpd-speaker.service")
DEADLINE_S = 280.0
"""An emulated processor starts the daemon in some 25 s, on a busy host in two minutes; less than the host waits for a word."""
WATCHDOG_S = 15
DAEMON = Client(Path("/run/bgpd/bgpd.sock"), DEADLINE_S)
EXPOSURE = 2.0
"""What ``systemd-analyze security`` may rate a unit at most (0: sealed, 10: bare)."""
MAIN_PID = "MainPID"

CONFIG = """
[node]
name = "node1"
address = "192.0.2.1/24"
asn = 65001

[pool]
cidr = "10.65.0.0/16"

[[peer]]
name = "tor1"
address = "192.0.2.254"
local_address = "192.0.2.1"
asn = 65000
"""

ANNOUNCE = """
[[announce]]
prefixes = ["203.0.113.0/24"]
"""

ROUTER = """
router id 192.0.2.254;
log "/run/router.log" all;
protocol device {{}}
protocol static announced {{ ipv4; route 198.51.100.0/24 blackhole; }}
protocol bgp node {{
  local 192.0.2.254 as 65000;
  neighbor 192.0.2.1 as 65001;
  graceful restart on;
  debug {{ states, events }};
  ipv4 {{ import all; export all; }};
}}
"""


def run(*command: str, check: bool = True) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    except subprocess.TimeoutExpired:
        pytest.fail(f"{command} takes more than {DEADLINE_S} s\n{last_entries()}")
    if check and done.returncode:
        pytest.fail(f"{command}: {done.returncode} {done.stdout} {done.stderr}\n{last_entries()}")
    return done.stdout


def last_entries() -> str:
    return subprocess.run(["journalctl", "--no-pager", "-n", "60"], capture_output=True, text=True, check=False).stdout


def show(unit: str, name: str) -> str:
    return run("systemctl", "show", "--value", "-p", name, unit).strip()


def journal(*match: str) -> list[dict[str, Any]]:
    lines = run("journalctl", "-o", "json", "--no-pager", *match).splitlines()
    return [json.loads(line) for line in lines]


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, last_entries()
        time.sleep(0.2)


def install() -> None:
    """Put the project below /opt/bgpd as ``pip install`` into a virtual environment would, out of what the tests run with.

    Where that lies (someone's home, /tmp) the unit is not let in: so it is mounted here.
    """
    opt = Path("/opt/bgpd")
    library = opt / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    (opt / "bin").mkdir(parents=True)
    mounts = {
        opt / "base": sys.base_prefix,
        opt / "libraries": sysconfig.get_path("purelib"),
        library / "bgpd": str(TOP / "bgpd"),
    }
    for folder, source in mounts.items():
        folder.mkdir(parents=True)
        run("mount", "--bind", source, str(folder))
    base = Path("/usr/bin") if Path(sys.base_prefix) == Path("/usr") else opt / "base" / "bin"
    python = opt / "bin" / "python"
    python.symlink_to(base / f"python{sys.version_info.major}.{sys.version_info.minor}")
    (opt / "pyvenv.cfg").write_text(f"home = {base}\ninclude-system-site-packages = false\n")
    (library / "libraries.pth").write_text(f"{opt / 'libraries'}\n")
    command = opt / "bin" / "bgpd"
    command.write_text(f"#!{python} -I\nfrom bgpd.cli.main import main\nmain()\n")
    command.chmod(0o755)


def set_up() -> None:
    install()
    shutil.copy(TOP / "config/systemd/bgpd.sysusers", "/run/bgpd.sysusers.conf")
    run("systemd-sysusers", "/run/bgpd.sysusers.conf")
    for unit in UNITS:
        shutil.copy(TOP / "config/systemd" / unit, "/etc/systemd/system")
        drop_in = Path("/etc/systemd/system") / f"{unit}.d" / "test.conf"
        drop_in.parent.mkdir()
        # A Python from elsewhere than Debian finds its library where it was built for, which is out of the unit's sight.
        drop_in.write_text("[Service]\nEnvironment=LD_LIBRARY_PATH=/opt/bgpd/base/lib\n")
    with Path("/etc/systemd/system/bgpd.service.d/test.conf").open("a", encoding="utf-8") as file:
        file.write(f"WatchdogSec={WATCHDOG_S}\nTimeoutStartSec={DEADLINE_S}\n")
    folder = Path("/etc/bgpd")
    folder.mkdir()
    configure(CONFIG)
    run("systemctl", "daemon-reload")


@pytest.fixture(scope="module")
def router() -> Iterator[Namespace]:
    """BIRD at the other end of a link: the node's router."""
    set_up()
    with Namespace("router") as space:
        run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "down0", "netns", space.name)
        run("ip", "address", "add", "192.0.2.1/24", "dev", "up0")
        run("ip", "link", "set", "up0", "up")
        space.batch("address add 192.0.2.254/24 dev down0", "link set down0 up")
        Path("/run/bird.conf").write_text(ROUTER.format())
        space.execute("bird", "-c", "/run/bird.conf", "-s", "/run/bird.ctl", "-P", "/run/bird.pid")
        yield space
        os.kill(int(Path("/run/bird.pid").read_text()), signal.SIGKILL)


@pytest.fixture
def started(router: Namespace) -> Namespace:
    """The daemon is up, whatever the test before did to it."""
    run("systemctl", "start", "bgpd.service")
    return router


def sessions(router: Namespace) -> tuple[bool, int]:
    """Whether BIRD's session is up, and how many it has had so far."""
    up = any(line.startswith("node ") and "Established" in line for line in birdc(router, "show", "protocols"))
    return up, Path("/run/router.log").read_text().count("node: BGP session established")


def birdc(router: Namespace, *command: str) -> list[str]:
    return router.execute("birdc", "-s", "/run/bird.ctl", *command).splitlines()


def learned(router: Namespace) -> list[str]:
    """Our routes, as the router has them."""
    return [
        line for line in birdc(router, "show", "route", "protocol", "node") if "10.65." in line or "203.0.113" in line
    ]


def configure(text: str) -> None:
    Path("/etc/bgpd/bgpd.toml").write_text(text)


def routes() -> list[str]:
    return run("ip", "-d", "route", "show", "table", "all", "proto", "179").splitlines()


def test_start_returns_when_the_kernel_is_programmed(router: Namespace) -> None:
    """``systemctl start`` returns when the phase is ready, with the routes in place, and the status says so."""
    run("systemctl", "start", "bgpd.service")

    assert "active" == show("bgpd.service", "ActiveState")
    assert "notify" == show("bgpd.service", "Type")
    assert "ready" == show("bgpd.service", "StatusText")
    assert any("198.51.100.0/24" in line for line in routes())
    assert any("blackhole 10.65." in line for line in routes())
    assert 'Status: "ready"' in run("systemctl", "status", "bgpd.service")
    assert "ready" == DAEMON.status().phase.name
    wait(lambda: sessions(router)[0])


def test_units_run_unprivileged_with_the_capabilities_they_need(started: Namespace) -> None:
    """Both run as user bgpd, the daemon with NET_ADMIN alone and the speaker with NET_BIND_SERVICE alone."""
    wanted = {"bgpd.service": 1 << 12, "bgpd-speaker.service": 1 << 10}
    for unit, capabilities in wanted.items():
        status = dict(
            line.split(":\t", 1)
            for line in Path(f"/proc/{show(unit, MAIN_PID)}/status").read_text().splitlines()
            if ":\t" in line
        )
        assert run("id", "-u", "bgpd").strip() == status["Uid"].split()[0]
        assert [capabilities] * 3 == [int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")]
        assert "1" == status["NoNewPrivs"]


def test_log_entries_have_fields(started: Namespace) -> None:
    """``journalctl BGPD_EVENT=phase.entered`` finds entries with their facts as fields, from the unit."""
    found = journal("BGPD_EVENT=phase.entered", "BGPD_PHASE=ready")

    assert found
    assert {"bgpd.service"} == {entry["_SYSTEMD_UNIT"] for entry in found}
    assert {"bgpd"} == {entry["SYSLOG_IDENTIFIER"] for entry in found}
    assert {"6"} == {entry["PRIORITY"] for entry in found}
    assert all(entry["MESSAGE"].startswith("phase.entered phase=ready") for entry in found)


@pytest.mark.parametrize("unit", UNITS)
def test_exposure_is_low(router: Namespace, unit: str) -> None:
    """``systemd-analyze security`` rates the unit 2.0 or better."""
    said = run("systemd-analyze", "security", "--no-pager", unit)
    worst = [line for line in said.splitlines() if line.startswith("✗")]
    exposure = float(said.split(f"Overall exposure level for {unit}: ")[1].split()[0])

    print(unit, exposure)
    assert exposure <= EXPOSURE, "\n".join([str(exposure), *worst])


def test_reload_takes_over_what_was_changed(started: Namespace) -> None:
    """``systemctl reload`` returns when the change is taken over: the prefix is in the kernel; process and session stay, by SIGHUP, too."""
    wait(lambda: sessions(started)[0])
    before, pid = sessions(started), show("bgpd.service", MAIN_PID)
    configure(CONFIG + ANNOUNCE)

    run("systemctl", "reload", "bgpd.service")

    wait(lambda: any("blackhole 203.0.113.0/24" in line for line in routes()))
    assert ("active", pid, before) == (
        show("bgpd.service", "ActiveState"),
        show("bgpd.service", MAIN_PID),
        sessions(started),
    )
    (entry,) = journal("BGPD_EVENT=configuration.reloaded")
    assert "announce[0].prefixes" in entry["BGPD_CHANGED"]
    run("systemctl", "kill", "--kill-whom=main", "--signal=HUP", "bgpd.service")
    wait(lambda: len(journal("BGPD_EVENT=configuration.reloaded")) == 2)
    wait(lambda: show("bgpd.service", "ActiveState") == "active")  # after RELOADING=1 and READY=1
    assert (pid, before) == (show("bgpd.service", MAIN_PID), sessions(started))


def test_reload_of_a_bad_file_fails_and_changes_nothing(started: Namespace) -> None:
    """The reload fails with the defect in the journal; the daemon runs on with the same routes."""
    routed, pid = routes(), show("bgpd.service", MAIN_PID)
    configure(CONFIG.replace("asn = 65001", "asn = 0"))
    try:
        done = subprocess.run(
            ["systemctl", "reload", "bgpd.service"], capture_output=True, check=False, timeout=DEADLINE_S
        )
    finally:
        configure(CONFIG + ANNOUNCE)

    assert done.returncode
    assert ("active", pid, routed) == (show("bgpd.service", "ActiveState"), show("bgpd.service", MAIN_PID), routes())
    (entry,) = journal("BGPD_EVENT=configuration.refused")
    assert "node.asn = 0" in entry["BGPD_REASON"]


def test_drained_node_stays_drained_over_a_restart_that_changes_nothing(started: Namespace) -> None:
    """A drained node announces nothing; ``systemctl restart bgpd`` changes no route and no session, and leaves it drained."""
    wait(lambda: "198.51.100.0/24" in " ".join(routes()) and bool(learned(started)))
    DAEMON.drain(DrainRequest(timeout_s=0.0))
    wait(lambda: not learned(started))
    before, routed, speaker = sessions(started), routes(), show("bgpd-speaker.service", MAIN_PID)
    watch = subprocess.Popen(["ip", "monitor", "route", "nexthop"], stdout=subprocess.PIPE, text=True)
    try:
        run("systemctl", "restart", "bgpd.service")
    finally:
        watch.terminate()
        heard, _ = watch.communicate()

    assert "" == "".join(line for line in heard.splitlines(keepends=True) if "proto kernel" not in line)
    assert (routed, before) == (routes(), sessions(started))
    assert speaker == show("bgpd-speaker.service", MAIN_PID)
    drain = DAEMON.status().drain
    assert drain is not None
    assert not learned(started)
    DAEMON.undrain()
    wait(lambda: bool(learned(started)))


def test_stopped_process_is_ended_by_the_watchdog(started: Namespace) -> None:
    """A daemon that hangs (SIGSTOP) is ended when its watchdog's time is over, and started again; routes and session stay."""
    wait(lambda: sessions(started)[0])
    before, routed, pid = sessions(started), routes(), show("bgpd.service", MAIN_PID)
    restarts = int(show("bgpd.service", "NRestarts"))

    os.kill(int(pid), signal.SIGSTOP)

    wait(lambda: int(show("bgpd.service", "NRestarts")) > restarts)
    wait(lambda: show("bgpd.service", "ActiveState") == "active")
    assert pid != show("bgpd.service", MAIN_PID)
    assert (routed, before) == (routes(), sessions(started))
    assert any("watchdog" in entry["MESSAGE"].lower() for entry in journal("-u", "bgpd.service", "_PID=1"))


def test_stop_leaves_the_kernel_alone(started: Namespace) -> None:
    """A stop in order succeeds, and changes no route."""
    routed = routes()

    run("systemctl", "stop", "bgpd.service")

    assert "success" == show("bgpd.service", "Result")
    assert routed == routes()
