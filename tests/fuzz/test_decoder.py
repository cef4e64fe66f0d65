"""The decoder against bytes nobody meant: only its own errors, and the same meaning when written again.

FUZZ_UPDATES sets how many messages the long tests take (2,000), FUZZ_SEED where they begin (0); ``FUZZ_CPU_S=600`` runs them for so
many seconds of processor time instead.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bgpd.adapters.exabgp.codec import (
    CodecError,
    DecodeContext,
    Learned,
    SessionReset,
    decode,
    decode_open,
)
from bgpd.adapters.exabgp.notification import decode as decode_notification
from bgpd.model.event import EndOfRib, RoutesLearned, UpdateMalformed
from bgpd.model.prefix import Prefix
from tests.fuzz.updates import CONTEXTS, PEER, Meaning, again, broken, encode, meaning, reframed

pytestmark = [pytest.mark.core, pytest.mark.timeout(3600)]

UPDATES = int(os.environ.get("FUZZ_UPDATES", "2000"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))
CPU_S = float(os.environ.get("FUZZ_CPU_S", "0"))


def seeds() -> Iterator[random.Random]:
    """A generator for each message."""
    began = time.process_time()
    number = 0
    while time.process_time() - began < CPU_S if CPU_S else number < UPDATES:
        yield random.Random(SEED + number)
        number += 1
    print(f"\n{number} messages from seed {SEED} on, {time.process_time() - began:.0f} s of processor time")


def routes(events: list[Learned]) -> tuple[dict[tuple[int, Prefix], object], set[tuple[int, Prefix]]]:
    """What events amount to: attributes by path id and prefix, and what is withdrawn."""
    announced: dict[tuple[int, Prefix], object] = {}
    withdrawn: set[tuple[int, Prefix]] = set()
    for event in events:
        if isinstance(event, RoutesLearned):
            withdrawn |= {(event.path_id, prefix) for prefix in event.withdrawn}
            announced |= {(event.path_id, prefix): event.attributes for prefix in event.announced}
    return announced, withdrawn


def check(body: bytes, context: DecodeContext) -> None:
    """Decode *body*; what is accepted must mean the same when written and read again."""
    try:
        events = decode(body, PEER, context)
    except SessionReset as reset:
        told = reset.code == 3 and 1 <= reset.subcode <= 11 and bool(reset.attribute)
        assert told, body.hex()
        return
    for event in events:
        assert isinstance(event, RoutesLearned | EndOfRib | UpdateMalformed)
        if isinstance(event, RoutesLearned):
            assert len({prefix.family for prefix in event.announced}) < 2
            assert bool(event.announced) == (event.attributes is not None)
            assert not set(event.announced) & set(event.withdrawn)
            if event.announced and not _lossy(event, context):
                announced, _ = routes(decode(again(event, context), PEER, context))
                assert routes([event])[0] == announced, body.hex()


def _lossy(event: RoutesLearned, context: DecodeContext) -> bool:
    """Whether 2-byte AS numbers cannot carry the path again: confederation segments are not in AS4_PATH (RFC 6793 section 3)."""
    path = event.attributes.as_path if event.attributes is not None else ()
    return not context.asn4 and any("confed" in segment.kind for segment in path)


@pytest.mark.parametrize("context", CONTEXTS)
def test_what_a_peer_means_is_what_is_read(context: DecodeContext) -> None:
    """A sound UPDATE is read as it was meant, without a defect."""
    for number in range(UPDATES // 10):
        meant = meaning(random.Random(SEED + number), context)
        body = encode(meant, context)
        events = decode(body, PEER, context)

        if not meant.announced and not meant.withdrawn:
            assert all(isinstance(event, EndOfRib) for event in events)
            continue
        assert [] == [event for event in events if isinstance(event, UpdateMalformed)], body.hex()
        announced, withdrawn = routes(events)
        assert {(meant.path_id, prefix): meant.attributes for prefix in meant.announced} == announced
        assert {(meant.path_id, prefix) for prefix in meant.withdrawn} == withdrawn


def test_broken_updates_raise_nothing_else() -> None:
    """UPDATEs broken at random are read or end the session: no other error, and what is read can be written again."""
    for rng in seeds():
        context = rng.choice(CONTEXTS)
        body = encode(meaning(rng, context), context)
        check((reframed if rng.random() < 0.5 else broken)(rng, body), context)


def test_truncated_updates_raise_nothing_else() -> None:
    """An UPDATE cut at each of its bytes is read or ends the session."""
    for number in range(UPDATES // 100):
        rng = random.Random(SEED + number)
        context = rng.choice(CONTEXTS)
        body = encode(meaning(rng, context), context)
        for end in range(len(body)):
            check(body[:end], context)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(CONTEXTS))
def test_arbitrary_bytes_raise_nothing_else(body: bytes, context: DecodeContext) -> None:
    """Bytes without any sense are read or end the session."""
    check(body, context)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 255), max_size=40), st.binary(max_size=60), st.sampled_from(CONTEXTS))
def test_arbitrary_prefixes_are_read_alike(lengths: list[int], tail: bytes, context: DecodeContext) -> None:
    """The NLRI field is read the same at once and prefix by prefix: as withdrawn routes of as many UPDATEs."""
    nlri = b"".join(bytes((length,)) + bytes(range((length + 7) // 8 % 20)) for length in lengths) + tail
    plain = DecodeContext(asn4=context.asn4, external=context.external)
    body = len(nlri).to_bytes(2, "big") + nlri + b"\0\0"
    try:
        found = routes(decode(body, PEER, plain))[1]
    except SessionReset:
        return
    single: set[tuple[int, Prefix]] = set()
    at = 0
    while at < len(nlri):
        end = at + 1 + (nlri[at] + 7) // 8
        one = nlri[at:end]
        single |= routes(decode(len(one).to_bytes(2, "big") + one + b"\0\0", PEER, plain))[1]
        at = end
    assert single == found


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80), st.booleans())
def test_open_and_notification_raise_nothing_else(body: bytes, sent: bool) -> None:
    """An OPEN of any bytes is read or refused with CodecError; a NOTIFICATION is always read."""
    with contextlib.suppress(CodecError):
        decode_open(body)
    assert sent == decode_notification(body, sent).sent


def test_nothing_is_meant_by_an_empty_update() -> None:
    """The generator's empty meaning is End-of-RIB, as on the wire."""
    body = encode(Meaning((), (), None, 0), CONTEXTS[0])
    assert b"\0\0\0\0" == body
