"""``bgpd peers``, ``bgpd refresh`` and ``bgpd reset``: the BGP sessions."""

from __future__ import annotations

import time
from pathlib import Path

import click

from bgpd.cli.options import asking, asks, output
from bgpd.cli.render import BAD, GOOD, WARN, Cell, Column, Styled, Table, age, show, show_json
from bgpd.model.view import FamilyView, PeerView


@click.command()
@click.argument("name", required=False)
@output()
@asks
def peers(name: str | None, socket: Path, output: str) -> None:
    """Show the BGP sessions; with NAME (or an address) one of them in detail.

    RECEIVED counts the routes of the peer, ACCEPTED those that may be chosen, ANNOUNCED ours to it. REASON says why there is no
    session, or why the last one ended.
    """
    with asking(socket) as client:
        views = client.peers(name)
    if output == "json":
        show_json(views)
    elif name is not None:
        for view in views:
            show(*peer_parts(view, time.time()))
    elif views:
        show(peers_table(views, time.time()))
    else:
        click.echo("no peer is configured", err=True)


@click.command()
@click.argument("peer")
@output()
@asks
def refresh(peer: str, socket: Path, output: str) -> None:
    """Have PEER send everything again (route refresh, RFC 2918).

    What it does not send again is dropped when it has finished; until then nothing changes.
    """
    with asking(socket) as client:
        client.refresh(peer)
    _done(output, peer, f"{peer} was asked to send everything again")


@click.command()
@click.argument("peer")
@click.option(
    "--hard", is_flag=True, help="Let no route outlive it, where both sides agreed that some would (RFC 8538)."
)
@click.option("--message", default="", metavar="TEXT", help="Tell the neighbor's operator why (RFC 9003, 255 bytes).")
@output()
@asks
def reset(peer: str, *, hard: bool, message: str, socket: Path, output: str) -> None:
    """End the session with PEER with a NOTIFICATION (Administrative Reset), to begin a new one."""
    with asking(socket) as client:
        client.reset(peer, hard=hard, message=message)
    _done(output, peer, f"the session with {peer} is ended, and begins anew")


def _done(output: str, peer: str, sentence: str) -> None:
    if output == "json":
        show_json({"peer": peer, "done": True})
    else:
        click.echo(sentence)


# ------------------------------------------------------------------ layouts


def peers_table(views: list[PeerView], now: float) -> Table:
    """Lay out sessions, one a row."""
    columns = (
        Column("NAME"),
        Column("ADDRESS"),
        Column("AS", right=True),
        Column("STATE"),
        Column("SINCE", right=True),
        Column("RECEIVED", right=True),
        Column("ACCEPTED", right=True),
        Column("ANNOUNCED", right=True),
        Column("REASON"),
    )
    return Table(columns, [_peer(view, now) for view in views])


def _peer(view: PeerView, now: float) -> tuple[Cell, ...]:
    stale = f"{view.stale} stale" if view.stale else ""
    bfd = f"BFD {view.bfd.state}{f': {view.bfd.reason}' if view.bfd.reason else ''}" if view.bfd is not None else ""
    return (
        view.name,
        view.address,
        view.asn,
        Styled(view.state, GOOD if view.state == "Established" else BAD),
        age(view.since, now) or "never",
        view.received,
        view.accepted,
        view.announced,
        "; ".join(filter(None, (stale, view.reason, bfd))),
    )


def peer_parts(view: PeerView, now: float) -> list[str | Table]:
    """Lay out one session: state and why, timers, capabilities of both sides, each family."""
    up = view.state == "Established"
    since = age(view.since, now)
    hold = f"hold {view.hold_time_s} s, keepalive {view.keepalive_s} s" if view.hold_time_s is not None else ""
    link = f" on {view.interface}" if view.interface else ""
    errors = tuple(f"{count} {kind}" for kind, count in view.errors.items())
    bfd = f"{view.bfd.state}{f': {view.bfd.reason}' if view.bfd.reason else ''}" if view.bfd is not None else ""
    rows: list[tuple[Cell, Cell]] = [
        ("peer", f"{view.name}, {view.address}{link}, AS {view.asn}, {view.kind}"),
        ("local", f"{view.local_address}, AS {view.local_asn}"),
        ("state", Styled(f"{view.state} for {since}" if since else view.state, GOOD if up else BAD)),
        ("last end" if up else "why", Styled(view.reason, "" if up else WARN)),
        ("transitions", view.transitions),
        ("router id", view.router_id),
        ("timers", hold),
        ("we offer", view.offered),
        ("it offers", view.received_capabilities),
        ("used", view.capabilities),
        ("malformed", errors),
        ("bfd", bfd),
    ]
    columns = (
        Column("FAMILY"),
        Column("RECEIVED", right=True),
        Column("ACCEPTED", right=True),
        Column("STALE", right=True),
        Column("ANNOUNCED", right=True),
        Column("END OF RIB"),
    )
    return [Table((Column(""), Column("")), rows), "", Table(columns, [_family(each) for each in view.families])]


def _family(view: FamilyView) -> tuple[Cell, ...]:
    complete = Styled("yes", GOOD) if view.complete else Styled("not yet", WARN)
    return (view.family, view.received, view.accepted, view.stale, view.announced, complete)
