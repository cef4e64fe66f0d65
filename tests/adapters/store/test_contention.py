"""Eight processes on one SQLite file that count one key up, while random ones of them are killed."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path

import pytest

from bgpd.adapters.store.base import Put, read_all
from bgpd.adapters.store.sqlite import SqliteStore

pytestmark = [pytest.mark.adapter, pytest.mark.timeout(600)]

INCREMENTS = int(os.environ.get("SQLITE_INCREMENTS", "20000"))
PROCESSES = 8
KILLS = 16
DEADLINE_S = 300.0

COUNT = """
import asyncio, os, sys
from pathlib import Path
from bgpd.adapters.store.base import Compare, Put
from bgpd.adapters.store.sqlite import SqliteStore

async def main(path, end):
    store = SqliteStore(Path(path))
    while True:
        held = await store.get("/n")
        value = int(held.value) + 1 if held else 1
        if value > end:
            return await store.close()
        compares = (Compare("/n", held.mod_revision if held else 0), Compare(f"/seen/{value:06}", 0))
        writes = (Put("/n", b"%d" % value), Put(f"/seen/{value:06}", b"%d" % os.getpid()))
        if (await store.txn(compares, writes)).succeeded:
            os.write(1, b"%06d\\n" % value)  # what the store has answered, this process can prove

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


class Crowd:
    """Counting processes and what each of them was answered."""

    def __init__(self, path: Path, answers: Path) -> None:
        self._path = path
        self._answers = answers
        answers.mkdir()
        self.running: list[subprocess.Popen[bytes]] = []
        self.ended: list[int] = []
        for _ in range(PROCESSES):
            self.start()

    def start(self) -> None:
        with (self._answers / str(len(self.running) + len(self.ended))).open("wb") as answers:
            command = [sys.executable, "-c", COUNT, str(self._path), str(INCREMENTS)]
            self.running.append(subprocess.Popen(command, stdout=answers))

    def kill_one(self) -> None:
        """Kill one in the middle of whatever it does, and let another take its place."""
        victim = self.running.pop(random.randrange(PROCESSES))
        victim.send_signal(signal.SIGKILL)
        assert -signal.SIGKILL == victim.wait(30)
        self.ended.append(victim.pid)
        self.start()

    def close(self) -> list[int]:
        """Wait for the end; each exit status."""
        return [process.wait(60) for process in self.running]

    def answered(self) -> list[int]:
        return sorted(int(line) for file in self._answers.iterdir() for line in file.read_text().split())


def test_no_update_of_eight_processes_is_lost_though_some_are_killed(tmp_path: Path) -> None:
    """Each increment counts once, every answer is true, a watcher is told of each revision in order, and the file is whole."""
    path = tmp_path / "store.db"

    async def work() -> tuple[list[int], list[str]]:
        store = SqliteStore(path)
        start = (await store.txn((), (Put("/begin", b""),))).revision
        crowd = Crowd(path, tmp_path / "answers")
        told: list[int] = []
        async with asyncio.timeout(DEADLINE_S), aclosing(store.watch("/n", start + 1)) as changes:
            async for revision, found in changes:
                told += [int(change.value or b"") for change in found]
                assert start + told[-1] == revision
                if len(crowd.ended) < KILLS and told[-1] > INCREMENTS * (len(crowd.ended) + 1) // (KILLS + 2):
                    crowd.kill_one()
                if told[-1] == INCREMENTS:
                    break
        assert [0] * PROCESSES == await asyncio.to_thread(crowd.close)
        answered = crowd.answered()
        assert KILLS == len(crowd.ended)
        # An answer may be missing: of a process that was killed after the store had it.
        assert len(answered) == len(set(answered)) >= INCREMENTS - KILLS
        assert set(answered) <= set(range(1, INCREMENTS + 1))
        seen = [item.key async for item in read_all(store, "/seen/")]
        await store.close()
        return told, seen

    told, seen = asyncio.run(work())
    assert list(range(1, INCREMENTS + 1)) == told
    assert [f"/seen/{value:06}" for value in told] == seen
    with sqlite3.connect(path) as db:
        assert ("ok",) == db.execute("PRAGMA integrity_check").fetchone()
        assert (INCREMENTS + 2,) == db.execute("SELECT revision FROM meta").fetchone()
    db.close()
