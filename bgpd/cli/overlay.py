"""``bgpd overlay``: how other nodes are reached, probes by each way, and forced ways."""

from __future__ import annotations

import time
from pathlib import Path

import click

from bgpd.cli.drain import duration
from bgpd.cli.options import asking, asks, output
from bgpd.cli.render import BAD, GOOD, WARN, Cell, Column, Styled, Table, age, show, show_json
from bgpd.cli.status import force_text
from bgpd.model.overlay import (
    FORCE_LIMIT_S,
    INTERVAL_LIMIT_MS,
    PROBES_LIMIT,
    CandidateView,
    CounterView,
    ForceRequest,
    ForceView,
    OverlayView,
    ProbeRequest,
    ProbeView,
)
from bgpd.model.overlay import Path as Way

_STYLES = {"native": GOOD, "direct": GOOD, "tunnel": GOOD, "fallback": WARN, "unreachable": BAD}


class _Group(click.Group):
    """``bgpd overlay NODE`` is ``bgpd overlay show NODE``: what is no subcommand is a node."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["show", *args]
        return super().resolve_command(ctx, args)


@click.group(cls=_Group, invoke_without_command=True)
@output()
@asks
@click.pass_context
def overlay(ctx: click.Context, socket: Path, output: str) -> None:
    """Show how other nodes are reached, natively or through a tunnel, and why: `bgpd overlay`, or `bgpd overlay NODE`.

    A node that is named like a subcommand is shown by `bgpd overlay show NODE`.
    """
    if ctx.invoked_subcommand is None:
        _show(None, socket, output)


@overlay.command(name="show")
@click.argument("node", required=False)
@output()
@asks
def show_(node: str | None, socket: Path, output: str) -> None:
    """Show all nodes, or NODE with every way to it, what is in the way of each, and counters.

    PATH is the worst way that one of its blocks goes. NODE's counters are the kernel's: of its nexthop group where packets have a choice
    (kernels from 6.9), and of the devices in use, which serve other nodes, too.
    """
    _show(node, socket, output)


@overlay.command()
@click.argument("node")
@click.option("--count", type=click.IntRange(1, PROBES_LIMIT), default=5, show_default=True, help="Probes by each way.")
@click.option(
    "--interval",
    "interval_ms",
    type=click.IntRange(10, INTERVAL_LIMIT_MS),
    default=100,
    show_default=True,
    metavar="MS",
    help="Time between two of them.",
)
@output()
@asks
def test(node: str, count: int, interval_ms: int, socket: Path, output: str) -> None:
    """Probe NODE by each way and report loss and round-trip time; exit status 1 where the way in use loses all of them.

    ICMP echo requests go to the node's own address by each device: natively by each uplink in use, and through each tunnel. Answers come
    back by the way that NODE chooses, so that each row is about the way towards it. Natively that tests the routers' way to the node's
    address; that they lead to its blocks, too, only traffic to a workload can show. Traffic of workloads is not touched.
    """
    with asking(socket) as client:
        views = client.overlay_test(ProbeRequest(node=node, count=count, interval_ms=interval_ms))
        used = client.overlay(node)[0]
    if output == "json":
        show_json(views)
    else:
        show(probes_table(views))
    in_use = {one.path for one in used.candidates if one.in_use}
    if any(one.path in in_use and one.sent and not one.received for one in views):
        raise SystemExit(1)


@overlay.command()
@click.argument("node")
@click.argument("path", type=click.Choice([way.value for way in Way]))
@click.option(
    "--for", "for_s", type=duration, metavar="TIME", help="End it after so long: 90s, 10m, 1h. Otherwise `auto` does."
)
@output()
@asks
def force(node: str, path: str, for_s: float | None, socket: Path, output: str) -> None:
    """Send this node's traffic to NODE by PATH, whatever pools say; auto: by their rules again.

    It survives restarts of the daemon. Where PATH cannot be used later on, traffic goes by the rules, and `bgpd explain` says so. The other
    direction is NODE's own affair.
    """
    if for_s is not None and not 0 < for_s <= FORCE_LIMIT_S:
        raise click.BadParameter("a forced way holds for more than 0s", param_hint="--for")
    with asking(socket) as client:
        client.overlay_force(ForceRequest(node=node, path=Way(path), for_s=for_s))
        view = client.overlay(node)[0] if path != Way.AUTO else None
    if output == "json":
        show_json({"node": node, "path": path, "until": view.forced_until if view is not None else None})
    elif view is None:
        click.echo(f"the way to {node} is chosen by its pools' rules")
    else:
        click.echo(f"{node} is reached by {force_text(ForceView(node, path, view.forced_until), time.time())}")


def _show(node: str | None, socket: Path, output: str) -> None:
    with asking(socket) as client:
        views = client.overlay(node)
    if output == "json":
        show_json(views)
    elif node is not None:
        for view in views:
            show(*node_parts(view, time.time()))
    elif views:
        show(nodes_table(views, time.time()))
    else:
        click.echo("there is no other node", err=True)


# ------------------------------------------------------------------ layouts


def nodes_table(views: list[OverlayView], now: float) -> Table:
    """Lay out nodes, one a row."""
    columns = (
        Column("NODE"),
        Column("ADDRESS"),
        Column("PATH"),
        Column("SINCE", right=True),
        Column("VIA"),
        Column("MTU", right=True),
        Column("BLOCKS", right=True),
        Column("WHY"),
    )
    return Table(columns, [_row(view, now) for view in views])


def _row(view: OverlayView, now: float) -> tuple[Cell, ...]:
    return (
        view.node,
        view.address,
        Styled(view.path, _STYLES.get(view.path, "")),
        age(view.since, now),
        view.via,
        view.mtu_bytes or None,
        sum(view.blocks.values()),
        view.reason,
    )


def node_parts(view: OverlayView, now: float) -> list[str | Table]:
    """Lay out one node: its way and why, every way, and counters."""
    since = age(view.since, now)
    forced = force_text(ForceView(view.node, view.forced, view.forced_until), now) if view.forced else ""
    rows: list[tuple[Cell, Cell]] = [
        ("node", f"{view.node}, {view.address or 'no address'}, {'alive' if view.alive else 'not alive (no lease)'}"),
        ("path", Styled(f"{view.path} for {since}" if since else view.path, _STYLES.get(view.path, ""))),
        ("why", view.reason),
        ("forced", Styled(forced, WARN)),
        ("via", view.via),
        ("mtu", view.mtu_bytes or None),
        ("blocks", tuple(f"{count} {way}" for way, count in sorted(view.blocks.items()))),
    ]
    columns = (Column("CANDIDATE"), Column("USABLE"), Column("VIA"), Column("MTU", right=True), Column("WHY NOT"))
    parts: list[str | Table] = [
        Table((Column(""), Column("")), rows),
        "",
        Table(columns, [_candidate(each) for each in view.candidates]),
    ]
    if view.counters:
        titles = ("COUNTER", "OF", "SENT", "BYTES", "RECEIVED", "BYTES", "ERRORS")
        counted = tuple(Column(title, right=at > 1) for at, title in enumerate(titles))
        parts += ["", Table(counted, [_counter(each) for each in view.counters])]
    return parts


def _candidate(view: CandidateView) -> tuple[Cell, ...]:
    usable = Styled("in use", GOOD) if view.in_use else Styled("yes", "") if view.usable else Styled("no", WARN)
    return (view.path, usable, view.via, view.mtu_bytes or None, view.reason)


def _counter(view: CounterView) -> tuple[Cell, ...]:
    sent, received = (view.sent_packets, view.sent_bytes), (view.received_packets, view.received_bytes)
    return (view.name, view.of, *sent, *received, view.errors)


def probes_table(views: list[ProbeView]) -> Table:
    """Lay out probes, one way a row."""
    columns = (
        Column("PATH"),
        Column("DEVICE"),
        Column("SENT", right=True),
        Column("RECEIVED", right=True),
        Column("LOSS", right=True),
        Column("MIN MS", right=True),
        Column("AVG MS", right=True),
        Column("MAX MS", right=True),
        Column("WHY"),
    )
    return Table(columns, [_probe(view) for view in views])


def _probe(view: ProbeView) -> tuple[Cell, ...]:
    loss: Cell = None
    if view.sent:
        lost = view.sent - view.received
        loss = Styled(f"{view.loss_percent:.0f}%", BAD if lost == view.sent else WARN if lost else GOOD)
    times = (None if at is None else f"{at:.2f}" for at in (view.min_ms, view.avg_ms, view.max_ms))
    return (view.path, view.device, view.sent or None, view.received if view.sent else None, loss, *times, view.reason)
