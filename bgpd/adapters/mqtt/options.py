"""Where the broker is. Apart from the client, so that reading a configuration does not load one."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from bgpd.adapters.secrets import Password


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Where the broker is, and who we are to it."""

    host: str
    port: int
    cluster: str
    node: str
    prefix: str = "bgpd"
    version: Literal["5", "3.1.1"] = "5"
    user: str = ""
    password: Password | None = None
    tls: bool = False
    ca: Path | None = None
    """PEM; None: the system's."""
    certificate: Path | None = None
    key: Path | None = None
    keepalive_s: int = 20
    """The broker tells the last will after one and a half times this."""

    def topic(self, *parts: str) -> str:
        return "/".join((self.prefix, self.cluster, self.node, *parts))
