"""The table of decisions: how the blocks of a remote node are reached. Exactly one row applies to any situation."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from bgpd.model.forwarding import Leg
from bgpd.model.overlay import Path
from bgpd.model.pool import Mode


class How(StrEnum):
    """The row of the table that applies."""

    OWN = "own"
    TUNNEL = "tunnel"
    """By the pool's mode, or forced."""
    NATIVE = "native"
    DIRECT = "direct"
    FALLBACK = "fallback"
    UNREACHABLE = "unreachable"
    BGP = "bgp"
    """Not a block of ours or of a node we know: BGP alone decides."""
    FOREIGN = "foreign"
    """Known from BGP alone, but another's route of the same prefix stands in the kernel: it is kept (law 4)."""
    WAITING = "waiting"
    """Start-up: nothing may be concluded from what is not there yet (law 3)."""


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """All that the choice for one remote block depends on."""

    mode: Mode
    """Of the pool's tunnel; NEVER if it has none."""
    same_subnet: bool
    """The node's address is in the subnet of ours."""
    native: tuple[Leg, ...]
    """Legs of the BGP selection; empty if BGP has no usable path."""
    native_reason: str
    direct: tuple[Leg, ...]
    """The leg to the node's address if that is on a link of ours and in our subnet; else empty."""
    restored: bool
    """False while the native path came back after a fallback and its quiet time is not over."""
    alive: bool
    tunnel: tuple[Leg, ...]
    """The leg of the pool's tunnel to the node; empty if it cannot be used."""
    tunnel_reason: str
    fallback: tuple[Leg, ...]
    """The leg of the preferred kind among those that may be fallen back to and can be used; empty if there is none."""
    fallback_reason: str
    """Why there is none, or why a preferred one was passed over."""
    forced: Path = Path.AUTO
    """By an operator; AUTO: not at all."""
    forced_tunnel: tuple[Leg, ...] = ()
    """The leg of the kind that is forced; empty if it cannot be used, or native is forced."""
    forced_reason: str = ""
    """Why it cannot be used."""
    decided: bool
    """Law 3: all peers were heard, so what is absent is truly absent."""


class Choice(msgspec.Struct, frozen=True):
    how: How
    legs: tuple[Leg, ...] = ()
    reason: str = ""


def choose(now: Situation) -> Choice:
    """Apply the table. Total: any situation has exactly one row.

    What an operator forces comes first. Where that cannot be used it forces nothing: traffic must not be lost by an order that was right
    when it was given.
    """
    if now.forced is Path.AUTO:
        return _chosen(now)
    if now.forced_tunnel:
        return Choice(How.TUNNEL, now.forced_tunnel, f"forced to {now.forced} by an operator")
    if now.forced is Path.NATIVE and now.native:
        return Choice(How.NATIVE, now.native, "forced to native by an operator")
    if now.forced is Path.NATIVE and now.direct:
        return Choice(How.DIRECT, now.direct, "forced to native by an operator")
    chosen = _chosen(now)
    why = now.native_reason if now.forced is Path.NATIVE else now.forced_reason
    return Choice(chosen.how, chosen.legs, f"{chosen.reason}; forced to {now.forced} in vain: {why}")


def _chosen(now: Situation) -> Choice:
    """Choose by pool and reachability."""
    if now.mode is Mode.ALWAYS or (now.mode is Mode.CROSS_SUBNET and not now.same_subnet):
        if now.tunnel:
            return Choice(How.TUNNEL, now.tunnel, f"pool mode {now.mode}")
        return Choice(How.UNREACHABLE, (), f"pool mode {now.mode}, and {now.tunnel_reason}")
    native = now.native or now.direct
    if native and (now.restored or not _can_fall_back(now)):
        if now.native:
            return Choice(How.NATIVE, now.native, "BGP has a usable path")
        return Choice(How.DIRECT, now.direct, f"the node is in our subnet and on link; {now.native_reason}")
    if not now.decided:
        return Choice(How.WAITING, (), "not every peer has sent End-of-RIB yet")
    if _can_fall_back(now):
        why = "the native path is back, its quiet time is not over" if native else now.native_reason
        return Choice(How.FALLBACK, now.fallback, f"{why}; {now.fallback_reason}" if now.fallback_reason else why)
    return Choice(How.UNREACHABLE, (), f"{now.native_reason}; no fallback: {_no_fallback_reason(now)}")


def _can_fall_back(now: Situation) -> bool:
    return now.alive and bool(now.fallback)


def _no_fallback_reason(now: Situation) -> str:
    return now.fallback_reason if now.alive or not now.fallback else "the node's lease has ended"
