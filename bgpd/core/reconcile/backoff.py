"""When a key that a target refused is tried again."""

from __future__ import annotations

import heapq
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
    """Owns the failures of a target: doubling delay for each key. Each call is O(log failures): many bad keys delay no good one."""

    def __init__(self) -> None:
        self._failures: dict[K, Failure] = {}
        self._retries: list[tuple[float, int, K]] = []
        """A heap of retries; an entry whose failure has another time by now is void."""
        self._count = 0

    def failed(self, key: K, reason: str, now: float) -> bool:
        """Note a refusal; returns whether it is news (another reason than before)."""
        old = self._failures.get(key)
        delay = FIRST_RETRY_S if old is None else min(old.delay_s * 2, LAST_RETRY_S)
        self._note(key, reason, now, delay)
        return old is None or old.reason != reason

    def hold(self, key: K, reason: str, now: float, delay_s: float) -> None:
        """Keep *key* from being tried for so long."""
        self._note(key, reason, now, delay_s)

    def succeeded(self, key: K) -> None:
        self._failures.pop(key, None)

    def hasten(self) -> None:
        """Let every refused key be due: what stood in their way has gone."""
        for key, failure in self._failures.items():
            self._failures[key] = Failure(failure.reason, failure.since, 0.0, FIRST_RETRY_S)
            self._count += 1
            heapq.heappush(self._retries, (0.0, self._count, key))

    def due(self, now: float) -> list[K]:
        """Return the keys whose time has come, each once."""
        keys: list[K] = []
        while self._retries and self._retries[0][0] <= now:
            retry_at, _, key = heapq.heappop(self._retries)
            failure = self._failures.get(key)
            if failure is not None and failure.retry_at == retry_at:
                keys.append(key)
        return keys

    def waits(self, key: K, now: float) -> bool:
        """Whether *key* has been refused and its time has not come."""
        failure = self._failures.get(key)
        return failure is not None and failure.retry_at > now

    def deadline(self) -> float | None:
        """Return when the next key is due; None if none is."""
        while self._retries:
            retry_at, _, key = self._retries[0]
            failure = self._failures.get(key)
            if failure is not None and failure.retry_at == retry_at:
                return retry_at
            heapq.heappop(self._retries)
        return None

    def get(self, key: K) -> Failure | None:
        return self._failures.get(key)

    def keys(self) -> Iterable[K]:
        return self._failures.keys()

    def _note(self, key: K, reason: str, now: float, delay_s: float) -> None:
        old = self._failures.get(key)
        self._failures[key] = Failure(reason, now if old is None else old.since, now + delay_s, delay_s)
        self._count += 1
        heapq.heappush(self._retries, (now + delay_s, self._count, key))

    def __len__(self) -> int:
        return len(self._failures)
