"""BFD control packets: what is written is read back, what is malformed or not authentic is dropped."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgpd.adapters.bfd.packet import Authenticator, Dropped, Key, decode, encode
from bgpd.core.health.bfd import Control, State

pytestmark = pytest.mark.core

KEY = Key(key_id=3, secret=b"correct horse")
UP = Control(state=State.UP, my_discriminator=1, your_discriminator=2)

_u32 = st.integers(0, 0xFFFFFFFF)
_controls = st.builds(
    Control,
    state=st.sampled_from(State),
    my_discriminator=st.integers(1, 0xFFFFFFFF),
    your_discriminator=st.integers(1, 0xFFFFFFFF),
    diagnostic=st.integers(0, 31),
    poll=st.booleans(),
    final=st.booleans(),
    independent=st.booleans(),
    demand=st.booleans(),
    multiplier=st.integers(1, 255),
    desired_min_tx_us=_u32,
    required_min_rx_us=_u32,
    required_min_echo_rx_us=_u32,
)


@given(_controls)
def test_what_is_written_is_read_back(control: Control) -> None:
    """Encoding and decoding are inverse, with a key and without."""
    assert control == decode(encode(control))
    assert control == decode(encode(control, KEY, 9))


def test_the_bytes_are_those_of_the_rfc() -> None:
    """Version 1, diagnostic, state and flags, multiplier, length, and five numbers of 32 bits (section 4.1)."""
    control = Control(
        state=State.UP,
        diagnostic=3,
        poll=True,
        independent=True,
        multiplier=5,
        my_discriminator=0x01020304,
        your_discriminator=0x05060708,
        desired_min_tx_us=300_000,
        required_min_rx_us=100_000,
    )
    assert "23e80518" + "01020304" + "05060708" + "000493e0" + "000186a0" + "00000000" == encode(control).hex()


@given(st.binary(max_size=80))
def test_any_bytes_are_read_or_dropped(data: bytes) -> None:
    """Nothing from the network raises anything but Dropped."""
    try:
        decode(data)
        Authenticator(KEY, 0).check(data, 3)
    except Dropped:
        pass


@pytest.mark.parametrize(
    ("place", "value", "why"),
    [
        (0, 0x40, "version"),
        (2, 0, "multiplier"),
        (3, 23, "length"),
        (3, 25, "length"),
        (1, 0xC1, "multipoint"),
    ],
)
def test_a_malformed_packet_is_dropped(place: int, value: int, why: str) -> None:
    """Each check of section 6.8.6 drops what fails it, and says which it was."""
    data = bytearray(encode(UP))
    data[place] = value
    with pytest.raises(Dropped, match=why):
        decode(bytes(data))


def test_a_packet_without_our_discriminator_is_dropped_unless_it_is_down() -> None:
    """Your Discriminator 0 is for Down and AdminDown alone."""
    for state in State:
        data = encode(msgspec.structs.replace(UP, state=state, your_discriminator=0))
        if state in (State.DOWN, State.ADMIN_DOWN):
            assert state is decode(data).state
        else:
            with pytest.raises(Dropped):
                decode(data)


def test_only_the_same_key_is_authentic() -> None:
    """A packet passes with exactly the configured authentication: same type, key id and secret; none where none is configured."""
    sealed = Authenticator(KEY, 100).seal(UP)
    Authenticator(KEY, 0).check(sealed, 3)
    for other in (
        Key(key_id=4, secret=KEY.secret),
        Key(key_id=3, secret=b"another"),
        Key(key_id=3, secret=KEY.secret, meticulous=True),
        None,
    ):
        with pytest.raises(Dropped):
            Authenticator(other, 0).check(sealed, 3)
    with pytest.raises(Dropped):
        Authenticator(KEY, 0).check(encode(UP), 3)


def test_a_changed_byte_is_noticed() -> None:
    """The digest covers the whole packet."""
    sealed = Authenticator(KEY, 100).seal(UP)
    for place in range(4, len(sealed)):
        data = bytearray(sealed)
        data[place] ^= 1
        with pytest.raises(Dropped):
            Authenticator(KEY, 0).check(bytes(data), 3)


def test_a_played_back_packet_is_dropped() -> None:
    """The sequence number may not go back; a meticulous one may not stand still; after a long silence any is accepted."""
    meticulous = msgspec.structs.replace(KEY, meticulous=True)
    sender, receiver = Authenticator(meticulous, 0xFFFFFFFF), Authenticator(meticulous, 0)
    first, second = sender.seal(UP), sender.seal(UP)
    receiver.check(first, 3)
    receiver.check(second, 3)
    for old in (first, second):
        with pytest.raises(Dropped, match="sequence"):
            receiver.check(old, 3)
    receiver.forget()
    receiver.check(first, 3)
