"""What a running lab is, on disk: ``/run/bgpd-lab/LAB/state.json``, rewritten before and after each step that makes something.

Laws: whoever finds the file can take everything down, also after a crash of whoever wrote it; a process is named by its id *and* its
start time, so that a recycled id is never killed; /run is emptied by a reboot, as the lab is.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import msgspec

ROOT = Path("/run/bgpd-lab")

END_S = 10.0
"""A killed process group of a PID namespace is gone within milliseconds; past this something is stuck in the kernel."""

POLL_S = 0.01


class Process(msgspec.Struct, frozen=True):
    pid: int
    started: int
    """Clock ticks since boot (proc(5), stat field 22)."""


class NodeState(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    netns: str
    image: str
    group: str = ""
    holder: Process | None = None
    """The ``unshare`` that waits for the init."""
    init: Process | None = None
    services: tuple[str, ...] = ()
    env: dict[str, str] = {}
    """Of every process that is started in the node."""
    workload_of: str = ""
    address: str = ""
    """Of a workload, once it has one."""


class LabState(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    file: str
    created: float
    """Seconds since the epoch."""
    ready: bool = False
    """False while ``up`` works, and for ever if it died."""
    maker: Process | None = None
    nodes: tuple[NodeState, ...] = ()

    def node(self, name: str) -> NodeState:
        """Raise KeyError where the lab has no such node."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    def with_node(self, node: NodeState) -> LabState:
        nodes = tuple(node if old.name == node.name else old for old in self.nodes)
        return msgspec.structs.replace(self, nodes=nodes)


def directory(lab: str) -> Path:
    return ROOT / lab


def logs(lab: str, node: str) -> Path:
    return ROOT / lab / "log" / node


def save(state: LabState) -> None:
    """Write, then rename: a reader never sees half a file."""
    place = directory(state.name) / "state.json"
    fresh = place.with_suffix(".new")
    fresh.write_bytes(msgspec.json.format(msgspec.json.encode(state), indent=1))
    fresh.replace(place)


def load(lab: str) -> LabState | None:
    """None where there is no such lab, or it died before it made anything."""
    try:
        return msgspec.json.decode((directory(lab) / "state.json").read_bytes(), type=LabState)
    except FileNotFoundError:
        return None


def labs() -> tuple[str, ...]:
    """Names of all labs of this machine."""
    return tuple(sorted(place.name for place in ROOT.iterdir() if place.is_dir())) if ROOT.is_dir() else ()


def process(pid: int) -> Process | None:
    """Name a process, None if it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in {"Z", "X"} else Process(pid, int(fields[19]))


def alive(what: Process | None) -> bool:
    return what is not None and process(what.pid) == what


def child(pid: int) -> int | None:
    """The first child of a process."""
    for place in Path("/proc").glob("[0-9]*"):
        try:
            fields = (place / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == pid:
            return int(place.name)
    return None


def kill(what: list[Process]) -> None:
    """Kill and wait until gone (reaping what is our own child). Raises TimeoutError past END_S."""
    for one in what:
        if alive(one):
            os.kill(one.pid, signal.SIGKILL)
    deadline = time.monotonic() + END_S
    for one in what:
        while alive(one):
            if time.monotonic() > deadline:
                raise TimeoutError(f"process {one.pid} does not end")
            time.sleep(POLL_S)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(one.pid, os.WNOHANG)
