"""A BFD session in asynchronous mode (RFC 5880), as a table and its timers; no sockets and no clock.

Laws: a session goes down for three causes only: nothing was received for the detection time, the neighbor said Down or AdminDown, or we
were told to. What is negotiated anew takes effect as RFC 5880 section 6.8.3 says: a slower transmission or a shorter detection time in Up
only once the neighbor has answered a Poll, so that no change of timers takes a session down.

No echo, no demand mode of our own. A neighbor's demand mode is respected: it stops our periodic packets while both are Up (6.8.7).
All intervals are microseconds as on the wire, all moments monotonic seconds.
"""

from __future__ import annotations

from enum import IntEnum

import msgspec

SLOW_US = 1_000_000
"""Least transmit interval while the session is not Up (RFC 5880 section 6.8.3)."""
US = 1_000_000


class State(IntEnum):
    """RFC 5880 section 4.1, Sta."""

    ADMIN_DOWN = 0
    DOWN = 1
    INIT = 2
    UP = 3


class Diagnostic(IntEnum):
    """Why a session is not Up (RFC 5880 section 4.1, Diag)."""

    NONE = 0
    TIME_EXPIRED = 1
    ECHO_FAILED = 2
    NEIGHBOR_DOWN = 3
    FORWARDING_RESET = 4
    PATH_DOWN = 5
    CONCATENATED_DOWN = 6
    ADMIN_DOWN = 7
    REVERSE_CONCATENATED_DOWN = 8


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """The mandatory section of a control packet (RFC 5880 section 4.1)."""

    state: State
    my_discriminator: int
    your_discriminator: int = 0
    diagnostic: int = 0
    """A Diagnostic; numbers that are not assigned are kept."""
    poll: bool = False
    final: bool = False
    independent: bool = False
    """C: the sender's BFD does not share the fate of its control plane."""
    demand: bool = False
    multiplier: int = 3
    desired_min_tx_us: int = SLOW_US
    required_min_rx_us: int = SLOW_US
    required_min_echo_rx_us: int = 0


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What is configured of a session."""

    desired_min_tx_us: int = 300_000
    required_min_rx_us: int = 300_000
    multiplier: int = 3
    """Packets that the neighbor may miss."""
    admin_down: bool = False


_NEXT: dict[tuple[State, State], State] = {
    (State.DOWN, State.DOWN): State.INIT,
    (State.DOWN, State.INIT): State.UP,
    (State.INIT, State.INIT): State.UP,
    (State.INIT, State.UP): State.UP,
    (State.INIT, State.ADMIN_DOWN): State.DOWN,
    (State.UP, State.DOWN): State.DOWN,
    (State.UP, State.ADMIN_DOWN): State.DOWN,
}
"""RFC 5880 section 6.8.6: own state and received state -> next state; what is not here changes nothing."""


class Session:
    """Owns the state variables of RFC 5880 section 6.8.1 of one session."""

    def __init__(self, settings: Settings, discriminator: int) -> None:
        """*discriminator* is unique on this system and not 0."""
        self.discriminator = discriminator
        self.settings = settings
        self.state = State.ADMIN_DOWN if settings.admin_down else State.DOWN
        self.diagnostic = Diagnostic.ADMIN_DOWN if settings.admin_down else Diagnostic.NONE
        self.remote: Control | None = None
        """The last packet; None if none came within the detection time."""
        self.polling = False
        self._heard_at = 0.0
        self._tx_us = self._desired_tx_us()
        """Desired Min TX that paces us now; behind the announced one while a Poll for a slower one is unanswered."""
        self._rx_us = settings.required_min_rx_us
        """Required Min RX that detection counts with now; behind the announced one while a Poll for a shorter one is unanswered."""

    # -------------------------------------------------------------- configuration

    def configure(self, settings: Settings) -> None:
        """Take new settings; none but admin_down takes the session down."""
        old, self.settings = self.settings, settings
        if settings.admin_down and not old.admin_down:
            self._become(State.ADMIN_DOWN, Diagnostic.ADMIN_DOWN)
        elif old.admin_down and not settings.admin_down:
            self._become(State.DOWN, Diagnostic.NONE)
        elif (settings.desired_min_tx_us, settings.required_min_rx_us) != (
            old.desired_min_tx_us,
            old.required_min_rx_us,
        ):
            self._renegotiate()

    # -------------------------------------------------------------- packets

    def receive(self, control: Control, now: float) -> bool:
        """Take a packet that is authentic and for this session; returns whether a Final is to be sent at once (6.8.6)."""
        self.remote = control
        self._heard_at = now
        if control.final and self.polling:
            self.polling = False
            self._tx_us, self._rx_us = self._desired_tx_us(), self.settings.required_min_rx_us
        if self.state is State.ADMIN_DOWN:
            return False
        after = _NEXT.get((self.state, control.state))
        if after is State.DOWN:
            self._become(State.DOWN, Diagnostic.NEIGHBOR_DOWN)
        elif after is not None:
            self._become(after, Diagnostic.NONE if after is State.UP else self.diagnostic)
        return control.poll

    def control(self, final: bool = False) -> Control:
        """Return the packet to send now."""
        return Control(
            state=self.state,
            diagnostic=self.diagnostic,
            poll=self.polling and not final,
            final=final,
            independent=True,
            multiplier=self.settings.multiplier,
            my_discriminator=self.discriminator,
            your_discriminator=self.remote.my_discriminator if self.remote is not None else 0,
            desired_min_tx_us=self._desired_tx_us(),
            required_min_rx_us=self.settings.required_min_rx_us,
        )

    # -------------------------------------------------------------- timers

    @property
    def transmit_interval_s(self) -> float:
        """Time between periodic packets before jitter; 0: none are sent (6.8.7)."""
        if self.remote is None:
            return self._tx_us / US
        if self.remote.required_min_rx_us == 0:
            return 0.0
        if self.remote.demand and self.state is State.UP and self.remote.state is State.UP and not self.polling:
            return 0.0
        return max(self._tx_us, self.remote.required_min_rx_us) / US

    @property
    def detection_time_s(self) -> float:
        """Silence of this length ends the session (6.8.4); 0 before anything was received."""
        if self.remote is None:
            return 0.0
        return self.remote.multiplier * max(self._rx_us, self.remote.desired_min_tx_us) / US

    @property
    def deadline(self) -> float | None:
        """When the detection time is over; None if nothing was received to wait for."""
        return None if self.remote is None else self._heard_at + self.detection_time_s

    def expire(self, now: float) -> None:
        """Look whether the detection time is over."""
        deadline = self.deadline
        if deadline is None or now < deadline:
            return
        self.remote = None
        if self.state in (State.INIT, State.UP):
            self._become(State.DOWN, Diagnostic.TIME_EXPIRED)

    # -------------------------------------------------------------- inner

    def _desired_tx_us(self) -> int:
        configured = self.settings.desired_min_tx_us
        return configured if self.state is State.UP else max(SLOW_US, configured)

    def _become(self, state: State, diagnostic: Diagnostic) -> None:
        self.state, self.diagnostic = state, diagnostic
        if state is State.UP:
            self._renegotiate()
        else:
            # Nobody's detection time can expire wrongly: ours is not Up.
            self.polling = False
            self._tx_us, self._rx_us = self._desired_tx_us(), self.settings.required_min_rx_us

    def _renegotiate(self) -> None:
        """Announce changed intervals by a Poll; what could break the neighbor's or our detection waits for its Final (6.8.3)."""
        self.polling = self.state is State.UP
        wanted_tx, wanted_rx = self._desired_tx_us(), self.settings.required_min_rx_us
        if self.polling:
            self._tx_us, self._rx_us = min(self._tx_us, wanted_tx), max(self._rx_us, wanted_rx)
        else:
            self._tx_us, self._rx_us = wanted_tx, wanted_rx
