"""``bgpd get``, ``apply``, ``create``, ``replace``, ``delete``, ``label``, ``validate``, ``export``, ``import``: resources, with
calicoctl's habits.

Laws: a change is one transaction of the store, so a file with one bad document, or one that meets somebody else's change,
writes nothing. More than a transaction holds is refused; only ``import`` takes it, in several transactions, and says
how far it came (it may be run again).
"""

from __future__ import annotations

from collections.abc import Sequence

import click
import msgspec

from bgpd.adapters.store.base import Store
from bgpd.adapters.store.journal import CONFIRM_LIMIT_S, Entry, fits
from bgpd.adapters.store.resources import (
    Conflict,
    Outcome,
    Prepared,
    Removal,
    Stored,
    Verb,
    foreign_keys,
    get_resource,
    list_resources,
    prepare,
)
from bgpd.cli import manifest
from bgpd.cli.journal import recorded
from bgpd.cli.options import BadInput, Stop, output
from bgpd.cli.render import printable, show, show_json
from bgpd.cli.resource_tables import table
from bgpd.cli.store import Absent, bad, documents, files, kind_of, on_store, places_of, stores
from bgpd.core.resource import check, kinds
from bgpd.core.resource.check import API_VERSION, Defect, Document
from bgpd.core.resource.kind import Kind

IMPORTED_AT_ONCE = 100
"""Resources of one transaction of an import; it leaves room for the keys that are only compared."""

dry_run = click.option("--dry-run", is_flag=True, help="Check everything and say what would be done; write nothing.")


@click.command()
@click.argument("kind", metavar="KIND")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "wide", "yaml", "json", "name"]),
    default="table",
    show_default=True,
    help="A table, one with more columns, whole resources, or names only.",
)
@stores
def get(kind: str, names: tuple[str, ...], output: str, store: str | None) -> None:
    """Show the resources of KIND, or those named.

    KIND may be singular, plural or short, in any case: ippool, IPPools, ipp, bgppeers, bgpp, bgpfilters, nodes, …
    """
    one = kind_of(kind)
    found, complaints = on_store(store, lambda opened: _get(opened, one, names))
    _show(one, found, output, single=len(names) == 1)
    if complaints:
        raise Stop("\n".join(complaints))


async def _get(store: Store, kind: Kind, names: tuple[str, ...]) -> tuple[list[Stored], list[str]]:
    """Return what is stored, and what is missing or cannot be read."""
    if not names:
        listing = await list_resources(store, kind)
        return list(listing.items), [f"a stored value cannot be used: {error}" for error in listing.unreadable]
    found: list[Stored] = []
    missing: list[str] = []
    for name in names:
        stored = await get_resource(store, kind, name)
        if stored is None:
            missing.append(f"{kind.kind} {name} does not exist")
        else:
            found.append(stored)
    return found, missing


def _show(kind: Kind, found: Sequence[Stored], output: str, *, single: bool) -> None:
    if output == "name":
        for item in found:
            click.echo(f"{kind.kind.lower()}/{printable(item.name)}")
    elif output in {"table", "wide"}:
        if found:
            show(table(kind, found, wide=output == "wide"))
        elif not single:
            click.echo(f"there is no {kind.kind}", err=True)
    elif found or not single:
        shown = [item.shown() for item in found]
        value = shown[0] if single else manifest.list_of(kind.kind, API_VERSION, shown)
        click.echo(manifest.to_json(value) if output == "json" else manifest.dump([value]), nl=output == "json")


# ------------------------------------------------------------------ changes


@click.command()
@files
@dry_run
@click.option(
    "--confirm",
    "confirm_s",
    type=click.IntRange(1, CONFIRM_LIMIT_S),
    metavar="SECONDS",
    help="Take the change back after so long, unless `bgpd confirm` comes before; also if this connection is lost.",
)
@output()
@stores
def apply(
    *,
    filenames: tuple[str, ...],
    recursive: bool,
    dry_run: bool,
    confirm_s: int | None,
    output: str,
    store: str | None,
) -> None:
    """Create the resources of files, or replace those that exist.

    A document that carries a resourceVersion is taken only while that is still true. With --confirm a daemon takes the change
    back in time, whatever becomes of this command; a resource that somebody else changes meanwhile stays as he made it.
    """
    wanted = documents(filenames, recursive=recursive)
    title = " ".join(["apply", *(f"-f {name}" for name in filenames)])
    prepared, entry = on_store(
        store,
        lambda opened: _commit(opened, Verb.APPLY, wanted, title=title, dry_run=dry_run, confirm_s=confirm_s),
        _where(dry_run=dry_run),
    )
    if output == "json":
        show_json(AppliedView.of(prepared, entry, dry_run=dry_run))
        return
    _tell(prepared.outcomes, dry_run=dry_run)
    if entry is not None and confirm_s is not None:
        click.echo(
            f"change {entry.number} is taken back in {confirm_s} s, unless `bgpd confirm` comes before", err=True
        )


class AppliedView(msgspec.Struct, frozen=True):
    """What an apply did, or would do."""

    resources: tuple[tuple[str, str, str], ...]
    """Kind, name, and created, replaced or unchanged."""
    written: bool
    change: int | None
    """Its number in `bgpd history`; None: nothing was changed."""
    until: float | None
    """When it is taken back, seconds since the epoch; None: it stands."""

    @classmethod
    def of(cls, prepared: Prepared, entry: Entry | None, *, dry_run: bool) -> AppliedView:
        found = tuple((one.kind.kind, one.name, one.action) for one in prepared.outcomes)
        number, until = (entry.number, entry.until) if entry is not None else (None, None)
        return cls(found, entry is not None and not dry_run, number, until)


@click.command()
@files
@click.option("--skip-exists", is_flag=True, help="Leave those alone that exist already.")
@dry_run
@stores
def create(filenames: tuple[str, ...], recursive: bool, skip_exists: bool, dry_run: bool, store: str | None) -> None:
    """Create the resources of files; none of them may exist."""
    found = documents(filenames, recursive=recursive)
    if skip_exists:
        found = on_store(store, lambda opened: _absent(opened, found), _where(dry_run=dry_run))
    _change(Verb.CREATE, found, store, filenames, dry_run=dry_run)


async def _absent(store: Store, found: Sequence[Document]) -> list[Document]:
    return [one for one in found if await get_resource(store, one.kind, one.name) is None]


@click.command()
@files
@dry_run
@stores
def replace(filenames: tuple[str, ...], recursive: bool, dry_run: bool, store: str | None) -> None:
    """Replace resources by those of files; all of them must exist."""
    _change(Verb.REPLACE, documents(filenames, recursive=recursive), store, filenames, dry_run=dry_run)


@click.command()
@click.argument("kind", metavar="[KIND", required=False)
@click.argument("names", metavar="NAME...]", nargs=-1)
@files
@click.option("--skip-not-exists", is_flag=True, help="Be content where one does not exist.")
@click.option("--force", is_flag=True, help="Delete a pool although blocks of it exist; they then belong to no pool.")
@dry_run
@stores
def delete(
    *,
    kind: str | None,
    names: tuple[str, ...],
    filenames: tuple[str, ...],
    recursive: bool,
    skip_not_exists: bool,
    force: bool,
    dry_run: bool,
    store: str | None,
) -> None:
    """Delete the resources NAME of KIND, or those that files name (of which only kind and name matter)."""
    if bool(kind) == bool(filenames):
        raise BadInput("say what to delete: KIND NAME, or -f FILE")
    if kind and not names:
        raise BadInput(f"say which {kind_of(kind).kind} to delete")
    wanted = [Removal(kind_of(kind), name) for name in dict.fromkeys(names)] if kind else _named(filenames, recursive)
    if skip_not_exists:
        wanted = on_store(store, lambda opened: _present(opened, wanted))
    title = "delete " + (" ".join([kind, *names]) if kind else " ".join(f"-f {name}" for name in filenames))
    prepared, _ = on_store(
        store, lambda opened: _commit(opened, Verb.APPLY, [], wanted, title=title, force=force, dry_run=dry_run)
    )
    _tell(prepared.outcomes, dry_run=dry_run)


async def _present(store: Store, wanted: Sequence[Removal]) -> list[Removal]:
    return [one for one in wanted if await get_resource(store, one.kind, one.name) is not None]


def _named(filenames: tuple[str, ...], recursive: bool) -> list[Removal]:
    """Read which resources files name; what else is wrong with them does not matter for their end."""
    places, defects = places_of(filenames, recursive=recursive)
    wanted: dict[tuple[str, str], Removal] = {}
    for origin, value in places:
        kind = kinds.named(value.get("kind")) if isinstance(value, dict) else None
        metadata = value.get("metadata") if isinstance(value, dict) else None
        name = metadata.get("name") if isinstance(metadata, dict) else None
        if kind is None or not isinstance(name, str) or not name:
            defects.append(Defect(origin, "", None, "must name a resource: kind and metadata.name"))
            continue
        document = Document(origin, kind, name, value)
        try:
            wanted[kind.kind, name] = Removal(kind, name, document.revision)
        except ValueError:
            defects.append(Defect(document.title, "metadata.resourceVersion", metadata, "must be a number"))
    if defects:
        raise bad(defects)
    return list(wanted.values())


@click.command()
@click.argument("kind", metavar="KIND")
@click.argument("name", metavar="NAME")
@click.argument("changes", metavar="KEY=VALUE|KEY-...", nargs=-1, required=True)
@click.option("--overwrite", is_flag=True, help="Change labels that have another value.")
@click.option("--remove", is_flag=True, help="Remove the labels named: KEY means KEY-.")
@dry_run
@stores
def label(
    *,
    kind: str,
    name: str,
    changes: tuple[str, ...],
    overwrite: bool,
    remove: bool,
    dry_run: bool,
    store: str | None,
) -> None:
    """Set the label KEY of the resource NAME of KIND to VALUE, or remove it (KEY-)."""
    one = kind_of(kind)
    wanted = dict(_label(text, remove=remove) for text in changes)

    async def work(opened: Store) -> Prepared:
        stored = await get_resource(opened, one, name)
        if stored is None:
            raise Conflict(f"{one.kind} {name} does not exist")
        document = _labelled(stored, wanted, overwrite=overwrite)
        title = f"label {kind} {name} {' '.join(changes)}"
        return (await _commit(opened, Verb.REPLACE, [document], title=title, dry_run=dry_run))[0]

    _tell(on_store(store, work).outcomes, dry_run=dry_run)


def _label(text: str, *, remove: bool) -> tuple[str, str | None]:
    """Read one change of a label; None removes it."""
    key, equals, value = text.partition("=")
    if remove and not equals:
        return key.removesuffix("-"), None
    if not remove and equals:
        return key, value
    if not remove and key.endswith("-"):
        return key[:-1], None
    raise BadInput(f"{text!r} is no change of a label: write KEY=VALUE, or KEY- to remove it")


def _labelled(stored: Stored, wanted: dict[str, str | None], *, overwrite: bool) -> Document:
    """Return the resource with other labels, bound to the revision that was read."""
    resource = stored.shown()
    labels = dict(resource["metadata"].get("labels") or {})
    for key, value in wanted.items():
        if value is None:
            labels.pop(key, None)
        elif key in labels and labels[key] != value and not overwrite:
            raise Conflict(f"label {key} of {stored.kind.kind} {stored.name} is {labels[key]!r}: use --overwrite")
        else:
            labels[key] = value
    metadata = {**resource["metadata"], "labels": labels}
    if not labels:
        del metadata["labels"]
    document, defects = check.read("", {**resource, "metadata": metadata})
    if document is None:
        raise bad(defects)
    return document


def _where(*, dry_run: bool) -> Absent:
    return Absent.PRETEND if dry_run else Absent.MAKE


def _change(
    verb: Verb, wanted: Sequence[Document], url: str | None, filenames: tuple[str, ...], *, dry_run: bool
) -> None:
    absent = Absent.REFUSE if verb is Verb.REPLACE else _where(dry_run=dry_run)
    title = " ".join([verb.value, *(f"-f {name}" for name in filenames)])
    prepared, _ = on_store(url, lambda store: _commit(store, verb, wanted, title=title, dry_run=dry_run), absent)
    _tell(prepared.outcomes, dry_run=dry_run)


async def _commit(
    store: Store,
    verb: Verb,
    wanted: Sequence[Document],
    removals: Sequence[Removal] = (),
    *,
    title: str,
    force: bool = False,
    dry_run: bool = False,
    confirm_s: float | None = None,
) -> tuple[Prepared, Entry | None]:
    """Make a change and its entry in the journal; nothing of both with *dry_run*."""
    prepared = await prepare(store, verb, wanted, removals, force=force)
    return prepared, None if dry_run else await recorded(store, prepared, title, confirm_s)


def _tell(outcomes: Sequence[Outcome], *, dry_run: bool) -> None:
    for outcome in outcomes:
        action = f"would be {outcome.action}" if dry_run and outcome.action != "unchanged" else outcome.action
        click.echo(f"{outcome.kind.kind} {outcome.name}: {action}")


# ------------------------------------------------------------------ files alone, and all at once


@click.command()
@files
def validate(filenames: tuple[str, ...], recursive: bool) -> None:
    """Check the documents of files, alone and against each other; the store is not asked."""
    found = documents(filenames, recursive=recursive)
    click.echo(f"{len(found)} {'resource is' if len(found) == 1 else 'resources are'} right")


@click.command()
@click.argument("names", metavar="[KIND]...", nargs=-1)
@stores
def export(names: tuple[str, ...], store: str | None) -> None:
    """Write all resources, or those of KIND, as one YAML text that `bgpd import` reads.

    Blocks, handles and affinities are no resources; they are not part of it.
    """
    wanted = [kind_of(name) for name in names] or list(kinds.KINDS)
    found, unreadable, foreign = on_store(store, lambda opened: _all(opened, wanted, count=not names))
    if found:
        click.echo(manifest.dump(item.resource for item in found), nl=False)
    if foreign:
        click.echo(f"bgpd: {foreign} resources of kinds that bgpd does not manage were left out", err=True)
    if unreadable:
        raise Stop("\n".join(unreadable))


async def _all(store: Store, wanted: Sequence[Kind], *, count: bool) -> tuple[list[Stored], list[str], int]:
    found: list[Stored] = []
    complaints: list[str] = []
    for kind in kinds.KINDS:
        if kind in wanted:
            listing = await list_resources(store, kind)
            found += listing.items
            complaints += [f"a stored value cannot be used and was left out: {error}" for error in listing.unreadable]
    return found, complaints, await foreign_keys(store) if count else 0


@click.command("import")
@files
@dry_run
@stores
def import_(filenames: tuple[str, ...], recursive: bool, dry_run: bool, store: str | None) -> None:
    """Read an export into the store: like apply, but uid and creationTimestamp are kept and resourceVersion does not matter.

    What is more than one transaction holds is written in several; if one fails, it is said how far they came, and the
    import may be run again.
    """
    order = {kind.kind: index for index, kind in enumerate(kinds.KINDS)}
    wanted = sorted(documents(filenames, recursive=recursive), key=lambda one: order[one.kind.kind])
    if dry_run:
        prepared = on_store(store, lambda opened: prepare(opened, Verb.IMPORT, wanted), Absent.PRETEND)
        _tell(prepared.outcomes, dry_run=True)
    else:
        on_store(store, lambda opened: _import(opened, wanted), Absent.MAKE)


async def _import(store: Store, wanted: list[Document]) -> None:
    """Write documents in as few transactions as hold them, once all of them are known to be right."""
    prepared = await prepare(store, Verb.IMPORT, wanted)
    if fits(prepared):
        await recorded(store, prepared, "import")
        _tell(prepared.outcomes, dry_run=False)
        return
    done = 0
    while done < len(wanted):
        size = IMPORTED_AT_ONCE
        prepared = await prepare(store, Verb.IMPORT, wanted[done : done + size])
        while not fits(prepared) and size > 1:
            size //= 2
            prepared = await prepare(store, Verb.IMPORT, wanted[done : done + size])
        try:
            await recorded(store, prepared, f"import, from resource {done + 1} on")
        except Conflict as error:
            raise Conflict(f"{done} of {len(wanted)} resources were imported, the others were not: {error}") from error
        _tell(prepared.outcomes, dry_run=False)
        done += size
