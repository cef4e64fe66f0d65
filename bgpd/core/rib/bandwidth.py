"""Shares of legs by the link bandwidth extended community (draft-ietf-idr-link-bandwidth): weighted ECMP."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

from bgpd.core.rib.decision import Candidate
from bgpd.model.forwarding import Leg
from bgpd.model.route import Attributes

_TYPES = (b"\x40\x04", b"\x00\x04")
"""Non-transitive and transitive, both of a two-byte AS."""
FULL_SHARE = 100
"""Weight of the widest leg: the kernel takes 1 to 256, and routers use 1 to 100."""


def bandwidth(attributes: Attributes) -> float | None:
    """Return the bandwidth in bytes a second; None without one, or with one that is no positive number."""
    for community in attributes.extended_communities:
        if community[:2] in _TYPES:
            (value,) = struct.unpack("!f", community[4:])
            return value if math.isfinite(value) and value > 0 else None
    return None


def shares(chosen: Sequence[Candidate]) -> dict[Leg, int]:
    """Return the weight of each leg, 1 to FULL_SHARE, in proportion to the bandwidth of the paths through it.

    Empty where a path does not say its bandwidth: then all share equally.
    """
    widths: dict[Leg, float] = {}
    for one in chosen:
        width = bandwidth(one.path.attributes)
        if width is None:
            return {}
        for leg in one.resolved.legs:
            widths[leg] = widths.get(leg, 0.0) + width / len(one.resolved.legs)
    widest = max(widths.values(), default=1.0)
    return {leg: max(1, round(FULL_SHARE * width / widest)) for leg, width in widths.items()}
