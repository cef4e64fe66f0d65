"""Replay of a recording (``bgpd run --record FILE``): the same events at the same instants give the same tables (laws 1 and 2)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from bgpd.core.pipeline import Pipeline
from bgpd.model.event import Recorded
from bgpd.model.wire import from_builtin

_DECODER = msgspec.json.Decoder(Recorded, dec_hook=from_builtin)
_BUDGET = 512


def read(path: Path) -> Iterator[Recorded]:
    """Yield the events of a recording. A last line that a crash cut short is left out; any other bad line raises ValueError naming it."""
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], start=1):
        try:
            yield _DECODER.decode(line)
        except msgspec.DecodeError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error


def replay(path: Path) -> Pipeline:
    """Fold a recording into a fresh pipeline; its tables are those that the daemon had after the last event."""
    pipeline = Pipeline()
    for item in read(path):
        pipeline.handle(item.event, item.now)
        while pipeline.settle(_BUDGET):
            pass
        pipeline.take_notices()
    return pipeline
