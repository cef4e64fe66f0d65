"""``bgpd status``: how the daemon is."""

from __future__ import annotations

import time
from pathlib import Path

import click

from bgpd.cli.options import asking, asks, output
from bgpd.cli.render import BAD, GOOD, WARN, Cell, Column, Styled, Table, age, show, show_json
from bgpd.model.overlay import ForceView
from bgpd.model.view import DrainView, PhaseView, StatusView


@click.command()
@output()
@asks
def status(socket: Path, output: str) -> None:
    """Show how the daemon is: phase, store, sessions, routes."""
    with asking(socket) as client:
        view = client.status()
    if output == "json":
        show_json(view)
    else:
        show(status_table(view, time.time()))


def status_table(view: StatusView, now: float) -> Table:
    """Lay out the status as lines of a name and a value."""
    established, configured = view.peers_established, view.peers_configured
    rows: list[tuple[Cell, Cell]] = [
        ("node", f"{view.node}, AS {view.asn}, router id {view.router_id}"),
        ("daemon", f"bgpd {view.version}, pid {view.pid}, up {age(view.started, now)}"),
        ("phase", _phase(view.phase, now)),
        ("store", _connection(view.store, "synced", view.store_since, now)),
        ("speaker", _connection(view.speaker, "attached", view.speaker_since, now)),
        ("peers", Styled(f"{established} of {configured} established", GOOD if established == configured else WARN)),
        ("blocks", view.blocks_own),
        ("routes", _routes(view)),
        ("nodes", _nodes(view)),
    ]
    if view.mtu_workload_bytes:
        rows.append(("mtu", f"{view.mtu_workload_bytes} for workloads, {view.mtu_uplink_bytes} on the uplinks"))
    if view.drain is not None:
        rows.append(("drain", drain_text(view.drain, now)))
    if view.forced:
        rows.append(("forced", tuple(f"{each.node}: {force_text(each, now)}" for each in view.forced)))
    return Table((Column(""), Column("")), rows)


def drain_text(drain: DrainView, now: float) -> Styled:
    """Say how far the node is on its way out of the traffic."""
    kept = ", its blocks excepted" if drain.keep_blocks else ""
    if drain.until is None:
        return Styled(f"drained for {age(drain.since, now)}: nothing is announced{kept} ({drain.reason})", WARN)
    rate = "not measured yet" if drain.traffic_pps is None else f"{drain.traffic_pps:.0f} packets/s"
    left = max(0, round(drain.until - now))
    return Styled(
        f"draining for {age(drain.since, now)}: {rate}, waiting for fewer than {drain.below_pps} or {left} s more{kept}",
        WARN,
    )


def force_text(force: ForceView, now: float) -> str:
    """Say which way is forced, and for how long still."""
    if force.until is None:
        return f"{force.path}, until `bgpd overlay force {force.node} auto`"
    return f"{force.path} for {max(0, round(force.until - now))} s more"


def _phase(phase: PhaseView, now: float) -> Styled:
    waiting = f", waiting for {', '.join(phase.waiting_for)}" if phase.waiting_for else ""
    return Styled(f"{phase.name} for {age(phase.since, now)}{waiting}", GOOD if phase.name == "ready" else WARN)


def _connection(state: str, good: str, since: float | None, now: float) -> Styled:
    duration = f" for {age(since, now)}" if since is not None else ""
    word, colon, reason = state.partition(": ")
    return Styled(f"{word}{duration}{colon}{reason}", GOOD if state == good else BAD)


def _routes(view: StatusView) -> Styled:
    text = f"{view.routes_learned} learned, {view.routes_desired} desired, {view.routes_failed} failed"
    return Styled(text, BAD if view.routes_failed else "")


def _nodes(view: StatusView) -> Styled:
    text = f"{view.nodes_native} native, {view.nodes_fallback} in fallback, {view.nodes_unreachable} unreachable"
    return Styled(text, BAD if view.nodes_unreachable else WARN if view.nodes_fallback else "")
