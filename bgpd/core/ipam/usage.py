"""How much of each pool is in use, counted as blocks change, so that nobody has to walk over all of them."""

from __future__ import annotations

from dataclasses import dataclass

from bgpd.model.prefix import Prefix


@dataclass(slots=True)
class Use:
    """What the blocks of one pool hold."""

    blocks: int = 0
    in_use: int = 0
    """Addresses."""


class Usage:
    """Owns the counts by name of the pool, and which block counts where."""

    def __init__(self) -> None:
        self.of: dict[str, Use] = {}
        """Blocks outside of every pool count under the empty name."""
        self._counted: dict[Prefix, tuple[str, int]] = {}

    def count(self, block: Prefix, pool: str, in_use: int) -> None:
        """Count *block*, in place of what was counted for it."""
        self.forget(block)
        self._counted[block] = pool, in_use
        use = self.of.setdefault(pool, Use())
        use.blocks += 1
        use.in_use += in_use

    def forget(self, block: Prefix) -> None:
        """Count *block* no more; not an error if it was not counted."""
        if block not in self._counted:
            return
        pool, in_use = self._counted.pop(block)
        use = self.of[pool]
        use.blocks -= 1
        use.in_use -= in_use
        if not use.blocks:
            del self.of[pool]
