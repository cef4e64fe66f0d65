"""What ExaBGP's OPEN lacks, put in by the launcher: our role (RFC 9234), and an F bit that is true (RFC 4724).

The daemon writes role and strictness into the neighbor's description (``conf.py``), since ExaBGP's configuration has no word for them.

What is replaced, and why:

* ``Capabilities.new`` offers the role, and clears F where nothing was preserved: stock ExaBGP claims in each OPEN that forwarding state
  was kept. It was kept over a restart that our peers know of (RESTARTED), and over the loss of a session of this process, not before
  the first session with a neighbor (RFC 4724 section 3).
* ``Protocol.new_open`` tells ``Capabilities.new`` which of these it is.
* ``Negotiated.validate`` refuses an OPEN whose role does not fit ours, or that has none where we are strict (RFC 9234 section 4.2).
* ``Neighbor.__eq__`` sees a changed role, link or list of next hops, which stock ExaBGP compares not.
"""

from __future__ import annotations

import re
from typing import Any, Self

from exabgp.bgp.message.open.capability.capabilities import Capabilities
from exabgp.bgp.message.open.capability.capability import Capability
from exabgp.bgp.message.open.capability.graceful import Graceful
from exabgp.bgp.message.open.capability.negotiated import Negotiated
from exabgp.bgp.neighbor import Neighbor
from exabgp.reactor import peer, protocol

ROLE = 9
"""Code of the capability (RFC 9234 section 4.1)."""
ROLE_MISMATCH = 11
"""Subcode of OPEN Message Error."""
ROLES = ("provider", "rs", "rs-client", "customer", "peer")
"""Ordered by their values, from 0."""
_FITS = {"provider": "customer", "customer": "provider", "rs": "rs-client", "rs-client": "rs", "peer": "peer"}
"""The role that the neighbor of each has (RFC 9234 section 4.2, table 2)."""
_MARK = re.compile(r" role=(\S+?)(,strict)?$")


class RoleCapability:
    """The capability as often as it was in an OPEN: several that are equal count as one (RFC 9234 section 4.2)."""

    def __init__(self) -> None:
        self.values: list[bytes] = []

    def __str__(self) -> str:
        return f"Role({', '.join(value.hex() for value in self.values)})"

    def json(self) -> str:
        return f'{{ "name": "role", "values": "{self}" }}'

    def extract(self) -> list[bytes]:
        return self.values

    @staticmethod
    def unpack_capability(instance: RoleCapability, data: bytes, _capability: int) -> RoleCapability:
        return instance.with_value(data)

    def with_value(self, data: bytes) -> Self:
        self.values.append(data)
        return self


def configured(neighbor: Any) -> tuple[str, bool]:
    """Return our role in the session with *neighbor*, empty if there is none, and whether we insist on the neighbor's."""
    found = _MARK.search(neighbor["description"] or "")
    return ("", False) if found is None else (found[1], found[2] is not None)


def mismatch(ours: str, strict: bool, values: list[bytes]) -> str:
    """Say why a session must not be, from our role and the values of the neighbor's capability; empty if it may."""
    if not ours:
        return ""
    if not values:
        return "no role offered, and we are strict" if strict else ""
    theirs = [ROLES[one[0]] if len(one) == 1 and one[0] < len(ROLES) else f"0x{one.hex()}" for one in values]
    if len(set(theirs)) > 1:
        return f"several roles offered: {', '.join(theirs)}"
    return "" if theirs[0] == _FITS[ours] else f"role {theirs[0]} does not fit ours, {ours}"


def install() -> None:
    """Replace what the module's docstring names; ``launcher.verify`` has looked at it before."""
    stock_new = Capabilities.new
    stock_open = protocol.Protocol.new_open
    stock_validate = Negotiated.validate
    stock_equal = Neighbor.__eq__

    def new(self: Any, neighbor: Any, restarted: bool, local_as: Any = None) -> Any:
        stock_new(self, neighbor, restarted, local_as)
        graceful = self.get(Graceful.ID)
        if graceful is not None and not neighbor.bgpd_preserved:
            graceful.update(dict.fromkeys(graceful, 0))
        ours, _ = configured(neighbor)
        if ours:
            self[ROLE] = RoleCapability().with_value(bytes((ROLES.index(ours),)))
        return self

    def new_open(self: Any) -> Any:
        self.neighbor.bgpd_preserved = self.peer._restarted or self.peer.bgpd_met
        return stock_open(self)

    def validate(self: Any, neighbor: Any) -> Any:
        refused = stock_validate(self, neighbor)
        if refused is not None:
            return refused
        offered = self.received_open.capabilities.get(ROLE)
        reason = mismatch(*configured(neighbor), [] if offered is None else offered.values)
        return (2, ROLE_MISMATCH, b"") if reason else None

    def equal(self: Any, other: Any) -> bool:
        return (
            bool(stock_equal(self, other))
            and configured(self) == configured(other)
            and self["source-interface"] == other["source-interface"]
            and self.nexthops() == other.nexthops()
        )

    Capability.register(ROLE)(RoleCapability)
    Capabilities.new = new
    protocol.Protocol.new_open = new_open
    Negotiated.validate = validate
    Neighbor.__eq__ = equal
    Neighbor.bgpd_preserved = False
    peer.Peer.bgpd_met = False
