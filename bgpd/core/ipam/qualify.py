"""Which pools serve a request, and why the others do not (calico.md 1.5 step 2).

A pool asked for by name serves whatever its selectors say, but neither disabled nor without the intended use. Where
none is asked for, a pool serves that is enabled, assigned automatically, selects the node and the namespace, and has
the use. A selector that cannot be read selects nobody (no dangling reference fails open).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import msgspec

from bgpd.core.selector import Selector, SelectorError, matches, parse
from bgpd.model.pool import Pool, Use
from bgpd.model.prefix import Family

SELECTORS_MAX = 256
"""Parsed selectors kept: two for each pool, of which a cluster has a handful."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """For whom and for what pools are looked for."""

    family: Family
    use: Use = Use.WORKLOAD
    asked: tuple[str, ...] = ()
    """Names or CIDRs of the pools to take from, in order; empty: those that serve by themselves, in order of names."""
    node_labels: Mapping[str, str] = {}
    namespace_labels: Mapping[str, str] | None = None
    """None: the namespace is not known, so a pool with a namespaceSelector does not serve."""


class Qualified(msgspec.Struct, frozen=True):
    pools: tuple[Pool, ...]
    """Those that serve, in the order to try."""
    others: tuple[str, ...]
    """Why each of the others does not."""


def qualify(pools: Sequence[Pool], wanted: Wanted) -> Qualified:
    """Sort *pools* into those that serve *wanted* and reasons."""
    if wanted.asked:
        return _asked(pools, wanted)
    serving: list[Pool] = []
    others: list[str] = []
    for pool in sorted(pools, key=lambda pool: pool.name):
        why = _unfit(pool, wanted) or _unselected(pool, wanted)
        if why:
            others.append(f"pool {pool.name} ({pool.cidr}) {why}")
        else:
            serving.append(pool)
    return Qualified(tuple(serving), tuple(others))


def no_pool(wanted: Wanted, found: Qualified) -> str:
    """Say that no pool serves, and why each does not."""
    looked_at = "; ".join(found.others) or "there is no pool"
    return f"no {wanted.family!s} pool qualifies for {wanted.use}: {looked_at}"


def draws_from(pool: Pool, node_labels: Mapping[str, str]) -> bool:
    """Whether a node takes a block of *pool* by itself, before anybody asks for an address.

    A pool with a namespaceSelector waits for a workload of that namespace.
    """
    wanted = Wanted(family=pool.cidr.family, node_labels=node_labels)
    return not _unfit(pool, wanted) and not _unselected(pool, wanted)


def selects(pool: Pool, node_labels: Mapping[str, str]) -> bool:
    """Whether the pool's nodeSelector holds for a node of these labels; the blocks of one that it does not select go back."""
    try:
        return matches(_parsed(pool.node_selector), node_labels)
    except SelectorError:
        return False


def _asked(pools: Sequence[Pool], wanted: Wanted) -> Qualified:
    serving: list[Pool] = []
    others: list[str] = []
    for name in dict.fromkeys(wanted.asked):
        pool = next((pool for pool in pools if name in (pool.name, str(pool.cidr))), None)
        if pool is None:
            others.append(f"there is no pool {name}")
        elif why := _unfit(pool, wanted):
            others.append(f"pool {pool.name} ({pool.cidr}) {why}")
        else:
            serving.append(pool)
    return Qualified(tuple(serving), tuple(others))


def _unfit(pool: Pool, wanted: Wanted) -> str:
    """Say why a pool does not serve though it is asked for; empty where it does."""
    if pool.cidr.family is not wanted.family:
        return f"is {pool.cidr.family!s}"
    if pool.disabled:
        return "is disabled"
    if pool.unallocatable:
        return f"is not allocatable: {pool.unallocatable}"
    if wanted.use not in pool.allowed_uses:
        return f"allows {', '.join(pool.allowed_uses) or 'no use'}, not {wanted.use}"
    if pool.block_size < pool.cidr.length:
        return f"is smaller than one of its blocks (/{pool.block_size})"
    return ""


def _unselected(pool: Pool, wanted: Wanted) -> str:
    """Say why a pool does not serve by itself; empty where it does."""
    if not pool.automatic:
        return "has assignmentMode Manual and was not asked for"
    try:
        if not matches(_parsed(pool.node_selector), wanted.node_labels):
            return f"does not select the node: {pool.node_selector}"
        if pool.namespace_selector and wanted.namespace_labels is None:
            return f"selects namespaces ({pool.namespace_selector}), and none is given"
        if not matches(_parsed(pool.namespace_selector), wanted.namespace_labels or {}):
            return f"does not select the namespace: {pool.namespace_selector}"
    except SelectorError as error:
        return f"has a selector that cannot be read: {error}"
    return ""


@lru_cache(maxsize=SELECTORS_MAX)
def _parsed(text: str) -> Selector:
    return parse(text)
