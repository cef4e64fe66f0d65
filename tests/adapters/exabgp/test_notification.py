"""NOTIFICATION messages in bytes and in words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgpd.adapters.exabgp.notification import command, decode, describe, explain, shutdown_text
from bgpd.model.peer import Notification, Peer, SessionOpen
from bgpd.model.prefix import Address

pytestmark = pytest.mark.core

THEIRS = Address.parse("10.0.0.2")
PEER = Peer(name="a", address=THEIRS, asn=65001, local_address=Address.parse("10.0.0.1"), local_asn=65000)
OPEN = SessionOpen(asn=65009, router_id=THEIRS, hold_time_s=9)


@given(st.binary(max_size=20), st.booleans())
def test_a_notification_is_always_read(body: bytes, sent: bool) -> None:
    """A NOTIFICATION of any length is a value, and has words."""
    found = decode(body, sent)

    assert sent == found.sent
    assert explain(found, PEER, OPEN)


def test_a_shutdown_carries_its_text() -> None:
    """The text of an administrative shutdown is read (RFC 9003)."""
    assert Notification(6, 2, False, "rack") == decode(b"\6\2\4rack", sent=False)
    assert 'Cease: Administrative Shutdown, "rack" (6/2)' == describe(Notification(6, 2, False, "rack"))


def test_a_hard_reset_shows_what_is_inside() -> None:
    """RFC 8538: code, subcode and text are those that the hard reset encapsulates."""
    found = decode(b"\6\x09\6\4\4rack", sent=False)

    assert Notification(6, 4, False, "rack", hard=True) == found
    assert 'Hard Reset, Cease: Administrative Reset, "rack" (6/4)' == describe(found)


def test_what_is_sent_is_read_again() -> None:
    """The command carries the bytes that decode to the same NOTIFICATION."""
    for sent in (
        Notification(6, 4, True, "für rack 7"),
        Notification(6, 2, True, "x", hard=True),
        Notification(3, 9, True),
    ):
        _, _, _, code, subcode, data = command(THEIRS, sent).split()
        assert sent == decode(bytes((int(code), int(subcode))) + bytes.fromhex(data[2:]), sent=True)


def test_a_text_too_long_is_refused() -> None:
    """RFC 9003 has one byte for the length, counted in UTF-8."""
    assert 256 == len(shutdown_text("x" * 255))
    with pytest.raises(ValueError, match="256 bytes"):
        shutdown_text("ü" * 128)


def test_a_wrong_as_names_both_numbers() -> None:
    """Bad Peer AS says which AS came and which was expected, from either side."""
    assert "its AS is 65009, configured is 65001" in explain(Notification(2, 2, True), PEER, OPEN)
    assert "does not expect our AS 65000" in explain(Notification(2, 2, False), PEER, None)


def test_the_limit_of_the_neighbor_is_named() -> None:
    """Cease, Maximum Number of Prefixes Reached carries family and limit (RFC 4486 section 4)."""
    found = decode(bytes((6, 1, 0, 1, 1, 0, 0, 0, 5)), sent=False)

    assert "its limit is 5 IPv4 prefixes" in explain(found, PEER, OPEN)
