"""``bgpd routes`` and ``bgpd explain``: how prefixes are reached, and why."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from bgpd.cli.options import BadInput, asking, asks, output
from bgpd.cli.render import BAD, DIM, GOOD, WARN, Cell, Column, Styled, Table, age, printable, show, show_json
from bgpd.model.prefix import Address, Prefix
from bgpd.model.view import ExplainView, PathView, PeerRouteView, RouteView, StepView, Which

F = TypeVar("F", bound=Callable[..., Any])

CODES = {
    "own": ("O", GOOD),
    "native": ("N", GOOD),
    "direct": ("D", GOOD),
    "tunnel": ("T", ""),
    "fallback": ("F", WARN),
    "unreachable": ("U", BAD),
    "bgp": ("B", ""),
    "foreign": ("K", ""),
    "waiting": ("W", WARN),
    "unused": ("-", DIM),
}
"""Letter and style for each kind of RouteView."""

LEGEND = """\
Codes: O own block, N native, D direct on the link, T tunnel, F fallback tunnel, U unreachable, B from BGP only,
       K kept route of another, W waiting for facts; * programmed, k kept from before, q pending, r failed
"""
PATH_LEGEND = "Codes: > best, = equal to it, S stale\n"

_FLAGS = {"programmed": ("*", ""), "kept": ("k", ""), "none": (" ", ""), "pending": ("q", WARN)}
"""Flag and style for each status of RouteView; any other is ``failed: reason``."""
_FAILED = ("r", BAD)


def _which(command: F) -> F:
    """Add the options that choose the routes of peers; the function gets *which*, None without one."""
    texts = {
        Which.RECEIVED: "What peers sent.",
        Which.ACCEPTED: "Of that, what may be chosen.",
        Which.REJECTED: "Of that, what may not, and by which rule.",
        Which.ADVERTISED: "What we announce to peers.",
    }
    for which, text in reversed(texts.items()):
        command = click.option(f"--{which.value}", "which", flag_value=which.value, help=text)(command)
    return command


@click.command()
@click.argument("prefix", required=False)
@click.option(
    "--peer", metavar="NAME", help="Routes of this peer only (name or address); those received unless said otherwise."
)
@_which
@output()
@asks
def routes(prefix: str | None, peer: str | None, which: str | None, socket: Path, output: str) -> None:
    """Show how prefixes are reached; with PREFIX, all paths to it and the step at which each lost.

    With --peer or one of the options below: the routes of the sessions (adj-rib-in and adj-rib-out).
    """
    wanted = None if prefix is None else _prefix(prefix)
    if peer is not None or which is not None:
        with asking(socket) as client:
            rows = client.peer_routes(peer, Which(which or Which.RECEIVED), wanted)
        if output == "json":
            show_json(rows)
        elif rows:
            show(peer_routes_table(rows, time.time()))
        else:
            click.echo("there are no such routes", err=True)
        return
    with asking(socket) as client:
        views = client.routes(wanted)
    if output == "json":
        show_json(views)
    elif not views:
        click.echo("there are no routes" if wanted is None else f"{wanted} is not in the table", err=True)
    elif wanted is None:
        show(LEGEND, routes_table(views, time.time()))
    else:
        for view in views:
            show(*route_parts(view, time.time()))


@click.command()
@click.argument("query", metavar="ADDRESS|PREFIX")
@click.option("--from", "node", metavar="NODE", help="As NODE reaches it, as far as the store tells.")
@output()
@asks
def explain(query: str, node: str | None, socket: Path, output: str) -> None:
    """Explain how ADDRESS or PREFIX is reached: every decision from the store to the kernel, and what changed last.

    Each hop is there, also where it has nothing, with the reason. The packet hop is what `ip route get` says, told by what is desired.
    """
    _check_query(query)
    with asking(socket) as client:
        view = client.explain(query, node)
    if output == "json":
        show_json(view)
    else:
        show(*explain_parts(view))


def _prefix(text: str) -> Prefix:
    try:
        return Prefix.parse(text)
    except ValueError as defect:
        hint = "" if "/" in text else "; for a single address there is `bgpd explain`"
        raise BadInput(f"{defect}{hint}") from defect


def _check_query(text: str) -> None:
    """Find a bad query before the daemon is asked: the answer is the same whether it runs or not."""
    try:
        _ = Prefix.parse(text) if "/" in text else Address.parse(text)
    except ValueError as defect:
        raise BadInput(str(defect)) from defect


# ------------------------------------------------------------------ layouts


def routes_table(views: list[RouteView], now: float) -> Table:
    """Lay out routes, one a row, with code letters as routers have them."""
    columns = (
        Column(""),
        Column("PREFIX"),
        Column("NODE"),
        Column("VIA"),
        Column("STATUS"),
        Column("AGE", right=True),
        Column("REASON"),
    )
    return Table(columns, [_route(view, now) for view in views])


def _route(view: RouteView, now: float) -> tuple[Cell, ...]:
    letter, style = CODES.get(view.kind, ("?", ""))
    flag, _ = _FLAGS.get(view.status, _FAILED)
    return (
        Styled(letter + flag, style),
        view.prefix,
        view.node,
        view.via,
        _status(view.status),
        age(view.since, now),
        view.reason,
    )


def _status(status: str, duration: str = "") -> Styled:
    _, style = _FLAGS.get(status, _FAILED)
    word, colon, reason = status.partition(": ")
    return Styled(f"{word}{duration}{colon}{reason}", style)


def route_parts(view: RouteView, now: float) -> list[str | Table]:
    """Lay out one route: what is done, then every path with its fate."""
    _, style = CODES.get(view.kind, ("?", ""))
    since = age(view.since, now)
    rows: list[tuple[Cell, Cell]] = [
        ("prefix", view.prefix),
        ("reached", Styled(f"{view.kind}: {view.reason}" if view.reason else view.kind, style)),
        ("node", view.node),
        ("via", view.via),
        ("status", _status(view.status, f" for {since}" if since else "")),
    ]
    used = sum(path.best or path.equal for path in view.paths)
    parts: list[str | Table] = [Table((Column(""), Column("")), rows), f"\nPaths: {len(view.paths)} known, {used} used"]
    if view.paths:
        parts += [PATH_LEGEND, paths_table(view.paths, now)]
    return parts


def paths_table(paths: tuple[PathView, ...], now: float) -> Table:
    """Lay out the paths of a prefix, best first, each with why it is not used."""
    columns = (
        Column(""),
        Column("PEER"),
        Column("NEXT HOP"),
        Column("AS PATH"),
        Column("ORIGIN"),
        Column("MED", right=True),
        Column("LOCPRF", right=True),
        Column("COMMUNITIES"),
        Column("AGE", right=True),
        Column("WHY NOT"),
    )
    ordered = sorted(paths, key=lambda path: (not path.best, not path.equal))
    return Table(columns, [_path(path, now) for path in ordered])


def _path(path: PathView, now: float) -> tuple[Cell, ...]:
    code = ">" if path.best else "=" if path.equal else " "
    style = GOOD if path.best or path.equal else DIM
    return (
        Styled(f"{code}{'S' if path.stale else ''}", style),
        path.peer,
        path.next_hop,
        path.as_path,
        path.origin,
        path.med,
        path.local_pref,
        " ".join(path.communities),
        age(path.since, now),
        path.why_not,
    )


def peer_routes_table(views: list[PeerRouteView], now: float) -> Table:
    """Lay out routes of sessions, one a row."""
    columns = (
        Column("PREFIX"),
        Column("PEER"),
        Column("NEXT HOP"),
        Column("AS PATH"),
        Column("MED", right=True),
        Column("LOCPRF", right=True),
        Column("COMMUNITIES"),
        Column("AGE", right=True),
        Column("STATUS"),
    )
    return Table(columns, [_peer_route(view, now) for view in views])


def _peer_route(view: PeerRouteView, now: float) -> tuple[Cell, ...]:
    path = view.path
    used = (
        "best" if path.best else "equal to the best" if path.equal else f"lost: {path.why_not}" if path.why_not else ""
    )
    accepted = view.status == "accepted"
    return (
        view.prefix + (f" [{view.path_id}]" if view.path_id else ""),
        path.peer,
        path.next_hop,
        path.as_path,
        path.med,
        path.local_pref,
        " ".join(path.communities),
        age(path.since, now),
        Styled(f"{view.status}, {used}" if accepted and used else view.status, GOOD if path.best or path.equal else ""),
    )


def explain_parts(view: ExplainView) -> list[str | Table]:
    """Lay out an explanation: the answer, its steps with what each saw, the last changes."""
    parts: list[str | Table] = [click.style(printable(view.answer), bold=True)]
    if view.steps:
        width = max(len(step.step) for step in view.steps)
        parts += ["", *(_step(number, step, width) for number, step in enumerate(view.steps, start=1))]
    if view.changes:
        parts += ["\nLast changes, newest first:", *(f"  {printable(change)}" for change in view.changes)]
    return parts


def _step(number: int, step: StepView, width: int) -> str:
    head = f"{number:2}. {click.style(printable(step.step).ljust(width), fg='cyan')}  {printable(step.outcome)}"
    return "\n".join([head.rstrip(), *(f"    {'':{width}}  {printable(line)}" for line in step.detail)])
