"""``bgpd ipam split``: one pool into several smaller ones, its addresses kept (calico.md 1.7).

The parts are created and the pool is deleted in one transaction, and an assignment rests on no pool having been written since it looked, so
neither needs the other to stand still: Calico's lock of the datastore (datastoreReady false) is not asked for, and does not hinder.
"""

from __future__ import annotations

import click

from bgpd.adapters.store.base import Store
from bgpd.adapters.store.resources import Conflict, Prepared, Removal, Verb, get_resource, prepare
from bgpd.cli.journal import recorded
from bgpd.cli.options import BadInput
from bgpd.cli.store import bad, on_store, stores
from bgpd.core.resource import check
from bgpd.core.resource.pools import IPPOOL
from bgpd.core.resource.split import PARTS_MAX, split


@click.command("split")
@click.argument("pool", metavar="POOL")
@click.argument("number", metavar="NUMBER", type=click.IntRange(2, PARTS_MAX))
@click.option("--dry-run", is_flag=True, help="Check everything and say what would be done; write nothing.")
@stores
def split_(pool: str, number: int, dry_run: bool, store: str | None) -> None:
    """Split the pool named POOL into NUMBER (2, 4, 8, …) pools of equal size, named split-POOL-0 and so on.

    All addresses and blocks stay; the new pools are what the old one was, but for the range. A daemon wants a block of each
    pool that it may take blocks of, so nodes may take new ones afterwards.
    """
    prepared = on_store(store, lambda opened: _split(opened, pool, number, dry_run=dry_run))
    for outcome in prepared.outcomes:
        click.echo(f"{outcome.kind.kind} {outcome.name}: {'would be ' if dry_run else ''}{outcome.action}")


async def _split(store: Store, name: str, number: int, *, dry_run: bool) -> Prepared:
    stored = await get_resource(store, IPPOOL, name)
    if stored is None:
        raise Conflict(f"{IPPOOL.kind} {name} does not exist")
    parts = split(stored.resource, number)
    if isinstance(parts, str):
        raise BadInput(parts)
    documents = []
    for part in parts:
        document, defects = check.read("", part)
        if document is None:
            raise bad(defects)
        documents.append(document)
    removal = Removal(IPPOOL, name, stored.revision)
    prepared = await prepare(store, Verb.CREATE, documents, [removal], force=True)
    if not dry_run:
        await recorded(store, prepared, f"ipam split {name} {number}")
    return prepared
