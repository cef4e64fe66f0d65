"""UPDATE messages by the thousand: what a peer could mean, written to bytes by an encoder of the tests' own, and broken on purpose.

Everything comes from one ``random.Random``, so that a seed names a message.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import Any

import msgspec

from bgpd.adapters.exabgp.codec import DecodeContext
from bgpd.model.event import RoutesLearned
from bgpd.model.prefix import Address, Family, Prefix
from bgpd.model.route import AsSegment, Attributes, Origin, SegmentKind, UnknownAttribute

PEER = Address.parse("192.0.2.1")
CONTEXTS = tuple(
    DecodeContext(asn4=asn4, add_path=add_path, external=external)
    for asn4 in (True, False)
    for add_path in ((), (Family.IPV4,), tuple(Family))
    for external in (True, False)
)

# ------------------------------------------------------------------ what a peer means


class Meaning(msgspec.Struct, frozen=True):
    """An UPDATE before it is bytes: routes of one family that share a path id."""

    announced: tuple[Prefix, ...]
    withdrawn: tuple[Prefix, ...]
    attributes: Attributes | None
    path_id: int


def prefixes(rng: random.Random, family: Family, most: int) -> tuple[Prefix, ...]:
    """Different prefixes of any length; often all of one."""
    bits = family.bits
    common = rng.randrange(bits + 1)
    found = {}
    for _ in range(rng.randrange(most + 1)):
        length = common if rng.random() < 0.5 else rng.randrange(bits + 1)
        address = Address(rng.getrandbits(bits) | (1 << 128 if family is Family.IPV6 else 0))
        found[Prefix.of(address, length)] = None
    return tuple(found)


def _asn(rng: random.Random) -> int:
    return rng.choice((rng.randrange(1, 65536), rng.randrange(65536, 1 << 32), 23456, 64512))


def _path(rng: random.Random, confederations: bool) -> tuple[AsSegment, ...]:
    kinds = list(SegmentKind) if confederations else [SegmentKind.SEQUENCE, SegmentKind.SET]
    return tuple(
        AsSegment(rng.choice(kinds), tuple(_asn(rng) for _ in range(rng.randrange(1, 6))))
        for _ in range(rng.choice((0, 1, 1, 1, 2)))
    )


def _maybe(rng: random.Random, make: Callable[[], Any], otherwise: Any = None) -> Any:
    return make() if rng.random() < 0.3 else otherwise


def attributes(rng: random.Random, family: Family, context: DecodeContext, confederations: bool = True) -> Attributes:
    """Attributes as a peer of *context* may send them."""
    hop6 = Address(rng.getrandbits(128) | 1 << 128)
    internal = not context.external
    values: dict[str, Any] = {
        "next_hop": Address(rng.getrandbits(32)) if family is Family.IPV4 else hop6,
        "origin": rng.choice(list(Origin)),
        # Two bytes and a confederation lose what stands between other segments (RFC 6793 section 4.2.3).
        "as_path": _path(rng, confederations and internal and context.asn4),
        "med": _maybe(rng, lambda: rng.getrandbits(32)),
        "local_pref": _maybe(rng, lambda: rng.getrandbits(32)) if internal else None,
        "atomic_aggregate": bool(_maybe(rng, lambda: True, False)),
        "aggregator": _maybe(rng, lambda: (_asn(rng), Address(rng.getrandbits(32)))),
        "communities": _maybe(rng, lambda: tuple({rng.getrandbits(32): 0 for _ in range(rng.randrange(1, 40))}), ()),
        "extended_communities": _maybe(
            rng, lambda: (b"\x00\x02" + rng.randbytes(6), b"\x40\x04" + rng.randbytes(6)), ()
        ),
        "large_communities": _maybe(rng, lambda: ((_asn(rng), rng.getrandbits(32), rng.getrandbits(32)),), ()),
        "originator_id": _maybe(rng, lambda: Address(rng.getrandbits(32))) if internal else None,
        "cluster_list": _maybe(rng, lambda: (Address(rng.getrandbits(32)),) * rng.randrange(1, 4), ())
        if internal
        else (),
        "unknown": _maybe(
            rng, lambda: (UnknownAttribute(0xE0, rng.randrange(200, 250), rng.randbytes(rng.randrange(9))),), ()
        ),
    }
    return Attributes(**values)


def meaning(rng: random.Random, context: DecodeContext, most: int = 12, *, confederations: bool = True) -> Meaning:
    family = rng.choice(list(Family))
    announced = prefixes(rng, family, most)
    withdrawn = tuple(one for one in prefixes(rng, family, most // 2) if one not in announced)
    path_id = rng.randrange(1, 1 << 32) if family in context.add_path else 0
    given = attributes(rng, family, context, confederations) if announced else None
    return Meaning(announced, withdrawn, given, path_id)


# ------------------------------------------------------------------ bytes


def attribute(flags: int, code: int, value: bytes) -> bytes:
    if len(value) > 255 or flags & 0x10:
        return struct.pack("!BBH", flags | 0x10, code, len(value)) + value
    return struct.pack("!BBB", flags, code, len(value)) + value


def _nlri(routes: tuple[Prefix, ...], path_id: int, context: DecodeContext) -> bytes:
    parts = []
    for prefix in routes:
        if prefix.family in context.add_path:
            parts.append(struct.pack("!I", path_id))
        parts.append(struct.pack("!B", prefix.length) + prefix.network.packed[: (prefix.length + 7) // 8])
    return b"".join(parts)


_KINDS = {
    SegmentKind.SET: 1,
    SegmentKind.SEQUENCE: 2,
    SegmentKind.CONFED_SEQUENCE: 3,
    SegmentKind.CONFED_SET: 4,
}


def _as_path(path: tuple[AsSegment, ...], size: int) -> bytes:
    most = (1 << 8 * size) - 1
    return b"".join(
        bytes((_KINDS[segment.kind], len(segment.asns)))
        + b"".join((asn if asn <= most else 23456).to_bytes(size, "big") for asn in segment.asns)
        for segment in path
    )


def parts(given: Attributes, context: DecodeContext) -> list[bytes]:
    """Write each attribute but the next hop and the multiprotocol ones (RFC 6793 for speakers of 2-byte AS numbers)."""
    size = 4 if context.asn4 else 2
    out = [
        attribute(0x40, 1, bytes((given.origin,))),
        attribute(0x40, 2, _as_path(given.as_path, size)),
    ]
    if given.med is not None:
        out.append(attribute(0x80, 4, struct.pack("!I", given.med)))
    if given.local_pref is not None:
        out.append(attribute(0x40, 5, struct.pack("!I", given.local_pref)))
    if given.atomic_aggregate:
        out.append(attribute(0x40, 6, b""))
    if given.aggregator is not None:
        asn, address = given.aggregator
        short = asn if size == 4 or asn < 65536 else 23456
        out.append(attribute(0xC0, 7, short.to_bytes(size, "big") + address.packed))
        if short != asn:
            out.append(attribute(0xC0, 18, struct.pack("!I", asn) + address.packed))
    if given.communities:
        out.append(attribute(0xC0, 8, b"".join(struct.pack("!I", one) for one in given.communities)))
    if given.originator_id is not None:
        out.append(attribute(0x80, 9, given.originator_id.packed))
    if given.cluster_list:
        out.append(attribute(0x80, 10, b"".join(one.packed for one in given.cluster_list)))
    if given.extended_communities:
        out.append(attribute(0xC0, 16, b"".join(given.extended_communities)))
    if size == 2 and any(asn > 65535 for segment in given.as_path for asn in segment.asns):
        out.append(attribute(0xC0, 17, _as_path(given.as_path, 4)))
    if given.large_communities:
        out.append(attribute(0xC0, 32, b"".join(struct.pack("!III", *one) for one in given.large_communities)))
    out += [attribute(one.flags, one.code, one.value) for one in given.unknown]
    return out


def encode(meant: Meaning, context: DecodeContext) -> bytes:
    """Write an UPDATE: IPv4 in the classic fields, IPv6, and IPv4 with an IPv6 next hop, in the multiprotocol attributes."""
    family = (meant.announced or meant.withdrawn or (Prefix(0),))[0].family
    nlri = _nlri(meant.announced, meant.path_id, context)
    gone = _nlri(meant.withdrawn, meant.path_id, context)
    out: list[bytes] = []
    given = meant.attributes
    classic = family is Family.IPV4 and (given is None or given.next_hop.family is Family.IPV4)
    head = b"\0\1\1" if family is Family.IPV4 else b"\0\2\1"
    if not classic and gone:
        out.append(attribute(0x80, 15, head + gone))
    if given is not None:
        out += parts(given, context)
        hop = given.next_hop.packed
        if given.link_local_next_hop is not None:
            hop += given.link_local_next_hop.packed
        if classic:
            out.append(attribute(0x40, 3, hop))
        else:
            out.append(attribute(0x80, 14, head + bytes((len(hop),)) + hop + b"\0" + nlri))
    data = b"".join(out)
    withdrawn = gone if classic else b""
    tail = nlri if classic else b""
    return struct.pack("!H", len(withdrawn)) + withdrawn + struct.pack("!H", len(data)) + data + tail


def again(event: RoutesLearned, context: DecodeContext) -> bytes:
    """Write what the decoder made of an UPDATE."""
    family = event.announced[0].family if event.announced else None
    withdrawn = tuple(one for one in event.withdrawn if family is None or one.family is family)
    return encode(Meaning(event.announced, withdrawn, event.attributes, event.path_id), context)


# ------------------------------------------------------------------ breaking


def broken(rng: random.Random, body: bytes) -> bytes:
    """Change an UPDATE: bytes, a piece taken out, doubled or put elsewhere, the end cut off or filled up."""
    data = bytearray(body)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice((1, 1, 2, 4, 16)))
        match rng.randrange(7):
            case 0:
                data[at:end] = rng.randbytes(end - at)
            case 1:
                del data[at:end]
            case 2:
                data[at:at] = data[at:end]
            case 3:
                data[at:at] = rng.randbytes(rng.randrange(1, 5))
            case 4 if data:
                data[at % len(data)] ^= 1 << rng.randrange(8)
            case 5 if data:
                data[at % len(data)] = rng.choice((0, 1, 2, 3, 4, 14, 15, 32, 64, 127, 128, 255))
            case 6:
                del data[at:]
    return bytes(data)


def reframed(rng: random.Random, body: bytes) -> bytes:
    """Break the path attributes only, and have the length field right: the defect is in what it says, not in where it ends."""
    gone = int.from_bytes(body[:2], "big")
    at = 4 + gone
    size = int.from_bytes(body[2 + gone : at], "big")
    data = broken(rng, body[at : at + size])[:65000]
    return body[: 2 + gone] + struct.pack("!H", len(data)) + data + body[at + size :]
