"""A walk over addresses: what ``bgpd explain`` says of each is complete, and agrees with ``ip route get``.

``python -m bgpd.lab.walk SOCKET ADDRESS...`` runs in a node and prints a JSON object: how many were asked, and what is wrong. An address on
which both disagree is asked again for some seconds: what is decided reaches the kernel a moment later.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bgpd.api.client import Client
from bgpd.model.view import ExplainView

HERE: Final = (
    *("ipam", "sessions", "adj-rib-in", "next-hop", "decision", "node", "route", "announced", "packet"),
    "kernel",
)
"""The hops that every explanation has, in order."""
THERE: Final = ("ipam", "alive", "sessions", "route", "without BGP", "announced", "kernel")
"""Those of another node's view."""
SETTLE_S: Final = 30.0
"""Longest time that a disagreement may last, on a machine twice too busy."""
POLL_S: Final = 0.2
COMMAND_S: Final = 60.0
_FATES: Final = {
    "Invalid argument": "blackhole",
    "No route to host": "unreachable",
    "Permission denied": "prohibit",
    "Network is unreachable": "none",
}
"""What the kernel answers where no packet leaves (net/ipv4/fib_semantics.c: fib_props)."""


def incomplete(view: ExplainView, hops: Sequence[str]) -> str:
    """Say what an explanation lacks; empty where it is complete."""
    names = tuple(step.step for step in view.steps)
    if names != tuple(hops):
        return f"has the hops {', '.join(names)}"
    empty = [step.step for step in view.steps if not step.outcome]
    if empty or not view.answer:
        return f"says nothing at {', '.join(empty) or 'the answer'}"
    words = " ".join([view.answer, *(part for step in view.steps for part in (step.outcome, *step.detail))])
    return "says unknown" if "unknown" in words.lower() else ""


def route_get(addresses: Sequence[str]) -> dict[str, dict[str, Any] | str]:
    """Ask the kernel for the route to each address: its JSON, or the fate where there is none."""
    lines = "".join(f"route get {address}\n" for address in addresses)
    done = subprocess.run(
        ["ip", "-j", "-force", "-batch", "-"],
        input=lines,
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
    )
    failed: dict[int, str] = {}
    reason = ""
    for line in done.stderr.splitlines():
        if line.startswith("Command failed -:"):
            failed[int(line.rpartition(":")[2])] = _FATES.get(reason, reason)
        else:
            reason = line.removeprefix("RTNETLINK answers: ")
    decoder, rest, found = json.JSONDecoder(), done.stdout.lstrip(), []
    while rest:
        value, end = decoder.raw_decode(rest)
        found.append(value[0])
        rest = rest[end:].lstrip()
    answers = iter(found)
    return {address: failed[n] if n in failed else next(answers) for n, address in enumerate(addresses, 1)}


def disagreement(view: ExplainView, kernel: Mapping[str, Any] | str) -> str:
    """Say in what an explanation and the kernel differ; empty where they agree."""
    packet = view.packet
    assert packet is not None
    if isinstance(kernel, str):
        return "" if packet.fate == kernel else f"explain says {packet.fate}, the kernel {kernel}"
    fate = str(kernel.get("type", "unicast"))
    if packet.fate != fate:
        return f"explain says {packet.fate}, the kernel {fate}"
    if fate != "unicast":
        return ""
    gateway = kernel.get("gateway") or kernel.get("via", {}).get("host")
    via = f"{gateway} dev {kernel['dev']}" if gateway else f"dev {kernel['dev']}"
    return "" if via in packet.via else f"explain says via {' or '.join(packet.via)}, the kernel via {via}"


def walk(client: Client, addresses: Iterable[str]) -> dict[str, str]:
    """Return what is wrong, by address."""
    left = list(addresses)
    wrong: dict[str, str] = {}
    deadline = time.monotonic() + SETTLE_S
    while left:
        views = {address: client.explain(address) for address in left}
        wrong |= {address: lack for address, view in views.items() if (lack := incomplete(view, HERE))}
        kernel = route_get(left)
        found = {address: disagreement(views[address], kernel[address]) for address in left}
        left = [address for address in left if found[address]]
        if left and time.monotonic() > deadline:
            return wrong | {address: found[address] for address in left}
        if left:
            time.sleep(POLL_S)
    return wrong


def main(arguments: Sequence[str]) -> None:
    """Walk, and print the result."""
    client, addresses = Client(Path(arguments[0])), arguments[1:]
    nodes = [route.node for route in client.routes() if route.node]
    wrong = walk(client, addresses)
    for node in sorted(set(nodes)):
        if node == client.status().node:
            continue
        for address in addresses[:: max(1, len(addresses) // 16)]:
            lack = incomplete(client.explain(address, node), THERE)
            if lack:
                wrong[f"{address} from {node}"] = lack
    print(json.dumps({"asked": len(addresses), "wrong": wrong}))


if __name__ == "__main__":
    main(sys.argv[1:])
