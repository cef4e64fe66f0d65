"""Notices: what the core has to tell people, as data. A log event, and later an MQTT topic and a counter, derive from each."""

from __future__ import annotations

import msgspec


class Notice(msgspec.Struct, frozen=True):
    """A transition worth telling. *name* is stable and documented: ``noun.past-verb``."""

    name: str
    fields: dict[str, str | int | float | bool | None] = {}
