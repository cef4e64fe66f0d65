"""Table: keyed desired state. The writer is the core, the reader a reconciler; neither waits for the other.

A table is bounded by the number of its keys, not by how often they change: a slow reader sees the latest value of each changed key, once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Table(Generic[K, V]):
    """Owns the desired values, the set of keys changed since the reader last took them, and who to wake."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._values: dict[K, V] = {}
        self._changed: dict[K, None] = {}
        self._wake: Callable[[], None] | None = None

    def set(self, key: K, value: V) -> None:
        """Desire *value* for *key*; a value equal to the present one changes nothing."""
        if self._values.get(key) != value:
            self._values[key] = value
            self._touch(key)

    def change(self, key: K, value: V) -> None:
        """Desire *value* for *key*, which the caller knows to differ from the present one."""
        self._values[key] = value
        self._touch(key)

    def discard(self, key: K) -> None:
        """Desire that *key* is absent; not an error if it is."""
        if self._values.pop(key, None) is not None:
            self._touch(key)

    def get(self, key: K) -> V | None:
        return self._values.get(key)

    def items(self) -> Iterator[tuple[K, V]]:
        return iter(self._values.items())

    def snapshot(self) -> dict[K, V]:
        """Copy the desired state: O(n), for tests and full comparisons."""
        return dict(self._values)

    @property
    def waiting(self) -> int:
        """Keys that the reader has not taken yet."""
        return len(self._changed)

    def take(self) -> list[K]:
        """Return the keys changed since the last call, in order of first change, and forget them."""
        changed = list(self._changed)
        self._changed.clear()
        return changed

    def subscribe(self, wake: Callable[[], None]) -> None:
        """Call *wake* whenever a key becomes changed. One reader only; *wake* must return at once."""
        assert self._wake is None, f"table {self.name} has a reader already"
        self._wake = wake

    def _touch(self, key: K) -> None:
        self._changed[key] = None
        if self._wake is not None:
            self._wake()

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __len__(self) -> int:
        return len(self._values)
