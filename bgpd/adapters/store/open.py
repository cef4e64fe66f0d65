"""Which store a URL names. Backends are listed here, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from bgpd.adapters.store.base import Store
from bgpd.adapters.store.memory import MemoryStore
from bgpd.adapters.store.sqlite import SqliteStore


def open_store(url: str) -> Store:
    """Open ``sqlite:///absolute/path`` or ``memory://`` (this process only, empty); raises ValueError with the reason
    for anything else.

    Nothing is read yet: a store that cannot be reached raises Transient at its first use.
    """
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        if parts.netloc or len(parts.path) < 2 or parts.path.endswith("/"):
            raise ValueError(f"{url!r} names no file: write sqlite:///absolute/path")
        return SqliteStore(Path(parts.path))
    if parts.scheme == "memory" and not parts.netloc and not parts.path:
        return MemoryStore()
    raise ValueError(f"{url!r} is not a store: write sqlite:///absolute/path or memory://")
