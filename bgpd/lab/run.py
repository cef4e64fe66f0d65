"""Labs without Docker: bring one up, take it down, look at it, run something in a node.

Theory of operation. A node is a network namespace ``clab-LAB-NODE`` and an init process (init.py) with private mount, PID and UTS
namespaces in it. Links are veth pairs made directly inside two namespaces, so that the host never sees them. Order: the state file
names everything that will be made; namespaces and inits (they set sysctls before a device exists); links; services; the file's
``exec`` lines; workloads. Down kills each init, which ends every process of its PID namespace and with them its mounts, then
deletes the namespaces, with which the links go, then the state directory. Laws: down leaves nothing, whatever stopped up, and is
idempotent; up touches nothing that it did not make.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from bgpd.lab import init, node, state, topology
from bgpd.lab.state import LabState, NodeState, Process

READY_S = 20.0
"""An init is ready within half a second on an idle machine; eight starting at once on a busy one stay far below this."""

COMMAND_S = 60.0
"""No command of ours or of the file's ``exec`` takes longer unless it hangs."""

WORKLOAD_S = 60.0
"""A daemon has its block some seconds after it started; past this it has a problem, which its log says."""

POLL_S = 0.3
"""How often it is asked: the command itself takes about as long."""

WORKLOAD_OF = "bgpd.io/workload-of"
WORKLOAD_MTU_BYTES = 1450
"""1500 less the 50 of VXLAN over IPv4 (RFC 7348 section 5), so that a fallback never meets a packet too big."""

WORKLOAD_GATEWAY = "169.254.1.1"
"""Calico's: never an address of anything, the node answers ARP for it (proxy_arp)."""

PLACEHOLDERS = frozenset({".gitignore", ".gitkeep"})
TAIL_LINES = 12
LINE_LENGTH = 400

Say = Callable[[str], None]


class Refused(Exception):  # noqa: N818 - an expected answer: nothing was started
    """Bad input or an unfit machine: exit 2."""


class Failed(Exception):  # noqa: N818 - the lab's end, not this program's
    """Something did not work while the lab was made or used: exit 1."""


class NodeView(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    netns: str
    image: str
    running: bool
    pid: int | None
    """Of the node's init, on the host."""
    address: str
    logs: tuple[str, ...]


class LabView(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    file: str
    created: float
    state: str
    """``up``, ``starting``, or ``broken`` where its maker died or a node's init has ended."""
    nodes: tuple[NodeView, ...]


# ---------------------------------------------------------------- up


def up(file: Path, env: Mapping[str, str], say: Say) -> LabState:
    """Bring a lab up. Raises TopologyError or Refused before anything is made; on Failed or an interrupt it takes down what it made."""
    need_root()
    lab = topology.load(file, env)
    refuse(lab)
    say(f"lab {lab.name}: {len(lab.nodes)} nodes, {len(lab.links)} links")
    try:
        return make(lab, say)
    except BaseException:
        for line in tails(lab.name):
            say(line)
        down(lab.name, lambda _: None)
        raise


def refuse(lab: topology.Topology) -> None:
    """Look for what would stop the lab half way. Raises Refused."""
    problems = node.missing(lab.nodes) + features()
    if problems:
        raise Refused(f"this machine cannot run {lab.path.name}: " + "; ".join(problems))
    if state.directory(lab.name).exists():
        raise Refused(f"lab {lab.name} is up already, or was left half way: bgpd lab down {lab.name}")
    for one in lab.nodes:
        if Path("/run/netns", lab.netns(one.name)).exists():
            raise Refused(
                f"network namespace {lab.netns(one.name)} exists and is not ours (is the lab running in containerlab?)"
            )
        owner = one.label(WORKLOAD_OF)
        if owner and owner not in [end.node for _, end in lab.links_of(one.name)]:
            raise Refused(
                f"{lab.path}: topology.nodes.{one.name}.labels: {WORKLOAD_OF} names {owner}, which it has no link to"
            )


def need_root() -> None:
    if os.geteuid() != 0:
        raise Refused("a lab makes network namespaces: run it as root")


def features() -> list[str]:
    """What the kernel lacks."""
    with contextlib.suppress(FileNotFoundError, subprocess.CalledProcessError):
        if "\toverlay\n" not in Path("/proc/filesystems").read_text(encoding="ascii"):
            subprocess.run(["modprobe", "overlay"], check=True, capture_output=True)
    known = Path("/proc/filesystems").read_text(encoding="ascii")
    lacking = [f"the kernel has no {name}" for name in ("overlay", "tmpfs") if f"\t{name}\n" not in known]
    spaces = [name for name in ("net", "mnt", "pid", "uts") if not Path("/proc/self/ns", name).exists()]
    return lacking + [f"the kernel has no {name} namespaces" for name in spaces]


def make(lab: topology.Topology, say: Say) -> LabState:
    """Make everything, in the order of the theory above."""
    place = state.directory(lab.name)
    place.mkdir(parents=True, mode=0o755)
    made = LabState(
        name=lab.name,
        file=str(lab.path),
        created=time.time(),
        maker=state.process(os.getpid()),
        nodes=tuple(
            NodeState(
                name=one.name,
                netns=lab.netns(one.name),
                image=one.image,
                group=one.group,
                env=node.environment(lab, one),
                services=tuple(service.name for service in node.furnish(one).services),
                workload_of=one.label(WORKLOAD_OF),
            )
            for one in lab.nodes
        ),
    )
    state.save(made)
    sources = volumes(lab)
    for one in lab.nodes:
        made = made.with_node(start(lab, one, made.node(one.name), sources))
        state.save(made)
    connect(lab)
    for one in lab.nodes:
        time.sleep(one.startup_delay_s)
        begin(made.node(one.name))
        for command in one.exec:
            inside(made.node(one.name), command)
        say(f"  {one.name:<10} {one.image_name:<8} {' '.join(made.node(one.name).services) or '(bare namespace)'}")
    for workload in made.nodes:
        if workload.workload_of:
            made = made.with_node(attach(lab, made, workload, say))
            state.save(made)
    made = msgspec.structs.replace(made, ready=True)
    state.save(made)
    return made


def volumes(lab: topology.Topology) -> dict[str, str]:
    """Replace each bind source that is a placeholder (a directory with nothing in it but .gitignore) by a fresh directory of this lab.

    containerlab wants the source to exist and would write into the checkout; here the nodes share a directory that goes with the lab.
    """
    found: dict[str, str] = {}
    for bind in (bind for one in lab.nodes for bind in one.binds):
        source = Path(bind.source)
        if bind.source not in found and source.is_dir() and {entry.name for entry in source.iterdir()} <= PLACEHOLDERS:
            fresh = state.directory(lab.name) / "volumes" / f"{len(found)}-{source.name}"
            fresh.mkdir(parents=True)
            found[bind.source] = str(fresh)
    return found


def start(lab: topology.Topology, one: topology.Node, was: NodeState, sources: dict[str, str]) -> NodeState:
    """Make a node's namespaces and its init, and wait until that is ready."""
    logs = state.logs(lab.name, one.name)
    logs.mkdir(parents=True)
    sh("ip", "netns", "add", was.netns)
    unshare = ("unshare", "--mount", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc")
    python = (sys.executable, "-I", "-S", str(Path(init.__file__)))
    command = ("ip", "netns", "exec", was.netns, *unshare, *python)
    pid, answer = spawn(command, node.encoded(node.orders(lab, one, logs, sources)), logs / "init.log")
    if answer != "ready":
        raise Failed(f"node {one.name}: {answer or 'its init ended'}: {(logs / 'init.log').read_text().strip()[-300:]}")
    first = state.child(pid)
    return msgspec.structs.replace(was, holder=state.process(pid), init=state.process(first) if first else None)


def spawn(command: tuple[str, ...], orders: bytes, log: Path) -> tuple[int, str]:
    """Start a process that outlives us, hand it its orders, and return its id and its first line (empty if it ended)."""
    order_out, order_in = os.pipe()
    ready_out, ready_in = os.pipe()
    log_fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
    actions = [(os.POSIX_SPAWN_DUP2, fd, onto) for fd, onto in ((order_out, 0), (ready_in, 1), (log_fd, 2))]
    pid = os.posix_spawnp(command[0], command, os.environ, file_actions=actions, setsid=True)
    for fd in (order_out, ready_in, log_fd):
        os.close(fd)
    with os.fdopen(order_in, "wb") as orders_file, contextlib.suppress(BrokenPipeError):
        orders_file.write(orders)
    with os.fdopen(ready_out, encoding="utf-8") as answers:
        return pid, answers.readline().strip()


def connect(lab: topology.Topology) -> None:
    """Make the veth pairs, both ends up."""
    for one in lab.nodes:
        sh("ip", "-n", lab.netns(one.name), "link", "set", "lo", "up")
    for link in lab.links:
        (here, a), (there, b) = ((lab.netns(end.node), end.interface) for end in (link.a, link.b))
        mtu = str(link.mtu_bytes)
        sh(*f"ip -n {here} link add {a} mtu {mtu} type veth peer name {b} mtu {mtu} netns {there}".split())
        sh("ip", "-n", here, "link", "set", a, "up")
        sh("ip", "-n", there, "link", "set", b, "up")


def begin(one: NodeState) -> None:
    """Let the node's init start what is not running (also after something was killed)."""
    assert one.init is not None
    if not state.alive(one.init):
        raise Failed(f"node {one.name} is not running any more")
    os.kill(one.init.pid, signal.SIGUSR1)


# ---------------------------------------------------------------- workloads


def attach(lab: topology.Topology, made: LabState, one: NodeState, say: Say) -> NodeState:
    """Give a workload an address of its node's block, the way Calico does: /32, a link-local gateway that the node proxies ARP for."""
    interface, end = next(pair for pair in lab.links_of(one.name) if pair[1].node == one.workload_of)
    owner = made.node(one.workload_of)
    say(f"  {one.name:<10} waits for an address of {owner.name}'s block")
    address = assign(owner, one.name, state.logs(lab.name, owner.name))
    mtu = str(WORKLOAD_MTU_BYTES)
    for line in (
        f"ip link set {interface} mtu {mtu}",
        f"ip address add {address}/32 dev {interface}",
        f"ip route add {WORKLOAD_GATEWAY} dev {interface} scope link",
        f"ip route add default via {WORKLOAD_GATEWAY} dev {interface}",
    ):
        inside(one, line.split())
    # proxy_delay would make the first ARP answer wait for up to 0.8 s.
    for key in (f"conf/{end.interface}/proxy_arp=1", f"neigh/{end.interface}/proxy_delay=0"):
        name, _, value = key.partition("=")
        inside(owner, ("sh", "-c", f"echo {value} > /proc/sys/net/ipv4/{name}"))
    inside(owner, f"ip route add {address}/32 dev {end.interface} scope link".split())
    say(f"  {one.name:<10} workload of {one.workload_of}: {address}")
    return msgspec.structs.replace(one, address=address)


class _Assigned(msgspec.Struct):
    address: str


def assign(owner: NodeState, handle: str, logs: Path) -> str:
    """Ask the node's daemon for an address, until it has a block. Raises Failed after WORKLOAD_S, or once the daemon has ended."""
    deadline = time.monotonic() + WORKLOAD_S
    while True:
        done = inside(owner, ("bgpd", "ipam", "assign", "--handle", handle, "-o", "json"), check=False)
        if done.returncode == 0:
            return msgspec.json.decode(done.stdout, type=_Assigned).address.partition("/")[0]
        for service in owner.services:
            if fell(logs / f"{service}.log"):
                raise Failed(f"{service} of {owner.name} has ended; {handle} needs it for an address")
        if time.monotonic() > deadline:
            raise Failed(f"{owner.name} gives no address to {handle} after {WORKLOAD_S:g} s: {done.stderr.strip()}")
        time.sleep(POLL_S)


# ---------------------------------------------------------------- down, status, exec


def down(target: str, say: Say) -> bool:
    """Take a lab down, named by its name or its file; False if there was none. Raises Refused while another process brings it up."""
    need_root()
    name = lab_name(target)
    place = state.directory(name)
    if not place.exists():
        say(f"lab {name}: not up, nothing to take down")
        return False
    made = state.load(name)
    if made and not made.ready and state.alive(made.maker) and made.maker and made.maker.pid != os.getpid():
        raise Refused(f"lab {name} is being brought up by process {made.maker.pid}")
    nodes = made.nodes if made else ()
    state.kill([one.init for one in nodes if one.init])
    state.kill([one.holder for one in nodes if one.holder])
    for one in nodes:
        if Path("/run/netns", one.netns).exists():
            state.kill(list(processes(one.netns)))
            sh("ip", "netns", "delete", one.netns)
    shutil.rmtree(place)
    with contextlib.suppress(OSError):
        state.ROOT.rmdir()
    say(f"lab {name}: taken down")
    return True


def processes(netns: str) -> Iterator[Process]:
    """Whatever is still in a namespace: the init of an up that died before it noted it, or somebody's shell."""
    for word in sh("ip", "netns", "pids", netns).split():
        found = state.process(int(word))
        if found:
            yield found


def status(target: str | None = None) -> tuple[LabView, ...]:
    """Show one lab or all. Raises Refused where the named lab is not there."""
    names = state.labs() if target is None else (lab_name(target),)
    views = tuple(view(made) for made in map(state.load, names) if made)
    if target is not None and not views:
        raise Refused(f"lab {names[0]} is not up")
    return views


def view(made: LabState) -> LabView:
    running = all(state.alive(one.init) for one in made.nodes)
    working = "starting" if state.alive(made.maker) else "broken"
    return LabView(
        name=made.name,
        file=made.file,
        created=made.created,
        state=("up" if running else "broken") if made.ready else working,
        nodes=tuple(
            NodeView(
                name=one.name,
                netns=one.netns,
                image=one.image,
                running=state.alive(one.init),
                pid=one.init.pid if one.init else None,
                address=one.address,
                logs=tuple(str(path) for path in sorted(state.logs(made.name, one.name).glob("*.log"))),
            )
            for one in made.nodes
        ),
    )


def lab_name(target: str) -> str:
    """A name stays; a file is read for its name. Raises TopologyError, Refused."""
    if "/" in target or target.endswith((".yml", ".yaml")):
        return topology.load(Path(target), os.environ).name
    if not topology.NAME.fullmatch(target):
        raise Refused(f"not the name of a lab: {target!r}")
    return target


def find(name: str, lab: str | None) -> NodeState:
    """A node of the named lab, or of the only one. Raises Refused."""
    names = (lab_name(lab),) if lab else state.labs()
    if len(names) != 1:
        raise Refused(f"which lab? ({', '.join(names)})" if names else "no lab is up")
    made = state.load(names[0])
    if made is None:
        raise Refused(f"lab {names[0]} is not up")
    try:
        return made.node(name)
    except KeyError:
        raise Refused(f"lab {made.name} has no node {name}: {', '.join(one.name for one in made.nodes)}") from None


def enter(one: NodeState) -> tuple[str, ...]:
    """The words before a command that make it run in the node. Raises Failed where the node has ended.

    ``--root``: entering a mount namespace alone would leave a chroot that this whole machine may stand in.
    """
    if one.init is None or not state.alive(one.init):
        raise Failed(f"node {one.name} is not running any more")
    return ("nsenter", "--target", str(one.init.pid), "--mount", "--pid", "--uts", "--net", "--root", "--wd", "--")


def inside(one: NodeState, command: Sequence[str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command in a node and wait for it. Raises Failed where it does not end, or (with *check*) where it fails."""
    env = {**os.environ, **one.env}
    try:
        done = subprocess.run(
            [*enter(one), *command],
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{one.name}: {' '.join(command)}: no end after {COMMAND_S:g} s") from error
    if check and done.returncode:
        raise Failed(f"{one.name}: {' '.join(command)}: exit {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done


def sh(*command: str) -> str:
    """Run a command of the host. Raises Failed with its words."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=COMMAND_S, check=False
    )
    if done.returncode:
        raise Failed(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def tails(lab: str) -> Iterator[str]:
    """The last lines of the logs of the services that failed; where none did, of all."""
    logs = sorted(state.directory(lab).glob("log/*/*.log"))
    failed = [log for log in logs if fell(log)]
    for log in failed or logs:
        lines = last_lines(log)
        if lines:
            yield f"--- {log.parent.name}/{log.name}"
            yield from lines


def last_lines(log: Path) -> list[str]:
    """The end of a log, each line cut to what a terminal can bear."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:]
    except FileNotFoundError:
        return []
    return [line if len(line) <= LINE_LENGTH else f"{line[:LINE_LENGTH]} ..." for line in lines]


def fell(log: Path) -> bool:
    """Whether a service has ended with a failure and has not been started since (the init writes it at the end of its log)."""
    lines = last_lines(log)
    return bool(lines) and lines[-1].startswith(init.ENDED) and not lines[-1].endswith(" 0")
