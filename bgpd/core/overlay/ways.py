"""How many of each node's blocks go which way: counted as they change, so that nobody has to walk over all of them."""

from __future__ import annotations

from collections import Counter

from bgpd.core.overlay.choose import How

WORST = (How.NATIVE, How.DIRECT, How.TUNNEL, How.WAITING, How.FALLBACK, How.UNREACHABLE)
"""From best to worst. Other ways are none to a remote node."""


class Ways:
    """Owns the counts."""

    def __init__(self) -> None:
        self._of: dict[str, Counter[How]] = {}

    def count(self, node: str, how: How | None, change: int) -> None:
        """Count *change* prefixes more, or less, of *node* that go this way; None: they went none."""
        if how is None:
            return
        counts = self._of.setdefault(node, Counter())
        counts[how] += change
        if not counts[how]:
            del counts[how]
        if not counts:
            del self._of[node]

    def of(self, node: str) -> dict[How, int]:
        """Return how many blocks and borrowed addresses of *node* go each way."""
        return dict(self._of.get(node, {}))

    def worst(self) -> dict[str, How]:
        """Return the worst way of each remote node. O(nodes)."""
        found = {}
        for node, counts in self._of.items():
            how = next((how for how in reversed(WORST) if how in counts), None)
            if node and how is not None:
                found[node] = how
        return found
