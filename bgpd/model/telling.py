"""What is told outside of the daemon: an event for each notice, and the state of the daemon and of each peer. JSON with a version.

The schema of the messages is ``config/mqtt/messages.schema.json``; fields are added within a version, never taken away or given another
meaning.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

VERSION: Final = 1


class EventView(msgspec.Struct, frozen=True, kw_only=True):
    """A notice, numbered and dated."""

    sequence: Annotated[int, msgspec.Meta(ge=1)]
    """Counts the notices of this life of the daemon, so that a gap shows."""
    at: float
    """Seconds since the epoch."""
    event: str
    """Its name: see ``bgpd events --kinds``."""
    level: Literal["info", "warning"]
    fields: dict[str, str | int | float | bool | None] = {}


class EventsMessage(msgspec.Struct, frozen=True, kw_only=True):
    """Topic ``…/events``: what happened, in order, several at once where they came fast.

    Topic ``…/recent``, retained: the last of them.
    """

    version: Literal[1] = 1
    cluster: str
    node: str
    events: tuple[EventView, ...]
    dropped: int = 0
    """Events that were dropped before these because the broker did not take them fast enough."""


class StatusMessage(msgspec.Struct, frozen=True, kw_only=True):
    """Topic ``…/status``, retained; ``offline`` is also the last will."""

    version: Literal[1] = 1
    cluster: str
    node: str
    state: Literal["online", "offline"]
    phase: str = ""
    """Start-up phase; ready is the last."""
    at: float | None = None
    """Seconds since the epoch; absent in a last will, which does not know."""


class PeerMessage(msgspec.Struct, frozen=True, kw_only=True):
    """Topic ``…/peers/ADDRESS``, retained; an empty message where the peer is configured no more."""

    version: Literal[1] = 1
    cluster: str
    node: str
    name: str
    address: str
    asn: int
    established: bool
    since: float | None
    """Seconds since the epoch; absent if it never changed."""
    reason: str
    """Why it is down; empty if it is not, or never was up."""
