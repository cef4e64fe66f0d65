"""Processes that use IPAM on an etcd, forked on demand from this one, which has imported everything already.

Each line of standard input is a Job; its process begins once the file *go* exists, and appends each answer that it got to
*log* as a line. With *die_at* it kills itself (SIGKILL) after so many answers.
The log is locked (flock) as long as the process lives, and "started" is answered once it does.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sys
import threading
import time
from pathlib import Path

import msgspec

from bgpd.adapters.store.base import Store
from bgpd.adapters.store.ipam.assign import AddressRequest, Granted, assign
from bgpd.adapters.store.ipam.claim import claim_block
from bgpd.adapters.store.ipam.release import release_handle
from bgpd.adapters.store.open import open_store
from bgpd.core.ipam.block import Refused
from bgpd.core.ipam.release import Released
from bgpd.model.pool import Pool
from bgpd.model.prefix import Prefix

LOOK_S = 0.002


class Job(msgspec.Struct, frozen=True, kw_only=True):
    url: str
    node: str
    pool: str
    block_size: int
    go: str
    log: str
    handles: list[str]
    """Handles that get an address each."""
    count: int = 1
    claim: bool = False
    """Claim a block first."""
    release_every: int = 0
    """Give each so-manieth handle's addresses back again."""
    die_at: float | None = None
    """Answers after which it kills itself; the fraction is of the time that the answer before took, whatever the machine's pace."""


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An answer."""

    handle: str = ""
    addresses: list[str] = []
    block: str = ""
    refused: str = ""
    released: bool = False
    done: bool = False


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    for line in sys.stdin.buffer:
        job = msgspec.json.decode(line, type=Job)
        log = os.open(job.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        fcntl.flock(log, fcntl.LOCK_EX)
        if not os.fork():
            run(job, log)
            os._exit(0)
        os.close(log)
        sys.stdout.write("started\n")
        sys.stdout.flush()


class Teller:
    """Writes the answers, and ends the process where its job says so."""

    def __init__(self, job: Job, log: int) -> None:
        self._log = log
        self._die_at = job.die_at
        self._count = 0
        self._since = time.monotonic()

    def connected(self) -> None:
        """Count from here."""
        self._perhaps_die()

    def __call__(self, line: Line) -> None:
        os.write(self._log, msgspec.json.encode(line) + b"\n")
        self._count += 1
        self._perhaps_die()

    def _perhaps_die(self) -> None:
        took = time.monotonic() - self._since
        self._since += took
        if self._die_at is not None and 0 <= self._die_at - self._count < 1:
            delay_s = (self._die_at - self._count) * took
            threading.Timer(delay_s, os.kill, (os.getpid(), signal.SIGKILL)).start()


def run(job: Job, log: int) -> None:
    while not Path(job.go).exists():
        time.sleep(LOOK_S)
    tell = Teller(job, log)
    asyncio.run(work(job, tell))
    tell(Line(done=True))


async def work(job: Job, tell: Teller) -> None:
    store = open_store(job.url)
    try:
        await store.get("/")
        tell.connected()
        if job.claim:
            pool = Pool(name="p", cidr=Prefix.parse(job.pool), block_size=job.block_size)
            block = await claim_block(store, pool, job.node)
            tell(Line(refused=block.reason) if isinstance(block, Refused) else Line(block=str(block)))
        for number, handle in enumerate(job.handles):
            tell(await _assigned(store, job, handle))
            if job.release_every and number % job.release_every == 0:
                answer = await release_handle(store, handle)
                assert isinstance(answer, Released)
                tell(Line(handle=handle, released=True))
    finally:
        await store.close()


async def _assigned(store: Store, job: Job, handle: str) -> Line:
    answer = await assign(store, AddressRequest(node=job.node, handle_id=handle, ipv4=job.count))
    if isinstance(answer, Granted):
        return Line(handle=handle, addresses=[str(address) for address in answer.addresses])
    return Line(handle=handle, refused=answer.reason)


if __name__ == "__main__":
    main()
