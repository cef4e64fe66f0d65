"""Text forms of our values in JSON, TOML and recordings: an address is ``"192.0.2.1"``, a prefix ``"192.0.2.0/24"``."""

from __future__ import annotations

from typing import Any

import msgspec

from bgpd.model.prefix import Address, Prefix


def to_builtin(value: Any) -> Any:
    """Turn an address or prefix into its text (msgspec ``enc_hook``)."""
    if isinstance(value, Address | Prefix):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no text form")


def from_builtin(kind: type, value: Any) -> Any:
    """Read an address or prefix from its text (msgspec ``dec_hook``); raises ValueError naming the defect."""
    if kind is Address or kind is Prefix:
        if not isinstance(value, str):
            raise ValueError(f"expected text, not {value!r}")
        return kind.parse(value)
    raise TypeError(f"{kind.__name__} has no text form")


def encode(value: Any) -> bytes:
    """Encode any of our values as one line of JSON."""
    return msgspec.json.encode(value, enc_hook=to_builtin)
