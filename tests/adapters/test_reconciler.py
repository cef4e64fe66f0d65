"""The generic reconciler, against a target that refuses on demand."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from bgpd.adapters.reconciler import BATCH_CHANGES, Reconciler, describe
from bgpd.flow.table import Table
from bgpd.model.forwarding import GroupKey, Leg, RouteKey, RuleKey
from bgpd.model.notice import Notice
from bgpd.model.prefix import Address, Family, Prefix

pytestmark = pytest.mark.adapter


class Shelf:
    """A target that keeps values in a dict, counts writes, and refuses the keys it is told to."""

    name = "shelf"

    def __init__(self, **held: int) -> None:
        self.actual: dict[str, int] = dict(held)
        self.refused: set[str] = set()
        self.writes: list[tuple[str, int | None]] = []

    async def apply(self, changes: Sequence[tuple[str, int | None]]) -> dict[str, str]:
        failed = {}
        for key, value in changes:
            self.writes.append((key, value))
            if key in self.refused:
                failed[key] = "ENODEV"
            elif value is None:
                self.actual.pop(key, None)
            else:
                self.actual[key] = value
        return failed


class Bench:
    """A reconciler on a shelf, with a clock that tests move."""

    def __init__(self, shelf: Shelf, *, open_gate: bool = True) -> None:
        self.table: Table[str, int] = Table("t")
        self.shelf = shelf
        self.now = 0.0
        self.open = open_gate
        self.notices: list[Notice] = []
        self.rounds = 0
        self.reconciler = Reconciler(
            self.table,
            shelf,
            clock=lambda: self.now,
            gate=lambda: self.open,
            converged=self._converged,
            notice=self.notices.append,
        )

    async def _converged(self) -> None:
        self.rounds += 1

    async def settle(self) -> None:
        """Wake the reconciler and wait until it has nothing left to do."""
        before = self.rounds
        self.reconciler.wake()
        async with asyncio.timeout(5):
            while self.rounds == before:
                await asyncio.sleep(0)


def scenario(bench: Bench, *steps: object) -> None:
    """Run *steps* (callables, awaited where they say so) beside the reconciler."""

    async def play() -> None:
        task = asyncio.ensure_future(bench.reconciler.run())
        try:
            for step in steps:
                step()  # type: ignore[operator]
                await bench.settle()
        finally:
            task.cancel()

    asyncio.run(play())


def test_drives_actual_to_desired() -> None:
    """What is missing is added, what differs is changed, what is not desired is removed, what is equal is left alone."""
    bench = Bench(Shelf(same=1, differs=1, stray=1))

    def desire() -> None:
        for key, value in (("same", 1), ("differs", 2), ("missing", 3)):
            bench.table.set(key, value)

    scenario(bench, desire)

    assert {"same": 1, "differs": 2, "missing": 3} == bench.shelf.actual
    assert {("differs", 2), ("missing", 3), ("stray", None)} == set(bench.shelf.writes)


def test_shut_gate_adds_and_neither_changes_nor_removes() -> None:
    """Law 3: before the decision is complete, only what is missing is written; opening the gate does the rest."""
    bench = Bench(Shelf(differs=1, stray=1), open_gate=False)

    def desire() -> None:
        bench.table.set("differs", 2)
        bench.table.set("missing", 3)

    def held_back() -> None:
        assert [("missing", 3)] == bench.shelf.writes
        bench.open = True

    scenario(bench, desire, held_back)

    assert {"differs": 2, "missing": 3} == bench.shelf.actual


def test_unchanged_restart_writes_nothing() -> None:
    """With actual equal to desired, opening the gate costs no write."""
    bench = Bench(Shelf(a=1, b=2), open_gate=False)

    def desire() -> None:
        bench.table.set("a", 1)
        bench.table.set("b", 2)

    def open_gate() -> None:
        bench.open = True

    scenario(bench, desire, open_gate)

    assert [] == bench.shelf.writes


def test_what_needs_no_change_keeps_nobody_waiting() -> None:
    """When the gate opens with a hundred thousand keys as desired, the loop turns between pieces of them, and nothing is written."""
    keys = {f"key{number}": number for number in range(100_000)}
    bench = Bench(Shelf(**keys), open_gate=False)
    turns = 0

    async def play() -> None:
        nonlocal turns
        for key, value in keys.items():
            bench.table.set(key, value)
        task = asyncio.ensure_future(bench.reconciler.run())
        bench.open = True
        while not bench.rounds:
            turns += 1
            await asyncio.sleep(0)
        task.cancel()

    asyncio.run(play())

    assert turns >= len(keys) // BATCH_CHANGES
    assert [] == bench.shelf.writes


def test_a_group_goes_before_the_routes_that_wait() -> None:
    """What arrives while many routes wait goes after one batch, first if they hang on it; removals go after all additions."""
    group, leg = GroupKey("node"), Leg("eth0")
    routes = [RouteKey(Prefix.of(Address(number << 8), 24)) for number in range(2 * BATCH_CHANGES)]
    shelf: Any = Shelf(stray=1)
    bench = Bench(shelf)
    table: Any = bench.table
    writes: list[object] = []

    async def apply(changes: Sequence[tuple[object, int | None]]) -> dict[object, str]:
        if not writes:
            table.set(group, 1)
            table.set(leg, 1)
        writes.extend(key for key, _ in changes)
        for key, value in changes:
            if value is None:
                shelf.actual.pop(key, None)
            else:
                shelf.actual[key] = value
        return {}

    shelf.apply = apply

    def desire() -> None:
        for route in routes:
            table.set(route, 1)

    scenario(bench, desire)

    assert [*routes[:BATCH_CHANGES], leg, group, *routes[BATCH_CHANGES:], "stray"] == writes


def test_refused_key_is_retried_with_back_off_and_told_once() -> None:
    """A refusal holds up no other key, is told once a reason, and is tried again when its time has come."""
    bench = Bench(Shelf())
    bench.shelf.refused.add("bad")

    def desire() -> None:
        bench.table.set("bad", 1)
        bench.table.set("good", 1)

    def too_early() -> None:
        assert {"good": 1} == bench.shelf.actual
        bench.shelf.writes.clear()
        bench.now = 0.05

    def due() -> None:
        assert [] == bench.shelf.writes
        bench.now = 0.11

    def healed() -> None:
        assert [("bad", 1)] == bench.shelf.writes
        bench.shelf.refused.clear()
        bench.now = 10.0

    scenario(bench, desire, too_early, due, healed)

    assert {"good": 1, "bad": 1} == bench.shelf.actual
    assert 1 == len(bench.notices)
    assert 0 == len(bench.reconciler.failures)


def test_a_target_that_is_back_is_not_kept_waiting() -> None:
    """After a long absence, with its pauses between attempts, what was refused is tried at once when the target is said to be back."""
    bench = Bench(Shelf())
    bench.shelf.refused.add("key")

    def desire() -> None:
        bench.table.set("key", 1)

    def back() -> None:
        bench.shelf.refused.clear()
        bench.reconciler.hasten()

    scenario(bench, desire, back)

    assert ({"key": 1}, 0.0) == (bench.shelf.actual, bench.now)
    assert bench.reconciler.failure("key") is None


def test_drift_is_repaired() -> None:
    """A key that the target reports as changed by others is set right."""
    bench = Bench(Shelf())

    def desire() -> None:
        bench.table.set("a", 1)

    def meddle() -> None:
        bench.shelf.actual["a"] = 7
        bench.shelf.actual["ghost"] = 1
        bench.reconciler.drifted(["a", "ghost"])

    scenario(bench, desire, meddle)

    assert {"a": 1} == bench.shelf.actual


def test_describe_writes_keys_for_people() -> None:
    """A key is shown by the values of its fields, a rule as ``ip`` takes it."""
    assert "10.0.0.0/8" == describe(RouteKey(Prefix.parse("10.0.0.0/8")))
    assert "eth0 10.0.0.1" == describe(Leg("eth0", Address.parse("10.0.0.1")))
    assert "ipv6 priority 900 table 1000" == describe(RuleKey(Family.IPV6, 900, 1000))
    assert "ipv4 priority 9 not fwmark 0x1/0xff table 7" == describe(RuleKey(Family.IPV4, 9, 7, 1, 255, inverted=True))
    assert "10.0.0.1 10.0.0.0/8" == describe((Address.parse("10.0.0.1"), Prefix.parse("10.0.0.0/8")))


def test_a_key_that_others_keep_changing_is_repaired_ever_more_slowly() -> None:
    """The first changes by another are repaired at once; then the key waits, is told of once, and others are not held up."""
    bench = Bench(Shelf())

    def desire() -> None:
        bench.table.set("a", 1)
        bench.table.set("b", 1)

    def meddle() -> None:
        bench.shelf.actual.pop("a", None)
        bench.reconciler.meddled({"a": "BIRD", "ghost": ""})

    def held() -> None:
        assert "a" not in bench.shelf.actual
        failure = bench.reconciler.failure("a")
        assert failure is not None
        assert "contested: BIRD changed it, 4 changes by others so far" == failure.reason
        bench.table.set("b", 2)

    def later() -> None:
        assert {"b": 2} == bench.shelf.actual
        bench.now = 1.0

    scenario(bench, desire, meddle, meddle, meddle, meddle, held, later)

    assert {"a": 1, "b": 2} == bench.shelf.actual
    assert ["fib.contested"] == [notice.name for notice in bench.notices]
    assert {"key": "a", "by": "BIRD", "keys": 1} == {
        name: bench.notices[0].fields[name] for name in ("key", "by", "keys")
    }


def test_what_the_target_did_by_itself_is_no_fight() -> None:
    """Changes without an author are repaired at once, however often they come."""
    bench = Bench(Shelf())

    def desire() -> None:
        bench.table.set("a", 1)

    def flap() -> None:
        bench.shelf.actual.pop("a", None)
        bench.reconciler.meddled({"a": ""})

    scenario(bench, desire, *[flap] * 10)

    assert {"a": 1} == bench.shelf.actual
    assert [] == bench.notices


def test_recheck_finds_what_nobody_told_of() -> None:
    """The periodic comparison mends what differs without a word, and writes nothing where nothing does."""
    bench = Bench(Shelf(stray=1))

    async def play() -> None:
        task = asyncio.ensure_future(bench.reconciler.run())
        bench.table.set("a", 1)
        await bench.settle()
        bench.shelf.writes.clear()
        assert 0 == await bench.reconciler.recheck()
        await bench.settle()
        assert [] == bench.shelf.writes
        bench.shelf.actual = {"stray": 1}
        assert 2 == await bench.reconciler.recheck()
        await bench.settle()
        task.cancel()

    asyncio.run(play())

    assert {"a": 1} == bench.shelf.actual
