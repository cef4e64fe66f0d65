"""An event as one line of text."""

from __future__ import annotations

from datetime import datetime

from bgpd.model.telling import EventView


def line(event: EventView) -> str:
    """Write an event as one line: local time, level, name, fields."""
    at = datetime.fromtimestamp(event.at).astimezone().isoformat(" ", "milliseconds")
    return f"{at}  {event.level:7}  {event.event:18}  {fields_text(event)}".rstrip()


def fields_text(event: EventView) -> str:
    """Write what an event says as ``name=value``."""
    return " ".join(f"{name}={_word(value)}" for name, value in event.fields.items())


def _word(value: object) -> str:
    text = str(value)
    return f'"{text}"' if " " in text or not text else text
