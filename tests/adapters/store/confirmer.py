"""A process that takes back what nobody confirmed, as a daemon does: ``python -m tests.adapters.store.confirmer URL NAME``."""

from __future__ import annotations

import asyncio
import sys

from bgpd.adapters.store.open import open_store
from bgpd.daemon.confirm import Confirmation


async def main(url: str, name: str) -> None:
    """Run until killed."""
    store = open_store(url)
    print("ready", flush=True)
    await Confirmation(store, name, lambda notice: print(notice.name, flush=True)).run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
