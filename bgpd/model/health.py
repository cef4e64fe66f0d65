"""Static prefixes of the node's file, and the health checks that some of them depend on."""

from __future__ import annotations

import msgspec

from bgpd.model.prefix import Address, Prefix


class StaticPrefix(msgspec.Struct, frozen=True, kw_only=True):
    """A prefix that the node announces by its file (``[[announce]]``)."""

    prefix: Prefix
    communities: tuple[int, ...] = ()
    large_communities: tuple[tuple[int, int, int], ...] = ()
    check: str = ""
    """Name of the check that must pass; empty: always announced."""
    blackhole: bool = False


class HealthCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What says whether a service lives: exactly one of command, TCP port or URL."""

    name: str
    command: tuple[str, ...] = ()
    """Passes with exit status 0."""
    tcp: tuple[Address, int] | None = None
    """Passes when a connection is accepted."""
    url: str = ""
    """Passes with a status of 200 to 399."""
    interval_s: float = 2.0
    timeout_s: float = 1.0
    rise: int = 2
    """Passes in a row after which a failed service counts as healthy."""
    fall: int = 3
