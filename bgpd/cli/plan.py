"""``bgpd plan``: what files of resources would change, and what nodes would do about it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click
import msgspec

from bgpd.adapters.store.base import Put, Store
from bgpd.adapters.store.resources import Outcome, Prepared, Removal, Verb, blocks, list_resources, prepare
from bgpd.adapters.store.watch import contents, told
from bgpd.cli.config import ENVIRONMENT
from bgpd.cli.config import read as read_config
from bgpd.cli.options import output
from bgpd.cli.render import GOOD, WARN, printable, show_json
from bgpd.cli.store import Absent, documents, files, on_store, stores
from bgpd.config.load import DEFAULT_PATH
from bgpd.core.outlook import NodePlan, compare, outlook
from bgpd.core.resource import check, kinds
from bgpd.core.resource.check import Document, Resource
from bgpd.core.resource.plan import World, difference, effects
from bgpd.model.event import Configured, Event, NodeChanged, Options
from bgpd.model.node import Node

NODES_MAX: Final = 100
"""Nodes worked out, each with sessions and blocks of all: a cluster of 20 takes 1 s, one of 100 some 25 s."""
_COLOURS = {"+": GOOD, "-": "red", "~": WARN}


class ChangeView(msgspec.Struct, frozen=True):
    """What becomes of one resource."""

    kind: str
    name: str
    action: str
    """created, replaced, unchanged or deleted."""
    fields: tuple[str, ...]
    """``+ path: value``, ``- path: value``, ``~ path: old -> new``."""


class PlanView(msgspec.Struct, frozen=True):
    changes: tuple[ChangeView, ...]
    effects: tuple[str, ...]
    ignored: tuple[str, ...] = ()
    """Stored resources that break rules, and which are therefore not reckoned with."""
    nodes: tuple[NodePlan, ...] = ()
    """What this node, or each of the cluster, would do differently; those with no difference are left out."""
    nodes_beyond: int = 0
    """Nodes that were not worked out."""


@click.command()
@files
@click.option("--delete", "gone", is_flag=True, help="Plan the deletion of the resources that the files name.")
@click.option("--cluster", is_flag=True, help="Say of every node of the store what it would do, not of this one alone.")
@output()
@stores
def plan(
    *, filenames: tuple[str, ...], recursive: bool, gone: bool, cluster: bool, output: str, store: str | None
) -> None:
    """Show what `bgpd apply -f` of the same files would change, field by field, and what nodes would do about it.

    Sessions, announcements to each peer, blocks, and the path of each remote node's blocks, now and should BGP be lost, are worked
    out by the daemon's own code from what is stored: of this node (with its configuration file), or with --cluster of each node.
    Configuration files of other nodes are not known here, nor what routers announce: they are taken to announce all
    blocks. Nothing is written. At most 100 nodes are worked out.
    """
    wanted = documents(filenames, recursive=recursive)
    view = on_store(store, lambda opened: _plan(opened, wanted, gone=gone, cluster=cluster), Absent.PRETEND)
    if output == "json":
        show_json(view)
    else:
        _show(view)


async def _plan(store: Store, wanted: Sequence[Document], *, gone: bool, cluster: bool) -> PlanView:
    removals = [Removal(one.kind, one.name) for one in wanted] if gone else []
    prepared = await prepare(store, Verb.APPLY, [] if gone else wanted, removals, force=True)
    known: dict[tuple[str, str], Resource] = {}
    ignored: list[str] = []
    for kind in kinds.KINDS:
        for item in (await list_resources(store, kind)).items:
            if check.read("", item.resource)[0] is None:
                ignored.append(f"{kind.kind} {item.name}")
            else:
                known[kind.kind, item.name] = item.resource
    held = await blocks(store)
    after = dict(known)
    for outcome in prepared.outcomes:
        if outcome.after is None:
            after.pop((outcome.kind.kind, outcome.name), None)
        else:
            after[outcome.kind.kind, outcome.name] = outcome.after
    changes = tuple(_change(outcome) for outcome in prepared.outcomes)
    nodes, beyond = await _nodes(store, prepared, cluster=cluster)
    lines = tuple(effects(World(known, held), World(after, held)))
    return PlanView(changes, lines, tuple(ignored), nodes, beyond)


async def _nodes(store: Store, prepared: Prepared, *, cluster: bool) -> tuple[tuple[NodePlan, ...], int]:
    """Work out what this node, or each of the cluster, would do; nodes beyond NODES_MAX are counted."""
    before = await contents(store)
    after = dict(before)
    for write in prepared.writes:
        if isinstance(write, Put):
            after[write.key] = write.value
        else:
            after.pop(write.key, None)
    old, new = told(before.items()), told(after.items())
    mine = _mine()
    names = sorted({one.node.name for one in (*old, *new) if isinstance(one, NodeChanged)})
    if not cluster:
        names = [] if mine is None else [mine.node.name]
    found = [
        compare(name, outlook(_configured(name, old, mine), old), outlook(_configured(name, new, mine), new))
        for name in names[:NODES_MAX]
    ]
    return tuple(one for one in found if one), len(names[NODES_MAX:])


def _mine() -> Configured | None:
    """Return what this node's configuration file says; None where there is none, or its address is found at start only."""
    path = Path(os.environ.get(ENVIRONMENT) or DEFAULT_PATH)
    if not path.exists():
        return None
    config = read_config(path)
    return None if config.address_method() is not None else config.configured()


def _configured(name: str, stored: Sequence[Event], mine: Configured | None) -> Configured:
    """Describe a node: this one by its file, another by its resource, with the options of this one's file."""
    if mine is not None and mine.node.name == name:
        return mine
    node = next((one.node for one in stored if isinstance(one, NodeChanged) and one.node.name == name), Node(name=name))
    return Configured(node=node, peers=(), options=mine.options if mine is not None else Options())


def _change(outcome: Outcome) -> ChangeView:
    fields = difference(outcome.before, outcome.after)
    return ChangeView(outcome.kind.kind, outcome.name, outcome.action, tuple(fields))


def _show(view: PlanView) -> None:
    for title in view.ignored:
        click.echo(f"bgpd: {printable(title)} is stored, but breaks rules: it is not reckoned with", err=True)
    for change in view.changes:
        word = "unchanged" if change.action == "unchanged" else f"would be {change.action}"
        click.echo(f"{change.kind} {printable(change.name)}: {word}")
        for line in change.fields:
            click.echo(click.style(f"  {printable(line)}", fg=_COLOURS[line[0]]))
    for node in view.nodes:
        click.echo(f"\n{printable(node.node)}:")
        for line in (*node.sessions, *node.announcements, *node.blocks, *node.paths):
            click.echo(f"  {printable(line)}")
    if view.nodes_beyond:
        click.echo(f"\n{view.nodes_beyond} more nodes were not worked out (at most {NODES_MAX})")
    if view.effects:
        click.echo("\nWhat nodes would do, as far as resources tell:")
        for line in view.effects:
            click.echo(f"  {printable(line)}")
    elif any(change.action != "unchanged" for change in view.changes):
        click.echo("\nNo session, prefix or block would be affected, as far as resources tell.")
