"""The BFD session machine: RFC 5880 sections 6.2, 6.5, 6.8, sentence by sentence, and two machines talking to each other."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgpd.core.health.bfd import SLOW_US, US, Control, Diagnostic, Session, Settings, State

pytestmark = pytest.mark.core

FAST = Settings(desired_min_tx_us=50_000, required_min_rx_us=60_000, multiplier=3)


def heard(state: State, **fields: object) -> Control:
    base = Control(
        state=state, my_discriminator=7, your_discriminator=1, desired_min_tx_us=50_000, required_min_rx_us=50_000
    )
    return msgspec.structs.replace(base, **fields)


def session(state: State) -> Session:
    """A session that was brought to *state* at moment 0."""
    one = Session(FAST, 1)
    if state in (State.INIT, State.UP):
        one.receive(heard(State.DOWN), 0.0)
    if state is State.UP:
        one.receive(heard(State.INIT), 0.0)
        one.receive(heard(State.UP, final=True), 0.0)
    assert one.state is state
    return one


@pytest.mark.parametrize(
    ("before", "received", "after"),
    [
        (State.DOWN, State.ADMIN_DOWN, State.DOWN),
        (State.DOWN, State.DOWN, State.INIT),
        (State.DOWN, State.INIT, State.UP),
        (State.DOWN, State.UP, State.DOWN),
        (State.INIT, State.ADMIN_DOWN, State.DOWN),
        (State.INIT, State.DOWN, State.INIT),
        (State.INIT, State.INIT, State.UP),
        (State.INIT, State.UP, State.UP),
        (State.UP, State.ADMIN_DOWN, State.DOWN),
        (State.UP, State.DOWN, State.DOWN),
        (State.UP, State.INIT, State.UP),
        (State.UP, State.UP, State.UP),
    ],
)
def test_each_state_answers_each_received_state_as_the_table_of_section_6_8_6_says(
    before: State, received: State, after: State
) -> None:
    """Own state and received state decide the next state, and nothing else does."""
    one = session(before)
    one.receive(heard(received), 0.1)
    assert after is one.state


def test_a_neighbor_that_goes_down_is_named_as_the_cause() -> None:
    """Down and AdminDown from the neighbor in Up set diagnostic 3."""
    for received in (State.DOWN, State.ADMIN_DOWN):
        one = session(State.UP)
        one.receive(heard(received), 0.1)
        assert Diagnostic.NEIGHBOR_DOWN is one.diagnostic


def test_silence_for_the_detection_time_ends_a_session() -> None:
    """A session goes down when nothing came for the remote multiplier times the agreed interval, not before."""
    one = session(State.UP)
    one.receive(heard(State.UP, multiplier=5, desired_min_tx_us=80_000), 1.0)
    assert pytest.approx(0.4) == one.detection_time_s
    one.expire(1.399)
    assert State.UP is one.state
    one.expire(1.401)
    assert (State.DOWN, Diagnostic.TIME_EXPIRED) == (one.state, one.diagnostic)
    assert 0 == one.control().your_discriminator


def test_the_detection_time_heeds_our_own_limit() -> None:
    """A neighbor that wants to send faster than we receive is not expected to."""
    one = session(State.UP)
    one.receive(heard(State.UP, desired_min_tx_us=10_000), 1.0)
    assert pytest.approx(0.18) == one.detection_time_s


def test_packets_go_out_slowly_until_the_session_is_up() -> None:
    """Desired Min TX is at least a second in every state but Up (section 6.8.3)."""
    for state in (State.DOWN, State.INIT):
        one = session(state)
        assert SLOW_US == one.control().desired_min_tx_us
        assert pytest.approx(1.0) == one.transmit_interval_s
    assert pytest.approx(0.05) == session(State.UP).transmit_interval_s


def test_a_neighbor_that_receives_slowly_is_sent_to_slowly() -> None:
    """Packets are at least the neighbor's Required Min RX apart, and none are sent where that is 0 (section 6.8.7)."""
    one = session(State.UP)
    one.receive(heard(State.UP, required_min_rx_us=2 * US), 0.1)
    assert pytest.approx(2.0) == one.transmit_interval_s
    one.receive(heard(State.UP, required_min_rx_us=0), 0.2)
    assert 0.0 == one.transmit_interval_s


def test_demand_of_the_neighbor_stops_periodic_packets_but_no_poll() -> None:
    """In Up at both ends a neighbor's demand mode is respected; a Poll sequence still goes on."""
    one = session(State.UP)
    one.receive(heard(State.UP, demand=True), 0.1)
    assert 0.0 == one.transmit_interval_s
    one.configure(msgspec.structs.replace(FAST, desired_min_tx_us=100_000))
    assert pytest.approx(0.05) == one.transmit_interval_s


def test_a_poll_is_answered_at_once() -> None:
    """A packet with P asks for a packet with F, which itself carries no P."""
    one = session(State.UP)
    assert one.receive(heard(State.UP, poll=True), 0.1)
    assert (True, False) == (one.control(final=True).final, one.control(final=True).poll)
    assert not one.receive(heard(State.UP), 0.2)


def test_reaching_up_polls_for_the_fast_interval() -> None:
    """The change from slow to fast transmission is told by a Poll sequence, which the Final ends."""
    one = session(State.INIT)
    one.receive(heard(State.UP), 0.1)
    assert (True, 50_000) == (one.control().poll, one.control().desired_min_tx_us)
    one.receive(heard(State.UP, final=True), 0.2)
    assert not one.control().poll


def test_slower_transmission_waits_for_the_final() -> None:
    """In Up a larger Desired Min TX paces us only once the neighbor has answered, since it counts with the old one (6.8.3)."""
    one = session(State.UP)
    one.receive(heard(State.UP), 0.1)
    one.configure(msgspec.structs.replace(FAST, desired_min_tx_us=500_000))
    assert (500_000, True) == (one.control().desired_min_tx_us, one.control().poll)
    assert pytest.approx(0.05) == one.transmit_interval_s
    one.receive(heard(State.UP, final=True), 0.2)
    assert pytest.approx(0.5) == one.transmit_interval_s


def test_a_shorter_detection_time_waits_for_the_final() -> None:
    """In Up a smaller Required Min RX shortens detection only once the neighbor has answered (6.8.3)."""
    slow = Settings(desired_min_tx_us=50_000, required_min_rx_us=500_000, multiplier=3)
    one = Session(slow, 1)
    for state in (State.DOWN, State.INIT):
        one.receive(heard(state), 0.0)
    one.receive(heard(State.UP, final=True), 0.0)
    one.configure(msgspec.structs.replace(slow, required_min_rx_us=50_000))
    assert pytest.approx(1.5) == one.detection_time_s
    one.receive(heard(State.UP, final=True), 0.1)
    assert pytest.approx(0.15) == one.detection_time_s


def test_admin_down_ignores_what_comes_and_says_so() -> None:
    """An administratively down session stays so whatever it receives, with diagnostic 7, and comes back through Down."""
    one = session(State.UP)
    one.configure(msgspec.structs.replace(FAST, admin_down=True))
    for state in State:
        one.receive(heard(state, poll=True), 1.0)
        assert (State.ADMIN_DOWN, Diagnostic.ADMIN_DOWN) == (one.state, one.diagnostic)
    one.configure(FAST)
    assert State.DOWN is one.state


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.booleans(), st.floats(0, 0.5)), max_size=40))
def test_a_session_is_up_only_after_the_neighbor_saw_us(steps: list[tuple[int, bool, bool, float]]) -> None:
    """Whatever comes, Up needs Init or Up from the neighbor while we were Down or Init: a three-way handshake."""
    one, now, before = Session(FAST, 1), 0.0, State.DOWN
    for number, poll, final, gap in steps:
        now += gap
        one.expire(now)
        before = one.state
        one.receive(heard(State(number), poll=poll, final=final), now)
        if one.state is State.UP and before is not State.UP:
            assert State(number) in (State.INIT, State.UP)
        deadline = one.deadline
        assert deadline is not None
        assert deadline >= now
        assert one.transmit_interval_s == 0 or one.transmit_interval_s >= 0.05


@given(st.lists(st.booleans(), min_size=60, max_size=60), st.integers(1, 4))
def test_two_machines_come_up_and_agree(lost: list[bool], multiplier: int) -> None:
    """Two sessions over a path that loses packets come up once it stops losing them, and each knows the other's discriminator."""
    settings = msgspec.structs.replace(FAST, multiplier=multiplier)
    one, two = Session(settings, 1), Session(settings, 2)
    for step, gone in enumerate([*lost, *[False] * 12]):
        now = step * 0.05
        for sender, receiver in ((one, two), (two, one)):
            receiver.expire(now)
            if not gone and receiver.receive(sender.control(), now):
                sender.receive(receiver.control(final=True), now)
    assert (State.UP, State.UP) == (one.state, two.state)
    assert (2, 1) == (one.control().your_discriminator, two.control().your_discriminator)
    assert not one.polling
