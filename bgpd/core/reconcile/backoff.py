"""When a key that a target refused is tried again."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

import msgspec

K = TypeVar("K", bound=Hashable)

FIRST_RETRY_S = 0.1
"""Most refusals are a matter of order (a device not up yet) and pass at once."""
LAST_RETRY_S = 30.0
"""Ceiling: a cure by an operator shows within half a minute."""


class Failure(msgspec.Struct, frozen=True):
    """A refused key: why, since when, and when it is tried again (monotonic seconds)."""

    reason: str
    since: float
    retry_at: float
    delay_s: float


class Backoff(Generic[K]):
    """Owns the failures of a target: doubling delay for each key."""

    def __init__(self) -> None:
        self._failures: dict[K, Failure] = {}

    def failed(self, key: K, reason: str, now: float) -> bool:
        """Note a refusal; returns whether it is news (another reason than before)."""
        old = self._failures.get(key)
        delay = FIRST_RETRY_S if old is None else min(old.delay_s * 2, LAST_RETRY_S)
        since = now if old is None else old.since
        self._failures[key] = Failure(reason, since, now + delay, delay)
        return old is None or old.reason != reason

    def succeeded(self, key: K) -> None:
        self._failures.pop(key, None)

    def due(self, now: float) -> list[K]:
        """Return the keys whose time has come."""
        return [key for key, failure in self._failures.items() if failure.retry_at <= now]

    def waits(self, key: K, now: float) -> bool:
        """Whether *key* has been refused and its time has not come."""
        failure = self._failures.get(key)
        return failure is not None and failure.retry_at > now

    def deadline(self) -> float | None:
        return min((failure.retry_at for failure in self._failures.values()), default=None)

    def get(self, key: K) -> Failure | None:
        return self._failures.get(key)

    def keys(self) -> Iterable[K]:
        return self._failures.keys()

    def __len__(self) -> int:
        return len(self._failures)
