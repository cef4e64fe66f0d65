"""Roles and Only-to-Customer (RFC 9234): route leaks found by an attribute that says "this went down or across already".

That the roles of both sides fit is seen to where sessions are opened (adapters/exabgp/child/opening.py); here is section 5.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import msgspec

from bgpd.model.peer import Peer, Role
from bgpd.model.route import Attributes, UnknownAttribute

OTC: Final = 35
_FLAGS: Final = 0xC0
"""Optional, transitive."""
MARKED_MAX: Final = 4096
"""Attribute sets kept with their mark: routes share attributes, a table has some hundreds."""

_FROM_ABOVE: Final = (Role.CUSTOMER, Role.PEER, Role.RS_CLIENT)
"""Our role where the neighbor is a provider, a peer or a route server: what comes from it is for customers only."""
_TO_BELOW: Final = (Role.PROVIDER, Role.PEER, Role.RS)
"""Our role where the neighbor is a customer, a peer or a client of our route server."""


def only_to_customer(attributes: Attributes) -> int | None:
    """Return the AS number of the OTC attribute; None where there is none, or a malformed one (treated as 0 by nobody)."""
    for one in attributes.unknown:
        if one.code == OTC and len(one.value) == 4:
            return int.from_bytes(one.value, "big")
    return None


def received(attributes: Attributes, peer: Peer) -> Attributes | str:
    """Judge and mark a route from an eBGP peer with a role (section 5, ingress); returns the leak that it is."""
    role, otc = peer.role, only_to_customer(attributes)
    if role is None or not peer.is_external:
        return attributes
    if role in (Role.PROVIDER, Role.RS) and otc is not None:
        return f"route leak: a {_neighbor(role)} sends what AS {otc} marked for customers only (RFC 9234)"
    if role is Role.PEER and otc is not None and otc != peer.asn:
        return f"route leak: a peer sends what AS {otc} marked for customers only (RFC 9234)"
    return _marked(attributes, peer.asn) if role in _FROM_ABOVE and otc is None else attributes


def sent(attributes: Attributes, peer: Peer) -> Attributes | str:
    """Judge and mark a route for an eBGP peer with a role (section 5, egress); returns why it would be a leak."""
    role, otc = peer.role, only_to_customer(attributes)
    if role is None or not peer.is_external:
        return attributes
    if role in _FROM_ABOVE and otc is not None:
        return f"it would be a route leak: AS {otc} marked it for customers only (RFC 9234)"
    return _marked(attributes, peer.local_asn) if role in _TO_BELOW and otc is None else attributes


def _neighbor(role: Role) -> str:
    return "customer" if role is Role.PROVIDER else "route server client"


@lru_cache(maxsize=MARKED_MAX)
def _marked(attributes: Attributes, asn: int) -> Attributes:
    mark = UnknownAttribute(_FLAGS, OTC, asn.to_bytes(4, "big"))
    return msgspec.structs.replace(attributes, unknown=(*attributes.unknown, mark))
