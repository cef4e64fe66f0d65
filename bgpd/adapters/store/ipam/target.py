"""The store as the target of the node's wishes for blocks: those to have, and those to give back."""

from __future__ import annotations

from collections.abc import Sequence

from bgpd.adapters.store.base import Store, Transient
from bgpd.adapters.store.ipam.claim import claim_block
from bgpd.adapters.store.ipam.release import release_block
from bgpd.adapters.store.keys import Malformed
from bgpd.core.ipam.allocate import RECLAIM_AGE_S
from bgpd.core.ipam.block import Refused
from bgpd.model.pool import BlockClaim, BlockRelease
from bgpd.model.prefix import Prefix


class ClaimTarget:
    """The store as the target of the node's claims: at least one block of each pool that the core wants one of.

    *actual* holds the claims that are true, and *blocks* the block of each, by pool. A claim that is no longer wanted
    is forgotten here and stays in the store: giving a block back is a deliberate step, since workloads may use it.
    """

    name = "claims"

    def __init__(self, store: Store) -> None:
        self.actual: dict[str, BlockClaim] = {}
        self.blocks: dict[str, Prefix] = {}
        self._store = store

    async def apply(self, changes: Sequence[tuple[str, BlockClaim | None]]) -> dict[str, str]:
        """Make the claims true; return the reason by pool where one failed, to be retried."""
        failed: dict[str, str] = {}
        for pool_name, wanted in changes:
            if wanted is None:
                self.actual.pop(pool_name, None)
                self.blocks.pop(pool_name, None)
                continue
            try:
                block = await claim_block(self._store, wanted.pool, wanted.node)
            except (Transient, Malformed) as error:
                failed[pool_name] = str(error)
                continue
            if isinstance(block, Refused):
                failed[pool_name] = block.reason
            else:
                self.actual[pool_name] = wanted
                self.blocks[pool_name] = block
        return failed


class ReleaseTarget:
    """The store as the target of the blocks that the node gives back; *actual* holds those that are gone.

    A block that was claimed a moment ago is not given back: somebody may have asked for it by the name of its pool, and be
    about to take an address.
    """

    name = "releases"

    def __init__(self, store: Store) -> None:
        self.actual: dict[Prefix, BlockRelease] = {}
        self._store = store

    async def apply(self, changes: Sequence[tuple[Prefix, BlockRelease | None]]) -> dict[Prefix, str]:
        """Give the blocks back; return why one was not, to be retried."""
        failed: dict[Prefix, str] = {}
        for cidr, wanted in changes:
            if wanted is None:
                self.actual.pop(cidr, None)
                continue
            try:
                refused = await release_block(
                    self._store, cidr, wanted.node, require_empty=True, min_age_s=RECLAIM_AGE_S
                )
            except (Transient, Malformed) as error:
                failed[cidr] = str(error)
                continue
            if refused is not None:
                failed[cidr] = refused.reason
            else:
                self.actual[cidr] = wanted
        return failed
