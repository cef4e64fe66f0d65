"""The tour: bring the two-tor lab up, show what a network engineer wants to see, break it, heal it, and check every claim.

``python -m bgpd.lab.tour FILE [--keep]``, started by containerlab/quickstart. Theory of operation: a step shows real commands with
their real output and checks facts read as JSON from the daemon (``bgpd … -o json``) or from the kernel (``ip -j``), never from its
own memory; waiting is polling with a bound. A failed check does not end the tour (later ones may say why); a failed wait for
something that everything else stands on does. Laws: nothing is left behind on whatever end, unless --keep; the last line is
``N checks passed, M failed`` and the exit status says the same.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Any, TypeVar

import msgspec

from bgpd.core.ipam.census import PoolUsage
from bgpd.lab import flows, run, state
from bgpd.lab.topology import TopologyError
from bgpd.model.view import PeerView, RouteView, StatusView
from bgpd.model.wire import from_builtin

WAIT_S = 40.0
"""Longest wait of a step: hold time 9 s, restore_after_s 3, router's reconnect some seconds, on a machine twice too busy."""

POLL_S = 0.2

LOST_MAX = 100
"""One second's worth at 100 pings per second, when both sessions of a node go away."""

STREAM_TAIL_S = 3.0
"""How long a stream goes on after the change has been seen everywhere, so that late damage is counted too."""

FLOWS = 64
FLOWS_MIN = 10
"""Packets each of two uplinks must carry of 2 x 64 flows of 2 packets; fewer has a chance below 1e-40 with any fair hash."""

WALK_STEP = 8 * 64
"""Each 8th block of a pool is asked for where no node has one: 128 addresses of a /16."""
WALK_RANDOM = 32
WALK_SEED = 8
WALK_S = 120.0
"""Longest walk over some 400 addresses, 2 s on a machine that is not busy."""

T = TypeVar("T")


class Stopped(Exception):  # noqa: N818 - not an error of this program
    """The rest of the tour stands on something that did not happen."""


class Screen:
    """What the reader sees. Owns standard output: plain text, a little colour on a terminal only."""

    def __init__(self) -> None:
        self.colour = sys.stdout.isatty()
        self.columns = shutil.get_terminal_size((120, 40)).columns if self.colour else 120

    def paint(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self.colour else text

    def line(self, text: str = "") -> None:
        print(text, flush=True)

    def title(self, text: str) -> None:
        self.line()
        self.line(self.paint("1", f"== {text}"))

    def command(self, node: str, words: str, output: str) -> None:
        self.line(self.paint("36", f"{node}$ {words}"))
        for line in output.rstrip().splitlines():
            self.line(f"  {line}")


class Stream:
    """100 pings per second from one workload to another. Owns the ping process."""

    def __init__(self, source: state.NodeState, address: str) -> None:
        self.output: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by stop
        command = ["ip", "netns", "exec", source.netns, "ping", "-n", "-i", "0.01", "-W", "1", address]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.output, stderr=subprocess.STDOUT)

    def stop(self) -> tuple[int, int]:
        """Return packets sent and lost; the one that may be under way at the end is not counted as lost."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        self.process.wait(run.COMMAND_S)
        self.output.seek(0)
        text = self.output.read()
        self.output.close()
        found = re.search(r"(\d+) packets transmitted, (\d+) received", text)
        if found is None:
            raise run.Failed(f"ping said: {text.strip()[-200:]}")
        sent = int(found[1])
        seen = {int(number) for number in re.findall(r"bytes from .* icmp_seq=(\d+)", text)}
        under_way = 1 if sent not in seen and sent - 1 in seen else 0
        return sent, sent - len(seen) - under_way


class Monitor:
    """``ip monitor route`` in a node. Owns that process."""

    def __init__(self, node: state.NodeState) -> None:
        self.output: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by stop
        command = ["ip", "-n", node.netns, "monitor", "route"]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.output, stderr=subprocess.STDOUT)

    def stop(self) -> list[str]:
        """Return the lines seen."""
        self.process.terminate()
        self.process.wait(run.COMMAND_S)
        self.output.seek(0)
        text = self.output.read()
        self.output.close()
        return [line for line in text.splitlines() if line.strip()]


class Tour:
    """One tour through a lab that is up. Owns the counts of its checks and whatever process it started."""

    def __init__(self, made: state.LabState, screen: Screen) -> None:
        self.made = made
        self.screen = screen
        self.passed = 0
        self.failed = 0
        self.open: list[Stream | Monitor] = []
        self.routers = [node for node in made.nodes if node.group == "tor"]
        self.nodes = [node for node in made.nodes if node.group == "node"]
        self.workloads = [node for node in made.nodes if node.workload_of]
        self.blocks: dict[str, str] = {}
        self.chance = random.Random(WALK_SEED)  # noqa: S311 - a sample

    # ------------------------------------------------------------ asking

    def ask(self, node: state.NodeState, type_: type[T], *words: str) -> T | None:
        """Ask a node's daemon; None while it does not answer."""
        done = run.inside(node, ("bgpd", *words, "-o", "json"), check=False)
        return msgspec.json.decode(done.stdout, type=type_, dec_hook=from_builtin) if done.returncode == 0 else None

    def kernel(self, node: state.NodeState, *words: str) -> Any:
        """Ask a node's kernel."""
        return json.loads(run.sh("ip", "-n", node.netns, "-j", *words) or "[]")

    def peers(self, node: state.NodeState) -> list[PeerView]:
        return self.ask(node, list[PeerView], "peers") or []

    def routes(self, node: state.NodeState) -> dict[str, RouteView]:
        """Routes of other nodes' blocks, by prefix."""
        others = [block for owner, block in self.blocks.items() if owner != node.name]
        return {
            route.prefix: route for route in self.ask(node, list[RouteView], "routes") or [] if route.prefix in others
        }

    def kinds(self, node: state.NodeState, towards: str | None = None) -> set[str]:
        """How a node reaches the others' blocks (or one's), as far as the kernel has it."""
        routes = self.routes(node)
        prefixes = [self.blocks[towards]] if towards else [b for owner, b in self.blocks.items() if owner != node.name]
        return {routes[p].kind if p in routes and routes[p].status == "programmed" else "missing" for p in prefixes}

    def legs(self, node: state.NodeState, prefix: str) -> list[str]:
        """Devices by which the kernel reaches a prefix that has our protocol number, through a nexthop object."""
        found = self.kernel(node, "route", "show", prefix, "proto", "179")
        if len(found) != 1 or "nhid" not in found[0]:
            return []
        (nexthop,) = self.kernel(node, "nexthop", "show", "id", str(found[0]["nhid"]))
        members = [member["id"] for member in nexthop.get("group", [])] or [found[0]["nhid"]]
        devices = [self.kernel(node, "nexthop", "show", "id", str(member))[0] for member in members]
        return sorted(device.get("dev", "?") for device in devices if "linkdown" not in device.get("flags", []))

    def packets(self, node: state.NodeState, device: str, direction: str) -> int:
        (link,) = self.kernel(node, "-s", "link", "show", "dev", device)
        return int(link["stats64"][direction]["packets"])

    def named(self, name: str) -> state.NodeState:
        return self.made.node(name)

    # ------------------------------------------------------------ showing, waiting, checking

    def show(self, node: state.NodeState, *words: str) -> None:
        """Run a command in a node and print it with its output."""
        done = run.inside(node, ("env", f"COLUMNS={self.screen.columns - 2}", *words), check=False)
        self.screen.command(node.name, " ".join(words), done.stdout + done.stderr)

    def wait(self, what: str, ready: Callable[[], bool]) -> bool:
        """Poll until it is so, visibly; False past WAIT_S."""
        began = time.monotonic()
        dots = 0
        print(f"   waiting: {what} ", end="", flush=True)
        while not (so := ready()) and time.monotonic() - began < WAIT_S:
            if time.monotonic() - began > dots:
                print(".", end="", flush=True)
                dots += 1
            time.sleep(POLL_S)
        self.screen.line(f" {time.monotonic() - began:.1f} s" if so else f" not after {WAIT_S:g} s")
        return so

    def check(self, claim: str, so: bool, *involved: state.NodeState) -> bool:
        """Count and print; where it is not so, with the last words of the daemons involved."""
        if so:
            self.passed += 1
            self.screen.line(f"{self.screen.paint('32', '[ok]')} {claim}")
            return True
        self.failed += 1
        self.screen.line(f"{self.screen.paint('31', '[FAILED]')} {claim}")
        for node in involved:
            log = state.logs(self.made.name, node.name) / f"{node.services[0]}.log"
            self.screen.line(f"     last lines of {log}:")
            for line in run.last_lines(log):
                self.screen.line(f"     | {line}")
        return False

    def need(self, claim: str, so: bool, *involved: state.NodeState) -> None:
        """Check what the rest stands on. Raises Stopped."""
        if not self.check(claim, so, *involved):
            raise Stopped(claim)

    def stream(self, source: state.NodeState, address: str) -> Stream:
        found = Stream(source, address)
        self.open.append(found)
        return found

    def monitor(self, node: state.NodeState) -> Monitor:
        found = Monitor(node)
        self.open.append(found)
        return found

    def close(self) -> None:
        """End what is still running of the tour's own."""
        for process in [one.process for one in self.open if one.process.poll() is None]:
            process.kill()
            process.wait(run.COMMAND_S)
        for output in [one.output for one in self.open if not one.output.closed]:
            output.close()

    # ------------------------------------------------------------ the steps

    def walk(self) -> None:
        for step in (
            self.sessions,
            self.blocks_and_routes,
            lambda: self.explained("with all up"),
            self.matrix,
            self.uplinks,
            self.cut,
            self.lose,
            lambda: self.explained("healed"),
            self.daemon,
            lambda: self.explained("after the daemon's restart"),
            self.speaker,
            lambda: self.explained("after ExaBGP's restart"),
        ):
            step()

    def sessions(self) -> None:
        self.screen.title("Sessions: every node with both routers")
        count = len(self.nodes) * len(self.routers)

        def up() -> int:
            return sum(peer.state == "Established" for node in self.nodes for peer in self.peers(node))

        self.wait(f"{count} sessions Established", lambda: up() == count)
        for node in self.nodes:
            self.show(node, "bgpd", "peers")
        self.need(f"{up()} of {count} sessions are Established", up() == count, *self.nodes)

    def blocks_and_routes(self) -> None:
        self.screen.title("Blocks: one for each node, from one pool; routes: every node learns the others'")

        def claimed() -> bool:
            pools = self.ask(self.nodes[0], list[PoolUsage], "ipam", "show") or []
            self.blocks = {block.node: str(block.cidr) for pool in pools for block in pool.blocks if block.node}
            return {node.name for node in self.nodes} <= set(self.blocks)

        so = self.wait("a block for each node", claimed)
        self.show(self.nodes[0], "bgpd", "ipam", "show", "--show-blocks")
        self.need(f"{len(self.blocks)} nodes have a block: {', '.join(sorted(self.blocks.values()))}", so, *self.nodes)

        def two_legs(node: state.NodeState) -> bool:
            others = [block for owner, block in self.blocks.items() if owner != node.name]
            return all(self.legs(node, block) == ["eth1", "eth2"] for block in others)

        self.wait("routes over both uplinks in every kernel", lambda: all(two_legs(node) for node in self.nodes))
        for node in self.nodes:
            self.show(node, "bgpd", "routes")
            self.show(node, "ip", "route", "show", "proto", "179")
        for node in self.nodes:
            self.check(
                f"{node.name}: each remote block has one route over both uplinks, by a nexthop group",
                two_legs(node),
                node,
            )
        natives = all(self.kinds(node) == {"native"} for node in self.nodes)
        self.check("every node calls every remote block native", natives, *([] if natives else self.nodes))

    def explained(self, when: str) -> None:
        """Check that explain is complete for every sampled address, at every node at once, and says what ``ip route get`` says."""
        asking = {node.name: self.begin_walk(node) for node in self.nodes}
        for node in self.nodes:
            output, errors = asking[node.name].communicate(timeout=WALK_S)
            asked, wrong = 0, [errors[-500:]]
            if asking[node.name].returncode == 0:
                found = json.loads(output)
                asked, wrong = found["asked"], [f"{address} {what}" for address, what in found["wrong"].items()]
            more = f"; not {'; '.join(wrong[:5])}" if wrong else ""
            self.check(
                f"{node.name}, {when}: explain of {asked} addresses is complete, and agrees with ip route get{more}",
                bool(asked) and not wrong,
                node,
            )

    def begin_walk(self, node: state.NodeState) -> subprocess.Popen[str]:
        socket = node.env.get("BGPD_SOCKET", "/run/bgpd/bgpd.sock")
        command = [*run.enter(node), sys.executable, "-m", "bgpd.lab.walk", socket, *self.addresses(node)]
        environment = {**os.environ, **node.env}
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def addresses(self, node: state.NodeState) -> list[str]:
        """Sample: all addresses of all blocks, those beside, each 8th block of the pools' rest, bounds of peers' prefixes, random ones.

        A pool of 65,536 addresses in whole would take minutes, and any two addresses within the bounds of a block have the same routes
        but for workloads, which are in blocks.
        """
        found: set[int] = set()
        for block in map(ipaddress.ip_network, self.blocks.values()):
            first, last = int(block[0]), int(block[-1])
            found.update(range(first - 1, last + 2))
        for pool in self.ask(self.nodes[0], list[PoolUsage], "ipam", "show") or []:
            network = ipaddress.ip_network(str(pool.cidr))
            found.update({int(network[0]), int(network[-1]), *range(int(network[0]), int(network[-1]), WALK_STEP)})
        for route in self.ask(node, list[RouteView], "routes") or []:
            network = ipaddress.ip_network(route.prefix)
            if network.version == 4:
                found.update((int(network[0]), int(network[-1])))
        for peer in self.peers(node):
            found.update(int(ipaddress.ip_address(one)) for one in (peer.address, peer.local_address) if "." in one)
        found.update(self.chance.randrange(1 << 24, 223 << 24) for _ in range(WALK_RANDOM))
        return [str(ipaddress.IPv4Address(one)) for one in sorted(found)]

    def matrix(self) -> None:
        self.screen.title("Ping matrix of the workloads")
        names = [workload.name for workload in self.workloads]
        self.screen.line("   " + " " * 20 + "".join(f"{name:>10}" for name in names))
        lost = []
        for source in self.workloads:
            cells = []
            for target in self.workloads:
                rtt = "-" if source is target else self.ping(source, target.address)
                cells.append(f"{rtt:>10}")
                lost += [f"{source.name} to {target.name}"] if rtt == "lost" else []
            self.screen.line(f"   {source.name:<5}{source.address:<15}" + "".join(cells))
        self.check(
            f"every workload reaches every other{': not ' + ', '.join(lost) if lost else ''}",
            not lost,
            *self.nodes[: len(lost)],
        )

    def ping(self, source: state.NodeState, address: str) -> str:
        """Round-trip time of three pings, or ``lost`` if one was."""
        done = run.inside(source, ("ping", "-n", "-q", "-c", "3", "-i", "0.05", "-W", "1", address), check=False)
        found = re.search(r" = [\d.]+/([\d.]+)/", done.stdout)
        return f"{float(found[1]):.2f} ms" if found and " 0% packet loss" in done.stdout else "lost"

    def uplinks(self) -> None:
        self.screen.title(f"Uplinks: {FLOWS} UDP flows from w1 to each of the others")
        node, source = self.named("node1"), self.named("w1")
        before = {device: self.packets(node, device, "tx") for device in ("eth1", "eth2")}
        others = [workload.address for workload in self.workloads if workload is not source]
        run.inside(source, (sys.executable, "-I", "-S", flows.__file__, str(FLOWS), *others))
        moved = {device: self.packets(node, device, "tx") - count for device, count in before.items()}
        for device, count in moved.items():
            self.screen.line(f"   node1 {device}: {count} packets sent")
        self.check("both uplinks carry a share of the flows", min(moved.values()) >= FLOWS_MIN)

    def cut(self) -> None:
        self.screen.title("Cut: node1 loses its link to tor1; ECMP shrinks to one leg")
        one, two, w1, w2 = (self.named(name) for name in ("node1", "node2", "w1", "w2"))
        there, back = self.blocks["node2"], self.blocks["node1"]
        stream = self.stream(w1, w2.address)
        run.sh("ip", "-n", one.netns, "link", "set", "eth1", "down")
        self.screen.command("node1", "ip link set eth1 down", "")
        shrunk = self.wait(
            "one leg at node1 and at node2",
            lambda: (self.legs(one, there), self.legs(two, back)) == (["eth2"], ["eth2"]),
        )
        time.sleep(1)
        sent, lost = stream.stop()
        self.show(one, "ip", "route", "show", "proto", "179")
        self.show(one, "bgpd", "explain", w2.address)
        self.check("node1 and node2 reach each other over tor2 alone", shrunk, one, two)
        self.explained("with one uplink cut")
        self.check(
            f"w1 reaches w2 over one uplink ({lost} of {sent} pings lost at 100/s)",
            self.ping(w1, w2.address) != "lost",
            one,
            two,
        )
        run.sh("ip", "-n", one.netns, "link", "set", "eth1", "up")
        self.screen.command("node1", "ip link set eth1 up", "")
        both = ["eth1", "eth2"]
        grown = self.wait("both legs again", lambda: self.legs(one, there) == both and self.legs(two, back) == both)
        self.check("after the repair both uplinks are used again", grown, one, two)

    def lose(self) -> None:
        self.screen.title("Fallback: both routers shut their sessions with node1; its address stays reachable")
        one, two, w1, w2 = (self.named(name) for name in ("node1", "node2", "w1", "w2"))
        others = [node for node in self.nodes if node is not one]
        self.show(two, "bgpd", "explain", w1.address)
        stream = self.stream(w2, w1.address)
        time.sleep(1)
        for router in self.routers:
            self.session(router, one, up=False)

        def tunnelled() -> bool:
            return self.kinds(one) == {"fallback"} and all(self.kinds(node, "node1") == {"fallback"} for node in others)

        so = self.wait("node1's traffic in the tunnel, both ways", tunnelled)
        before = self.packets(two, "vxlan.bgpd", "tx"), self.packets(two, "vxlan.bgpd", "rx")
        time.sleep(STREAM_TAIL_S)
        after = self.packets(two, "vxlan.bgpd", "tx"), self.packets(two, "vxlan.bgpd", "rx")
        sent, lost = stream.stop()
        self.show(two, "bgpd", "explain", w1.address)
        self.show(two, "ip", "route", "get", w1.address)
        self.check("every node reaches node1's block by fallback, and node1 theirs", so, one, two)
        moved = [new - old for new, old in zip(after, before, strict=True)]
        self.check(
            f"the pings flow in VXLAN: vxlan.bgpd of node2 sent {moved[0]}, received {moved[1]}",
            min(moved) >= LOST_MAX,
            two,
        )
        self.check(
            f"w2 to w1 at 100 pings/s: {lost} of {sent} lost on the way into the tunnel (at most {LOST_MAX})",
            lost <= LOST_MAX,
            two,
        )
        self.explained("in fallback")
        self.heal(tunnelled)

    def heal(self, tunnelled: Callable[[], bool]) -> None:
        self.screen.title("Healing: the routers take their sessions with node1 back")
        one, two, w1, w2 = (self.named(name) for name in ("node1", "node2", "w1", "w2"))
        if not tunnelled():
            self.screen.line("   (node1 is not in fallback)")
        stream = self.stream(w2, w1.address)
        time.sleep(1)
        for router in self.routers:
            self.session(router, one, up=True)
        so = self.wait("all native again", lambda: all(self.kinds(node) == {"native"} for node in self.nodes))
        time.sleep(STREAM_TAIL_S)
        sent, lost = stream.stop()
        self.show(two, "bgpd", "explain", w1.address)
        self.check("every node reaches every block natively again", so, one, two)
        both = self.wait("both legs again", lambda: self.legs(two, self.blocks["node1"]) == ["eth1", "eth2"])
        self.check("over both uplinks", both, two)
        self.check(f"w2 to w1 at 100 pings/s: {lost} of {sent} lost on the way back", lost == 0, one, two)

    def session(self, router: state.NodeState, node: state.NodeState, *, up: bool) -> None:
        """Shut or open the router's session with a node, in the router's own words."""
        peer = next(peer for peer in self.peers(node) if peer.name == router.name)
        words: tuple[str, ...] = ("birdc", "enable" if up else "disable", node.name)
        if "bird" not in router.services:
            neighbor = f"{'no ' if up else ''}neighbor {peer.local_address} shutdown"
            words = ("vtysh", "-c", "configure terminal", "-c", f"router bgp {peer.asn}", "-c", neighbor)
        done = run.inside(router, words)
        quoted = " ".join(f"'{word}'" if " " in word else word for word in words)
        self.screen.command(router.name, quoted, done.stdout)

    def daemon(self) -> None:
        self.screen.title("kill -9 of the daemon on node2, and its restart")
        two, w1 = self.named("node2"), self.named("w1")
        others = {node.name: self.ups(node) for node in self.nodes if node is not two}
        was = self.ask(two, StatusView, "status")
        if not self.check("the daemon of node2 answers", was is not None, two) or was is None:
            return
        monitor, stream = self.monitor(two), self.stream(w1, self.named("w2").address)
        run.inside(two, ("sh", "-c", f"kill -9 {was.pid}"))
        self.screen.command("node2", f"kill -9 {was.pid}", "")

        def ready() -> bool:
            run.begin(two)
            now = self.ask(two, StatusView, "status")
            done = now is not None and now.pid != was.pid and now.phase.name == "ready"
            return done and now is not None and now.peers_established == len(self.routers)

        back = self.wait("the new daemon ready, with its sessions", ready)
        time.sleep(1)
        (sent, lost), changes = stream.stop(), monitor.stop()
        self.show(two, "bgpd", "status")
        self.check("the restarted daemon is ready", back, two)
        self.check(f"ip monitor route in node2 saw {len(changes)} changes", not changes, two)
        for change in changes[:10]:
            self.screen.line(f"     {change}")
        self.check(f"w1 to w2 at 100 pings/s: {lost} of {sent} lost", lost == 0, two)
        same = all(self.ups(self.named(name)) == ups for name, ups in others.items())
        self.check("the sessions of the other nodes stayed up", same)

    def ups(self, node: state.NodeState) -> list[tuple[str, str, int]]:
        return [(peer.name, peer.state, peer.transitions) for peer in self.peers(node)]

    def speaker(self) -> None:
        self.screen.title("kill -9 of ExaBGP on node2: the daemon brings it back, and no route leaves a kernel")
        two, w1 = self.named("node2"), self.named("w1")
        before = {peer.name: peer.since for peer in self.peers(two)}
        monitors = {node.name: self.monitor(node) for node in self.nodes}
        stream = self.stream(w1, self.named("w2").address)
        victims = self.speakers(two)
        if not self.check(
            f"ExaBGP runs on node2 (process {' '.join(map(str, victims)) or 'none'})", bool(victims), two
        ):
            return
        run.inside(two, ("sh", "-c", f"kill -9 {victims[0]}"))
        self.screen.command("node2", f"kill -9 {victims[0]}", "")

        def back() -> bool:
            peers = self.peers(two)
            return bool(peers) and all(
                peer.state == "Established" and peer.since != before[peer.name] for peer in peers
            )

        so = self.wait("new sessions with both routers", back)
        settled = self.wait(
            "nothing stale", lambda: all(peer.stale == 0 and peer.received > 0 for peer in self.peers(two))
        )
        time.sleep(1)
        sent, lost = stream.stop()
        gone = [
            f"{name}: {line}" for name, one in monitors.items() for line in one.stop() if line.startswith("Deleted")
        ]
        self.show(two, "bgpd", "peers")
        self.check("both sessions of node2 are Established anew", so, two)
        self.check("both routers have sent everything again", settled, two)
        self.check(
            f"{len(gone)} routes left a kernel meanwhile{': ' + '; '.join(gone[:5]) if gone else ''}", not gone, two
        )
        self.check(f"w1 to w2 at 100 pings/s: {lost} of {sent} lost", lost == 0, two)

    def speakers(self, node: state.NodeState) -> list[int]:
        """ExaBGP's first processes in a node: those that name it and whose parent does not."""
        listed = run.inside(node, ("ps", "-eo", "pid=,ppid=,args=")).stdout
        rows = [line.split(None, 2) for line in listed.splitlines()]
        ours = {int(pid): int(parent) for pid, parent, words in rows if "exabgp" in words and "ps -eo" not in words}
        return [pid for pid, parent in ours.items() if parent not in ours]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tour; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bgpd.lab.tour", description="Tour of the two-tor lab.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--keep", action="store_true", help="leave the lab up at the end")
    options = parser.parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    screen = Screen()
    try:
        return tour(options.file, screen, keep=options.keep)
    except (TopologyError, run.Refused) as error:
        screen.line(f"tour: {error}")
        return 2
    except run.Failed as error:
        screen.line(f"tour: {error}")
        return 1
    except KeyboardInterrupt:
        screen.line("tour: interrupted; the lab is taken down")
        return 130


def interrupted(number: int, _: FrameType | None) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


def tour(file: Path, screen: Screen, *, keep: bool) -> int:
    """Bring up, walk, sum up, take down. Raises what run.up raises."""
    began = time.monotonic()
    screen.title("The lab: two top-of-rack routers, three nodes with an uplink to each, a workload on every node")
    made = run.up(file, os.environ, lambda text: screen.line(f"   {text}"))
    walk = Tour(made, screen)
    kept = False
    try:
        try:
            walk.walk()
        except Stopped as reason:
            screen.line(f"   the rest of the tour needs this: {reason}")
        except run.Failed as error:
            walk.check(f"no command failed: {error}", so=False)
        finally:
            walk.close()
        kept = keep
    finally:
        if not kept:
            run.down(made.name, lambda text: screen.line(f"\n   {text}"))
    if kept:
        guide(made, screen)
    screen.line()
    good = walk.failed == 0
    summary = f"{walk.passed} checks passed, {walk.failed} failed"
    screen.line(screen.paint("1;32" if good else "1;31", summary) + f" ({time.monotonic() - began:.0f} s)")
    return 0 if good else 1


def guide(made: state.LabState, screen: Screen) -> None:
    """Say how to look around in a lab that stays, and how to take it down."""
    command = f"{sys.prefix}/bin/bgpd lab"
    screen.title("The lab stays up")
    for line in (
        "look around:",
        f"  {command} status",
        f"  {command} exec node1 -- bgpd routes",
        f"  {command} exec tor1 -- {'birdc show protocols' if 'bird' in made.node('tor1').services else 'vtysh'}",
        f"  {command} exec w1 -- ping {made.node('w2').address}",
        "take it down:",
        f"  {command} down {made.name}",
    ):
        screen.line(f"   {line}")


if __name__ == "__main__":
    sys.exit(main())
