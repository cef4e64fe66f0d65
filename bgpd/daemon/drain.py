"""Draining: the stages of model/drain.py, driven by what the uplinks receive, and kept over restarts.

Theory of operation. ``bgpd drain`` announces everything with GRACEFUL_SHUTDOWN (RFC 8326; core/rib/policy.py): whoever has another
path takes it. Then packets received on the uplinks are counted; once they have stayed below the threshold for QUIET_S, or the time is
over, everything is withdrawn. The sessions stay up.

Law: the file is written before the core hears of a stage, and read before anything is announced, so that no restart, whenever it
comes, announces what an operator has withdrawn.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from bgpd.daemon.kept import Unkept, keep
from bgpd.model.drain import DrainRequest, DrainState, Stage
from bgpd.model.event import DrainChanged, Event
from bgpd.model.notice import Notice

FILE: Final = "drain.json"
SAMPLE_S: Final = 1.0
"""Between two readings of the counters."""
QUIET_S: Final = 3.0
"""So long it must be quiet: some applications speak once a second."""
COUNTERS: Final = Path("/proc/self/net/dev")
"""Of our network namespace; sysfs may show another one's."""
COUNTERS_LIMIT_BYTES: Final = 1 << 20
"""Some 8000 links, read in a few milliseconds."""


class Unfit(Exception):  # noqa: N818 - what it is
    """The file cannot be read: whether this node is to announce anything is not known. An operator has to say."""


class Drain:
    """Owns the stage, its file, and the readings of counters."""

    def __init__(
        self,
        directory: Path,
        put: Callable[[Event], Awaitable[None]],
        notice: Callable[[Notice], None],
        uplinks: Callable[[], set[str]],
        counters: Path = COUNTERS,
        *,
        sample_s: float = SAMPLE_S,
        quiet_s: float = QUIET_S,
    ) -> None:
        """*uplinks*: names of the links that lead to peers. Raises Unfit."""
        self._sample_s = sample_s
        self._quiet_s = quiet_s
        self._path = directory / FILE
        self._put = put
        self._notice = notice
        self._uplinks = uplinks
        self._counters = counters
        self._changed = asyncio.Event()
        self.traffic_pps: float | None = None
        self.state: DrainState | None = _read(self._path)
        """None: not drained."""

    async def restore(self) -> None:
        """Tell the core the stage of before a restart: called before anything else is told."""
        if self.state is not None:
            self._notice(Notice("drain.resumed", {"stage": self.state.stage.value}))
            await self._tell()

    async def start(self, asked: DrainRequest) -> None:
        """Begin to drain, or change how it is done; raises Unkept, and nothing has changed then.

        Where all is withdrawn already it stays so.
        """
        now = time.time()
        before = self.state
        if before is not None and before.stage is Stage.DRAINED:
            state = msgspec.structs.replace(before, request=asked)
        else:
            since = before.since if before is not None else now
            state = DrainState(stage=Stage.DRAINING, since=since, request=asked, until=now + asked.timeout_s)
        if before is None:
            self._notice(Notice("drain.started", {"timeout_s": asked.timeout_s, "keep_blocks": asked.keep_blocks}))
        await self._enter(state)

    async def end(self) -> None:
        """Announce everything again; raises Unkept, and nothing has changed then."""
        if self.state is None:
            return
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            raise Unkept(f"{self._path} cannot be removed: {error.strerror}; a restart would drain again") from error
        self.state = None
        self._changed.set()
        self._notice(Notice("drain.ended"))
        await self._put(DrainChanged(Stage.OFF))

    async def run(self) -> None:
        """Wait for traffic to leave whenever draining, until cancelled."""
        while True:
            self._changed.clear()
            state = self.state
            if state is None or state.stage is not Stage.DRAINING:
                self.traffic_pps = None
                await self._changed.wait()
                continue
            reason = await self._quiet(state)
            if reason and self.state is state:
                await self._finish(state, reason)

    # -------------------------------------------------------------- parts

    async def _quiet(self, state: DrainState) -> str:
        """Measure until traffic is gone or the time is over, and say which; empty where the order was changed meanwhile."""
        quiet_s = 0.0
        before = self._received()
        while not self._changed.is_set():
            left_s = state.until - time.time()
            if left_s <= 0:
                rate = (
                    f"{self.traffic_pps:.0f} packets/s still arrived"
                    if self.traffic_pps is not None
                    else "not measured"
                )
                return f"{state.request.timeout_s:g} s were over: {rate}"
            started = time.monotonic()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(self._sample_s, left_s)):
                    await self._changed.wait()
            passed_s = time.monotonic() - started
            now = self._received()
            packets = sum(max(0, count - before[name]) for name, count in now.items() if name in before)
            self.traffic_pps, before = packets / passed_s, now
            quiet_s = quiet_s + passed_s if self.traffic_pps < state.request.below_pps else 0.0
            if quiet_s >= self._quiet_s:
                return f"{self.traffic_pps:.0f} packets/s arrived, fewer than {state.request.below_pps}"
        return ""

    async def _finish(self, state: DrainState, reason: str) -> None:
        drained = msgspec.structs.replace(state, stage=Stage.DRAINED, since=time.time(), reason=reason)
        try:
            await self._enter(drained)
        except Unkept as error:
            # The file still says draining: a restart would go on from there, so that withdrawing now is right all the same.
            reason = f"{reason}; {error}"
            self.state = drained
            await self._tell()
        self._notice(Notice("drain.finished", {"reason": reason}))

    async def _enter(self, state: DrainState) -> None:
        keep(self._path, msgspec.json.encode(state), "a restart would announce again")
        self.state = state
        self._changed.set()
        await self._tell()

    async def _tell(self) -> None:
        assert self.state is not None
        await self._put(DrainChanged(self.state.stage, self.state.request.keep_blocks))

    def _received(self) -> Mapping[str, int]:
        """Read how many packets each uplink has received since it was made."""
        with self._counters.open("rb") as file:
            lines = file.read(COUNTERS_LIMIT_BYTES).decode(errors="replace").splitlines()[2:]
        wanted = self._uplinks()
        fields = {name.strip(): rest.split() for name, _, rest in (line.partition(":") for line in lines)}
        return {name: int(row[1]) for name, row in fields.items() if name in wanted and len(row) > 1}


def _read(path: Path) -> DrainState | None:
    try:
        state = msgspec.json.decode(path.read_bytes(), type=DrainState)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise Unfit(
            f"{path} cannot be read ({error}): it says whether this node is drained. Remove it to announce everything"
        ) from error
    return None if state.stage is Stage.OFF else state
