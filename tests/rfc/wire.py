"""UPDATE bodies by hand, as the RFCs draw them: what the tests of the decoder send."""

from __future__ import annotations

import struct

from bgpd.adapters.exabgp.codec import DecodeContext, Learned, decode
from bgpd.model.event import RoutesLearned, Treatment, UpdateMalformed
from bgpd.model.prefix import Address, Prefix

PEER = Address.parse("192.0.2.1")
EXTERNAL = DecodeContext()
INTERNAL = DecodeContext(external=False)
TWO_BYTES = DecodeContext(asn4=False)
P24 = Prefix.parse("10.9.0.0/24")
P6 = Prefix.parse("2001:db8::/32")
NLRI = b"\x18\x0a\x09\x00"
NLRI6 = b"\x20\x20\x01\x0d\xb8"
V6 = Address.parse("2001:db8::1").packed
LINK_LOCAL = Address.parse("fe80::2").packed


def attribute(flags: int, code: int, value: bytes) -> bytes:
    if flags & 0x10:
        return bytes((flags, code)) + struct.pack("!H", len(value)) + value
    return bytes((flags, code, len(value))) + value


def as_path(*asns: int, size: int = 4, kind: int = 2) -> bytes:
    return attribute(0x40, 2, bytes((kind, len(asns))) + b"".join(asn.to_bytes(size, "big") for asn in asns))


ORIGIN = attribute(0x40, 1, b"\0")
AS_PATH = as_path(65001, 4200000001)
NEXT_HOP = attribute(0x40, 3, PEER.packed)
MANDATORY = ORIGIN + AS_PATH + NEXT_HOP


def reach(value: bytes = b"\0\2\1\x10" + V6 + b"\0" + NLRI6, flags: int = 0x80) -> bytes:
    """MP_REACH_NLRI, by default of one IPv6 prefix."""
    return attribute(flags, 14, value)


def unreach(value: bytes = b"\0\2\1" + NLRI6, flags: int = 0x80) -> bytes:
    """MP_UNREACH_NLRI, by default of one IPv6 prefix."""
    return attribute(flags, 15, value)


def update(attributes: bytes = b"", nlri: bytes = b"", withdrawn: bytes = b"") -> bytes:
    return struct.pack("!H", len(withdrawn)) + withdrawn + struct.pack("!H", len(attributes)) + attributes + nlri


def learned(body: bytes, context: DecodeContext = EXTERNAL) -> RoutesLearned:
    """The only routes of an UPDATE, whatever was discarded of it."""
    (event,) = (event for event in decode(body, PEER, context) if isinstance(event, RoutesLearned))
    return event


def outcome(body: bytes, context: DecodeContext = EXTERNAL) -> tuple[list[tuple[Treatment, str]], list[Learned]]:
    """The defects of an UPDATE as (treatment, attribute), and what is left of it."""
    events = decode(body, PEER, context)
    defects = [(event.treatment, event.attribute) for event in events if isinstance(event, UpdateMalformed)]
    return defects, [event for event in events if not isinstance(event, UpdateMalformed)]
