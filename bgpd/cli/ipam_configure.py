"""``bgpd ipam configure``: the settings of IPAM (calico.md 1.3). They are the resource IPAMConfiguration ``default``, whose rules hold."""

from __future__ import annotations

from typing import Any

import click

from bgpd.adapters.store.base import Store
from bgpd.adapters.store.resources import Prepared, Verb, get_resource, prepare
from bgpd.cli.journal import recorded
from bgpd.cli.options import BadInput
from bgpd.cli.store import Absent, bad, on_store, stores
from bgpd.core.resource import check
from bgpd.core.resource.check import API_VERSION, Resource
from bgpd.core.resource.pools import COOLDOWN_MAX_S, IPAMCONFIGURATION

NAME = "default"


@click.command()
@click.option(
    "--strict-affinity",
    "--strictaffinity",
    "strict_affinity",
    type=bool,
    help="true: a node uses addresses of its own blocks only; false: of others' blocks, too, when it can get no block.",
)
@click.option("--auto-allocate-blocks", type=bool, help="Whether nodes take blocks by themselves.")
@click.option(
    "--max-blocks-per-host",
    "--maxblocksperhost",
    "max_blocks_per_host",
    type=click.IntRange(min=0),
    help="Blocks that a node may have; 0: 20. It needs strict affinity.",
)
@click.option(
    "--cooldown",
    type=click.IntRange(0, COOLDOWN_MAX_S),
    metavar="SECONDS",
    help=f"How long a released address rests before it is free, at most {COOLDOWN_MAX_S}; 0: it is free at once.",
)
@click.option(
    "--kubevirt-ip-persistence",
    type=click.Choice(["Enabled", "Disabled"]),
    help="Whether virtual machines keep their addresses; kept for tools that use it.",
)
@click.option("--dry-run", is_flag=True, help="Check everything and say what would be done; write nothing.")
@stores
def configure(
    *,
    strict_affinity: bool | None,
    auto_allocate_blocks: bool | None,
    max_blocks_per_host: int | None,
    cooldown: int | None,
    kubevirt_ip_persistence: str | None,
    dry_run: bool,
    store: str | None,
) -> None:
    """Change settings of IPAM; what is not named stays."""
    wanted = {
        "strictAffinity": strict_affinity,
        "autoAllocateBlocks": auto_allocate_blocks,
        "maxBlocksPerHost": max_blocks_per_host,
        "ipCooldownSeconds": cooldown,
        "kubeVirtVMAddressPersistence": kubevirt_ip_persistence,
    }
    changes = {name: value for name, value in wanted.items() if value is not None}
    if not changes:
        raise BadInput("say what to change; `bgpd ipam show --show-configuration` shows what is set")
    absent = Absent.PRETEND if dry_run else Absent.MAKE
    prepared = on_store(store, lambda opened: _change(opened, changes, dry_run=dry_run), absent)
    action = prepared.outcomes[0].action
    click.echo(f"IPAMConfiguration {NAME}: {'would be ' if dry_run and action != 'unchanged' else ''}{action}")


async def _change(store: Store, changes: dict[str, Any], *, dry_run: bool) -> Prepared:
    """Write the settings with *changes*, on condition that nobody else has written them meanwhile."""
    stored = await get_resource(store, IPAMCONFIGURATION, NAME)
    head = {"kind": IPAMCONFIGURATION.kind, "apiVersion": API_VERSION, "metadata": {"name": NAME}}
    resource: Resource = stored.shown() if stored is not None else {**head, "spec": {}}
    document, defects = check.read("", {**resource, "spec": {**resource["spec"], **changes}})
    if document is None:
        raise bad(defects)
    prepared = await prepare(store, Verb.APPLY, [document])
    if not dry_run:
        await recorded(store, prepared, "ipam configure")
    return prepared
