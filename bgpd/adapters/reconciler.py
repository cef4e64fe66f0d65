"""The one reconciler: drives a target's actual state to the desired state of its table, key by key.

Work is the keys that changed, drifted, or whose retry is due: never a scan of all, but for the one full comparison when the gate opens
and the periodic one (``recheck``), which is sliced. A key that others keep changing back is repaired ever more slowly
(core/reconcile/contest.py).
Law 3: while the gate is shut it adds what is missing, and neither changes nor removes what is there. A key that the target
refuses is retried with back-off and holds up no other. Order within a batch is core/reconcile/order.py's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

import msgspec

from bgpd.core.reconcile.backoff import Backoff, Failure
from bgpd.core.reconcile.contest import FIRST_WAIT_S, WINDOW_S, Contest, Standing
from bgpd.core.reconcile.order import Work
from bgpd.flow.table import Table
from bgpd.model.notice import Notice

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

BATCH_CHANGES = 5000
"""Keys compared and changes applied in one go: some 15 ms, after which newer wishes are looked at, and go first if others hang on them."""
SLICE_KEYS = 10_000
"""Keys compared between two turns of the event loop, by the periodic comparison: some 3 ms."""


class Target(Protocol[K, V]):
    """Something outside that holds keyed state: the kernel, ExaBGP, the store."""

    @property
    def name(self) -> str: ...

    @property
    def actual(self) -> Mapping[K, V]:
        """What it holds now, of what is ours; the target keeps it current."""

    async def apply(self, changes: Sequence[tuple[K, V | None]]) -> dict[K, str]:
        """Carry out *changes* in order (None removes); returns why for each key that was refused."""


class Reconciler(Generic[K, V]):
    """Owns the keys that wait, and the failures of its target."""

    def __init__(
        self,
        table: Table[K, V],
        target: Target[K, V],
        *,
        clock: Callable[[], float],
        gate: Callable[[], bool] = lambda: True,
        prepare: Callable[[Iterable[K]], None] = lambda _keys: None,
        converged: Callable[[], Awaitable[None]],
        notice: Callable[[Notice], None],
    ) -> None:
        """*gate* says whether changing and removing is allowed; *prepare* sees the keys before they are compared (adoption)."""
        self.table = table
        self.target = target
        self.failures: Backoff[K] = Backoff()
        self.contest: Contest[K] = Contest()
        self._clock = clock
        self._gate = gate
        self._prepare = prepare
        self._converged = converged
        self._notice = notice
        self._was_open = False
        self._work: Work[K] = Work()
        self._wake = asyncio.Event()
        self.applied: Callable[[float], None] = lambda _seconds: None
        """Told how long each batch took."""
        table.subscribe(self._wake.set)

    def drifted(self, keys: Iterable[K]) -> None:
        """Look at *keys* again: the target says that they changed without us."""
        self._work.put(keys, self.table)
        self._wake.set()

    def meddled(self, keys: Mapping[K, str]) -> None:
        """Look at *keys* again: others changed them, and the value says who (empty: nobody, the target did by itself)."""
        now = self._clock()
        fresh: list[tuple[K, Standing]] = []
        for key, by in keys.items():
            standing = self.contest.changed(key, by, now) if by else None
            if standing is None or not standing.wait_s:
                continue
            self.failures.hold(key, contested(standing), now, standing.wait_s)
            if standing.wait_s == FIRST_WAIT_S:
                fresh.append((key, standing))
        if fresh:  # one notice, however many keys another is after
            key, standing = fresh[0]
            fields: dict[str, str | float | bool | None] = {"key": describe(key), "by": standing.by, "keys": len(fresh)}
            self._notice(Notice("fib.contested", {**fields, "changes": standing.changes, "window_s": WINDOW_S}))
        self.drifted(keys)

    async def recheck(self) -> int:
        """Compare all that is desired with all that is there; what differs is looked at again. Returns how many keys do.

        O(all), in slices between which the loop runs.
        """
        desired = [key for key, _ in self.table.items()]
        keys = [*desired, *(key for key in list(self.target.actual) if key not in self.table)]
        differing: list[K] = []
        for start in range(0, len(keys), SLICE_KEYS):
            slice_ = keys[start : start + SLICE_KEYS]
            differing += [key for key in slice_ if self.table.get(key) != self.target.actual.get(key)]
            await asyncio.sleep(0)
        if differing:
            self.drifted(differing)
        return len(differing)

    @property
    def pending(self) -> int:
        """Keys that wait to be looked at."""
        return len(self._work) + self.table.waiting

    def wake(self) -> None:
        """Look whether the gate has opened."""
        self._wake.set()

    def hasten(self) -> None:
        """Try what was refused again now: the target is back."""
        self.failures.hasten()
        self._wake.set()

    @property
    def open(self) -> bool:
        """Whether what is not desired is removed."""
        return self._was_open

    def failure(self, key: K) -> Failure | None:
        return self.failures.get(key)

    async def run(self) -> None:
        """Reconcile until cancelled."""
        while True:
            await self._sleep()
            while self._collect():
                changes = self._changes()
                if changes:
                    await self._apply(changes)
                else:
                    await asyncio.sleep(0)  # all may be as desired, and a hundred thousand: others have their turn
            await self._converged()

    async def _sleep(self) -> None:
        deadline = self.failures.deadline()
        try:
            async with asyncio.timeout(None if deadline is None else max(0.0, deadline - self._clock())):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    def _collect(self) -> bool:
        """Gather the keys to look at; returns whether there are any."""
        table, work = self.table, self._work
        work.put(table.take(), table)
        work.put(self.failures.due(self._clock()), table)
        if self._gate() and not self._was_open:
            self._was_open = True
            work.put((key for key, _ in table.items()), table)
            work.put(self.target.actual, table)
        return bool(work)

    def _changes(self) -> list[tuple[K, V | None]]:
        """Compare waiting keys, at most BATCH_CHANGES, with the target, in order; what needs no change is done with."""
        added = self._work.take_added(BATCH_CHANGES)
        removed = self._work.take_removed(BATCH_CHANGES - len(added))
        self._prepare(added + removed)
        return self._differing(added, removing=False) + self._differing(removed, removing=True)

    def _differing(self, keys: list[K], *, removing: bool) -> list[tuple[K, V | None]]:
        """Return what is to be changed now. A key that is desired by now, or no more, waits in its other place: it is passed over here."""
        changes: list[tuple[K, V | None]] = []
        get, actual, failures, now = self.table.get, self.target.actual, self.failures, self._clock()
        failing = len(failures) > 0
        for key in keys:
            want, have = get(key), actual.get(key)
            if want is have or want == have:
                if failing:
                    failures.succeeded(key)
            elif (want is None) is not removing or (failing and failures.waits(key, now)):
                continue
            elif have is None or self._was_open:
                changes.append((key, want))
        return changes

    async def _apply(self, changes: list[tuple[K, V | None]]) -> None:
        began = self._clock()
        refused = await self.target.apply(changes)
        now = self._clock()
        self.applied(now - began)
        if len(self.failures):
            for key, _ in changes:
                if key not in refused:
                    self.failures.succeeded(key)
        for key, reason in refused.items():
            if self.failures.failed(key, reason, now):
                self._notice(Notice(f"{self.target.name}.refused", {"key": describe(key), "reason": reason}))


def contested(standing: Standing) -> str:
    """Say that a key is fought over."""
    return f"contested: {standing.by} changed it, {standing.changes} changes by others so far"


def describe(key: Hashable) -> str:
    """Write a key for people: as it writes itself, or its fields that differ from their defaults, without their names."""
    if not isinstance(key, msgspec.Struct) or type(key).__str__ is not object.__str__:
        return " ".join(map(str, key)) if isinstance(key, tuple) else str(key)
    fields = ((field, getattr(key, field.name)) for field in msgspec.structs.fields(key))
    return " ".join(str(value) for field, value in fields if value != field.default)
