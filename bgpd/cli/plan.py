"""``bgpd plan``: what files of resources would change, and what nodes would do about it."""

from __future__ import annotations

from collections.abc import Sequence

import click
import msgspec

from bgpd.adapters.store.base import Store
from bgpd.adapters.store.resources import Outcome, Removal, Verb, blocks, list_resources, prepare
from bgpd.cli.options import output
from bgpd.cli.render import GOOD, WARN, printable, show_json
from bgpd.cli.store import Absent, documents, files, on_store, stores
from bgpd.core.resource import check, kinds
from bgpd.core.resource.check import Document, Resource
from bgpd.core.resource.plan import World, difference, effects

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


@click.command()
@files
@click.option("--delete", "gone", is_flag=True, help="Plan the deletion of the resources that the files name.")
@output()
@stores
def plan(filenames: tuple[str, ...], recursive: bool, gone: bool, output: str, store: str | None) -> None:
    """Show what `bgpd apply -f` of the same files would change, field by field, and what nodes would do about it.

    Sessions added, removed or reset, prefixes announced or withdrawn, and blocks affected are worked out from the
    resources and blocks that are stored; what nodes have configured beside them is not known here. Nothing is written.
    """
    wanted = documents(filenames, recursive=recursive)
    view = on_store(store, lambda opened: _plan(opened, wanted, gone=gone), Absent.PRETEND)
    if output == "json":
        show_json(view)
    else:
        _show(view)


async def _plan(store: Store, wanted: Sequence[Document], *, gone: bool) -> PlanView:
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
    return PlanView(changes, tuple(effects(World(known, held), World(after, held))), tuple(ignored))


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
    if view.effects:
        click.echo("\nWhat nodes would do, as far as resources tell:")
        for line in view.effects:
            click.echo(f"  {printable(line)}")
    elif any(change.action != "unchanged" for change in view.changes):
        click.echo("\nNo session, prefix or block would be affected, as far as resources tell.")
