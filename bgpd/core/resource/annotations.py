"""Annotations of a BGPPeer, ``bgpd.io/…``: what Calico's resource has no field for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from bgpd.core.resource.rules import parse_duration, parse_peer_ip, parses
from bgpd.model.peer import Bfd, MaxPrefix, Role
from bgpd.model.prefix import Address, Family

HOLD_TIME: Final = "bgpd.io/hold-time"
MAX_PREFIX: Final = "bgpd.io/max-prefix"
ROLE: Final = "bgpd.io/role"
ROLE_STRICT: Final = "bgpd.io/role-strict"
EXTENDED_NEXT_HOP: Final = "bgpd.io/extended-next-hop"
ADD_PATH: Final = "bgpd.io/add-path"
INTERFACE: Final = "bgpd.io/interface"
BFD: Final = "bgpd.io/bfd"

PREFIXES_MAX: Final = 100_000_000
"""Limit of bgpd.io/max-prefix: far above what a node can hold."""
BFD_MIN_MS: Final = 50
BFD_MAX_MS: Final = 60_000
"""Of a session's interval, as in the node's file."""
RESTART_MAX_S: Final = 30 * 86_400
_INTERFACE = re.compile(r"[^\s/:%]{1,15}")
_MAX_PREFIX = re.compile(r"(\d{1,9})(?:,(\d{1,3})%)?(?:,(\S+))?")

Broken = Iterator[tuple[str, str]]
Spec = dict[str, Any]


def parse_hold_time(text: str) -> int:
    """Read whole seconds, ``30`` or ``30s``; raises ValueError."""
    seconds = float(text) if text.isascii() and text.isdecimal() and len(text) < 6 else parse_duration(text)
    if seconds != int(seconds) or not (seconds == 0 or 3 <= seconds <= 65_535):
        raise ValueError("must be whole seconds: 0 (no keepalives), or 3 to 65535 (RFC 4271 section 4.2)")
    return int(seconds)


def parse_max_prefix(text: str) -> MaxPrefix:
    """Read ``LIMIT[,WARN%][,RESTART]``, such as ``1000,80%,5m``; raises ValueError."""
    found = _MAX_PREFIX.fullmatch(text.replace(" ", ""))
    if found is None:
        raise ValueError("must be LIMIT[,WARN%][,RESTART], such as 1000, 1000,80% or 1000,80%,5m")
    limit, warn = int(found[1]), int(found[2]) if found[2] else 75
    restart_s = parse_duration(found[3]) if found[3] else 0.0
    if not 1 <= limit <= PREFIXES_MAX:
        raise ValueError(f"the limit must be 1 to {PREFIXES_MAX}")
    if not 0 <= warn <= 100:
        raise ValueError("the share to warn at must be 0 to 100 %")
    if not 0 <= restart_s <= RESTART_MAX_S:
        raise ValueError("the restart time must be at most 30 days")
    return MaxPrefix(limit, warn, int(restart_s))


def parse_bfd(text: str) -> Bfd | None:
    """Read ``true`` (300 ms x 3), ``INTERVAL[,MULTIPLIER]`` such as ``100ms,3``, or ``false``; raises ValueError.

    The interval is that of both directions (RFC 5880 section 6.8.1: bfd.DesiredMinTxInterval, bfd.RequiredMinRxInterval).
    """
    if text in {"true", "false"}:
        return Bfd() if text == "true" else None
    interval, _, times = text.replace(" ", "").partition(",")
    interval_ms = 1000 * parse_duration(interval)
    multiplier = int(times) if times.isascii() and times.isdecimal() and len(times) < 4 else 0 if times else 3
    if interval_ms != int(interval_ms) or not BFD_MIN_MS <= interval_ms <= BFD_MAX_MS or not 1 <= multiplier <= 255:
        raise ValueError("must be true, false or INTERVAL[,MULTIPLIER]: 50ms to 60s, and 1 to 255, such as 300ms,3")
    return Bfd(min_tx_ms=int(interval_ms), min_rx_ms=int(interval_ms), multiplier=multiplier)


def parse_flag(text: str) -> bool:
    """Read ``true`` or ``false``; raises ValueError."""
    if text not in {"true", "false"}:
        raise ValueError('must be "true" or "false"')
    return text == "true"


def _one_of(*words: str) -> Callable[[Any], str]:
    return lambda text: "" if text in words else f"must be one of {', '.join(words)}"


PEER_ANNOTATIONS: Final[Mapping[str, Callable[[Any], str]]] = {
    HOLD_TIME: parses(parse_hold_time),
    MAX_PREFIX: parses(parse_max_prefix),
    ROLE: _one_of(*Role),
    ROLE_STRICT: parses(parse_flag),
    EXTENDED_NEXT_HOP: parses(parse_flag),
    ADD_PATH: _one_of("receive"),
    BFD: parses(parse_bfd),
    INTERFACE: lambda text: "" if _INTERFACE.fullmatch(text) else "must be the name of a link, such as eth0",
}


def peer_cross(_name: str, spec: Spec, annotations: Mapping[str, str]) -> list[tuple[str, str]]:
    """Judge a BGPPeer's spec and annotations together."""
    return [*_far_end(spec, annotations), *_timers(spec, annotations), *_role(annotations)]


def _far_end(spec: Spec, annotations: Mapping[str, str]) -> Broken:
    where = f"metadata.annotations[{INTERFACE}]"
    named = [name for name in ("peerIP", "peerSelector", "localWorkloadSelector") if spec.get(name)]
    interface = annotations.get(INTERFACE, "")
    if not named and not interface:
        yield "spec.peerIP", f"is required, or peerSelector, or localWorkloadSelector, or annotation {INTERFACE}"
    if interface and named and named[0] != "peerIP":
        yield where, f"must be absent where {named[0]} is given"
    if not named and interface and not spec.get("asNumber"):
        yield "spec.asNumber", f"is required where annotation {INTERFACE} stands for the far end"
    address: Address | None = None
    if spec.get("peerIP"):
        address, _, zone = parse_peer_ip(spec["peerIP"])
        yield from _link(address, zone, interface)
    if annotations.get(EXTENDED_NEXT_HOP) == "true" and address is not None and address.family is Family.IPV4:
        place = f"metadata.annotations[{EXTENDED_NEXT_HOP}]"
        yield place, "needs a session over IPv6: peerIP is an IPv4 address (RFC 8950)"


def _link(address: Address, zone: str, interface: str) -> Broken:
    if zone and interface and zone != interface:
        yield f"metadata.annotations[{INTERFACE}]", f"must be absent or {zone}, as peerIP says"
    link_local = address.family is Family.IPV6 and address.is_link_local
    if link_local and not (zone or interface):
        yield "spec.peerIP", f"needs its link: write ADDRESS%LINK, or annotation {INTERFACE}"
    if not link_local and (zone or interface):
        yield "spec.peerIP", "has a link, but is no link-local IPv6 address"


def _role(annotations: Mapping[str, str]) -> Broken:
    if annotations.get(ROLE_STRICT) == "true" and not annotations.get(ROLE):
        yield f"metadata.annotations[{ROLE_STRICT}]", f"needs {ROLE}: our own role"


def _timers(spec: Spec, annotations: Mapping[str, str]) -> Broken:
    if spec.get("keepaliveTime") and annotations.get(HOLD_TIME):
        place = f"metadata.annotations[{HOLD_TIME}]"
        yield place, "must be absent where keepaliveTime is given: the hold time is three times that"
