"""What a drained node means for the workloads that are still on it: who reaches them once nothing is announced."""

from __future__ import annotations

from collections.abc import Iterator

from bgpd.core.facts import Facts
from bgpd.core.overlay import kinds
from bgpd.model.pool import Mode, preference_text
from bgpd.model.prefix import Family, Prefix

LEFT_SHOWN = 100
"""Blocks told of; more are counted."""


def left_behind(facts: Facts) -> Iterator[str]:
    """Say of each own block with addresses in use, and of each borrowed address, who still reaches it. O(own blocks)."""
    mine = facts.blocks_of.get(facts.me.name, set())
    used = [block for block in sorted(mine) if facts.blocks[block].in_use]
    found = [*used, *sorted(facts.borrowed_of.get(facts.me.name, ()))]
    for prefix in found[:LEFT_SHOWN]:
        count = facts.blocks[prefix].in_use if prefix in facts.blocks else 1
        addresses = f"{count} address{'es' if count != 1 else ''} in use"
        yield f"{prefix}: {addresses}; nobody outside of the cluster reaches it, and of the nodes {_nodes(facts, prefix)}"
    if len(found) > LEFT_SHOWN:
        yield f"{len(found) - LEFT_SHOWN} more"


def _nodes(facts: Facts, prefix: Prefix) -> str:
    pool = facts.pool_of(prefix)
    kind, mode = kinds.of_pool(pool)
    if kind is not None and mode is Mode.ALWAYS:
        return "all, through the pool's tunnel as before"
    if kind is not None and mode is Mode.CROSS_SUBNET:
        return "all, through the pool's tunnel or directly as before"
    preference = facts.fallback_of(pool)
    if not preference or prefix.family is Family.IPV6:
        return "only those in its own subnet, since there is no fallback for it"
    return f"all, directly in its own subnet, else by fallback ({preference_text(preference)})"
