"""Our decoder and ExaBGP's stock one read the same out of the same UPDATEs.

FUZZ_CORPUS sets how many (500; 10,000 by hand), FUZZ_SEED where they begin. ExaBGP's side goes its whole way: its decoder, its JSON, and
``lines.py``, which is what the mode ``json`` is made of.
"""

from __future__ import annotations

import os
import random
from typing import Any

import pytest
from exabgp.bgp.message import Update
from exabgp.bgp.message.direction import Direction
from exabgp.bgp.message.open.asn import ASN
from exabgp.bgp.message.open.capability import Negotiated
from exabgp.bgp.neighbor import Neighbor
from exabgp.logger import log
from exabgp.protocol.family import AFI, SAFI
from exabgp.protocol.ip import IP
from exabgp.reactor.api.response.json import JSON
from msgspec.structs import replace

from bgpd.adapters.exabgp.codec import DecodeContext, Learned, decode
from bgpd.adapters.exabgp.lines import UpdateReceived, parse
from bgpd.model.event import RoutesLearned
from bgpd.model.prefix import Family, Prefix
from bgpd.model.route import AsSegment, Attributes, SegmentKind
from tests.fuzz.updates import CONTEXTS, PEER, encode, meaning

pytestmark = [pytest.mark.core, pytest.mark.timeout(3600)]

CORPUS = int(os.environ.get("FUZZ_CORPUS", "500"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))
FAMILIES = {Family.IPV4: (AFI.ipv4, SAFI.unicast), Family.IPV6: (AFI.ipv6, SAFI.unicast)}


class Stock:
    """ExaBGP's decoder for one kind of session."""

    def __init__(self, context: DecodeContext) -> None:
        log.silence()
        self._neighbor = Neighbor()
        self._neighbor["peer-address"] = IP.create(str(PEER))
        self._neighbor["local-address"] = IP.create("192.0.2.2")
        self._neighbor["local-as"] = 65000
        self._neighbor["peer-as"] = 65001 if context.external else 65000
        self._negotiated: Any = Negotiated(self._neighbor)
        self._negotiated.asn4 = context.asn4
        self._negotiated.families = list(FAMILIES.values())
        self._negotiated.local_as = ASN(65000)
        self._negotiated.peer_as = ASN(self._neighbor["peer-as"])
        self._negotiated.addpath._receive = {FAMILIES[family]: True for family in context.add_path}
        self._json = JSON("5.0.0")

    def decode(self, body: bytes) -> list[Learned]:
        update = Update.unpack_message(body, Direction.IN, self._negotiated)
        line = parse(self._json.update(self._neighbor, "receive", update, None, b"", b"").encode())
        assert isinstance(line, UpdateReceived)
        return list(line.events)


Read = tuple[dict[tuple[int, Prefix], Attributes | None], set[tuple[int, Prefix]]]


def joined(path: tuple[AsSegment, ...]) -> tuple[AsSegment, ...]:
    """Join sequences that follow each other, as ExaBGP does with AS4_PATH: they mean the same (RFC 4271 section 5.1.2)."""
    out: list[AsSegment] = []
    for segment in path:
        if out and segment.kind is SegmentKind.SEQUENCE and out[-1].kind is SegmentKind.SEQUENCE:
            out[-1] = AsSegment(segment.kind, out[-1].asns + segment.asns)
        else:
            out.append(segment)
    return tuple(out)


def read(events: list[Learned]) -> Read:
    """What is announced and withdrawn; lists whose order says nothing are sorted."""
    announced: dict[tuple[int, Prefix], Attributes | None] = {}
    withdrawn: set[tuple[int, Prefix]] = set()
    for event in events:
        assert isinstance(event, RoutesLearned), event
        given = event.attributes
        if given is not None:
            given = replace(
                given,
                as_path=joined(given.as_path),
                communities=tuple(sorted(given.communities)),
                extended_communities=tuple(sorted(given.extended_communities)),
            )
        withdrawn |= {(event.path_id, prefix) for prefix in event.withdrawn}
        announced |= {(event.path_id, prefix): given for prefix in event.announced}
    return announced, withdrawn


@pytest.mark.parametrize("context", CONTEXTS)
def test_both_read_the_same(context: DecodeContext) -> None:
    """Each UPDATE of the corpus gives the same routes, path ids and attributes by both decoders."""
    stock = Stock(context)
    compared = 0
    for number in range(CORPUS // len(CONTEXTS) + 1):
        meant = meaning(random.Random(SEED + number), context, confederations=False)
        if not meant.announced and not meant.withdrawn:
            continue
        body = encode(meant, context)
        assert read(stock.decode(body)) == read(decode(body, PEER, context)), body.hex()
        compared += 1
    assert compared > CORPUS // len(CONTEXTS) // 2
