"""BFD control packets on the wire (RFC 5880 section 4), with keyed SHA1 authentication (sections 4.4, 6.7.4).

Anything malformed or not authentic is dropped without a word by who receives it; :class:`Dropped` says why, for a counter.
"""

from __future__ import annotations

import hashlib
import hmac
import struct

import msgspec

from bgpd.core.health.bfd import Control, State

VERSION = 1
MANDATORY_BYTES = 24
AUTH_SHA1 = 4
AUTH_SHA1_METICULOUS = 5
AUTH_BYTES = 28
DIGEST_BYTES = 20

_MANDATORY = struct.Struct(">BBBBIIIII")
_AUTH = struct.Struct(">BBBBI")


class Dropped(Exception):  # noqa: N818 - what becomes of the packet
    """The packet is not to be looked at further, and why."""


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A key of keyed SHA1: both ends have the same."""

    key_id: int
    """0 to 255."""
    secret: bytes
    """At most 20 bytes (RFC 5880 section 4.4)."""
    meticulous: bool = False
    """The sequence number grows with every packet, so that none can be played again."""

    @property
    def kind(self) -> int:
        return AUTH_SHA1_METICULOUS if self.meticulous else AUTH_SHA1


def encode(control: Control, key: Key | None = None, sequence: int = 0) -> bytes:
    """Write a control packet, authenticated where *key* is given."""
    length = MANDATORY_BYTES + (AUTH_BYTES if key is not None else 0)
    flags = (
        control.state << 6
        | control.poll << 5
        | control.final << 4
        | control.independent << 3
        | (key is not None) << 2
        | control.demand << 1
    )
    data = _MANDATORY.pack(
        VERSION << 5 | control.diagnostic,
        flags,
        control.multiplier,
        length,
        control.my_discriminator,
        control.your_discriminator,
        control.desired_min_tx_us,
        control.required_min_rx_us,
        control.required_min_echo_rx_us,
    )
    if key is None:
        return data
    data += _AUTH.pack(key.kind, AUTH_BYTES, key.key_id, 0, sequence & 0xFFFFFFFF)
    return data + _digest(data, key)


def decode(data: bytes) -> Control:
    """Read a control packet and apply the checks of section 6.8.6 that need no session. Raises Dropped."""
    if len(data) < MANDATORY_BYTES:
        raise Dropped(f"{len(data)} bytes")
    first, flags, multiplier, length, mine, yours, tx, rx, echo = _MANDATORY.unpack_from(data)
    if first >> 5 != VERSION:
        raise Dropped(f"version {first >> 5}")
    authenticated = bool(flags & 0x04)
    if length > len(data) or length < MANDATORY_BYTES + (2 if authenticated else 0):
        raise Dropped(f"length {length} in {len(data)} bytes")
    if multiplier == 0 or mine == 0 or flags & 0x01:
        raise Dropped("multiplier 0, discriminator 0, or the multipoint bit")
    state = State(flags >> 6)
    if yours == 0 and state not in (State.DOWN, State.ADMIN_DOWN):
        raise Dropped("no discriminator of ours")
    return Control(
        state=state,
        diagnostic=first & 0x1F,
        poll=bool(flags & 0x20),
        final=bool(flags & 0x10),
        independent=bool(flags & 0x08),
        demand=bool(flags & 0x02),
        multiplier=multiplier,
        my_discriminator=mine,
        your_discriminator=yours,
        desired_min_tx_us=tx,
        required_min_rx_us=rx,
        required_min_echo_rx_us=echo,
    )


class Authenticator:
    """Owns the sequence numbers of one session (bfd.RcvAuthSeq, bfd.XmitAuthSeq; section 6.7.4)."""

    def __init__(self, key: Key | None, first: int) -> None:
        """*first* is the sequence number to begin with, a random one."""
        self.key = key
        self._sent = first
        self._received: int | None = None

    def seal(self, control: Control) -> bytes:
        """Return the packet to send."""
        if self.key is not None and self.key.meticulous:
            self._sent = self._sent + 1 & 0xFFFFFFFF
        return encode(control, self.key, self._sent)

    def renew(self) -> None:
        """Take the next sequence number: after a change of what the packets say (plain keyed SHA1)."""
        self._sent = self._sent + 1 & 0xFFFFFFFF

    def check(self, data: bytes, multiplier: int) -> None:
        """Raise Dropped unless the packet has exactly the authentication that is configured."""
        authenticated = bool(data[1] & 0x04)
        if self.key is None:
            if authenticated:
                raise Dropped("it is authenticated, and no key is configured")
            return
        if not authenticated:
            raise Dropped("it is not authenticated")
        packet = data[: data[3]]
        if len(packet) != MANDATORY_BYTES + AUTH_BYTES:
            raise Dropped("an authentication section of another length")
        kind, length, key_id, _, sequence = _AUTH.unpack_from(packet, MANDATORY_BYTES)
        if (kind, length, key_id) != (self.key.kind, AUTH_BYTES, self.key.key_id):
            raise Dropped(f"authentication type {kind}, key {key_id}")
        ahead = 0 if self._received is None else sequence - self._received & 0xFFFFFFFF
        least = 1 if self.key.meticulous and self._received is not None else 0
        if not least <= ahead <= 3 * multiplier:
            raise Dropped("a sequence number that was seen or is too far ahead")
        body = packet[:-DIGEST_BYTES]
        if not hmac.compare_digest(_digest(body, self.key), packet[-DIGEST_BYTES:]):
            raise Dropped("the digest differs: another key")
        self._received = sequence

    def forget(self) -> None:
        """Accept any sequence number again: nothing was received for twice the detection time (bfd.AuthSeqKnown)."""
        self._received = None


def _digest(body: bytes, key: Key) -> bytes:
    return hashlib.sha1(body + key.secret.ljust(DIGEST_BYTES, b"\0"), usedforsecurity=False).digest()
