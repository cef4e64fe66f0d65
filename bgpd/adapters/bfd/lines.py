"""What the daemon and the BFD process say to each other: one JSON object a line."""

from __future__ import annotations

import msgspec

from bgpd.adapters.bfd.packet import Key
from bgpd.core.health.bfd import Settings, State
from bgpd.model.prefix import Address
from bgpd.model.wire import from_builtin, to_builtin


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A session as the daemon wants it."""

    peer: Address
    local: Address
    multihop: bool = False
    interface: str = ""
    """Only there, where not empty; needed for link-local addresses."""
    settings: Settings = Settings()
    key_id: int | None = None
    """Key of keyed SHA1; None: no authentication."""
    meticulous: bool = False
    secret: bytes = b""
    """Goes this way only; what is read back has none."""

    def key(self) -> Key | None:
        if self.key_id is None:
            return None
        return Key(key_id=self.key_id, secret=self.secret, meticulous=self.meticulous)

    def without_secret(self) -> Wanted:
        return msgspec.structs.replace(self, secret=b"")

    def same_path(self, other: Wanted) -> bool:
        """Whether the session can become *other* without an end: only its settings differ."""
        return msgspec.structs.replace(self, settings=other.settings) == other


class Command(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the daemon asks for."""

    set: Wanted | None = None
    remove: Address | None = None
    stop: bool = False


class Greeting(msgspec.Struct, frozen=True, kw_only=True, tag="greeting"):
    """The first line of a connection; the state of each session follows."""

    pid: int
    wanted: tuple[Wanted, ...] = ()


class Told(msgspec.Struct, frozen=True, kw_only=True, tag="state"):
    """The state of a session."""

    peer: Address
    state: State
    diagnostic: int
    remote_state: State
    remote_diagnostic: int = 0
    independent: bool = False
    """C bit of the neighbor: its BFD does not share the fate of its control plane."""
    detection_time_ms: float = 0.0
    problem: str = ""
    """Why our last packet could not be sent; empty if it was."""


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """A session cannot be made, and why."""

    reason: str
    peer: Address | None = None


Line = Greeting | Told | Refused

_COMMAND = msgspec.json.Decoder(Command, dec_hook=from_builtin)
_LINE: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line, dec_hook=from_builtin)
_ENCODER = msgspec.json.Encoder(enc_hook=to_builtin)


def encode(line: Line | Command) -> bytes:
    """Write a line, its end included."""
    return _ENCODER.encode(line) + b"\n"


def decode_command(line: bytes) -> Command:
    """Read what the daemon said. Raises msgspec.MsgspecError."""
    return _COMMAND.decode(line)


def decode_line(line: bytes) -> Line:
    """Read what the BFD process said. Raises msgspec.MsgspecError."""
    return _LINE.decode(line)
