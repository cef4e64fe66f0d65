"""A namespace with two uplinks, and a real kernel in it kept by the real reconciler, as in the daemon."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import subprocess
import time
from collections.abc import AsyncIterator, Callable

from bgpd.adapters import clock
from bgpd.adapters.netlink.options import DEFAULTS, KernelOptions
from bgpd.adapters.netlink.routes import Kernel
from bgpd.adapters.reconciler import Reconciler
from bgpd.daemon import compare
from bgpd.flow.table import Table
from bgpd.model.event import Event
from bgpd.model.forwarding import (
    Group,
    GroupKey,
    KernelKey,
    KernelRoute,
    KernelValue,
    Leg,
    Present,
    RouteKey,
    RouteKind,
)
from bgpd.model.notice import Notice
from bgpd.model.prefix import Address, Prefix
from bgpd.sim.namespace import Namespace
from tests.vm.patience import PATIENCE

DEADLINE_S = 30.0 * PATIENCE
A, P = Address.parse, Prefix.parse
LEGS = tuple(Leg(f"up{number}", A(f"10.{number + 1}.0.2")) for number in range(2))
NODE = GroupKey("node")
VIA_NODE = KernelRoute(RouteKind.UNICAST, NODE)


def make_space(name: str) -> Namespace:
    """Make a namespace with up0 (10.1.0.1/24, fd01::1/64) and up1 (10.2.0.1/24, fd02::1/64); the other ends are far0 and far1."""
    made = Namespace(name)
    made.execute("sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0")
    made.batch(*(line for number in range(2) for line in uplink(number)))
    deadline = time.monotonic() + DEADLINE_S
    while (
        made.ip("-6", "address", "show", "scope", "link").count("fe80") < 4
    ):  # the kernel's own doing ends before ours begins
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return made


def uplink(number: int) -> tuple[str, ...]:
    """Return the ``ip`` commands that make an uplink and its other end."""
    return (
        f"link add up{number} type veth peer name far{number}",
        f"link set far{number} up",
        f"link set up{number} up",
        f"address add 10.{number + 1}.0.1/24 dev up{number}",
        f"address add fd0{number + 1}::1/64 dev up{number} nodad",
    )


def blocks(count: int, first: str = "10.128.0.0") -> list[RouteKey]:
    """Return so many /26 next to each other."""
    return [RouteKey(Prefix.of(Address(A(first) + 64 * number), 26)) for number in range(count)]


def through(legs: tuple[Leg, ...], keys: list[RouteKey]) -> dict[KernelKey, KernelValue]:
    """Want *keys* through the group NODE with *legs*."""
    return {**{leg: Present() for leg in legs}, NODE: Group(legs), **dict.fromkeys(keys, VIA_NODE)}


class Kept:
    """A kernel with its reconciler, and what both told."""

    def __init__(self, options: KernelOptions) -> None:
        self.table: Table[KernelKey, KernelValue] = Table("kernel")
        self.events: list[Event] = []
        self.notices: list[Notice] = []
        self.drift: list[KernelKey] = []
        """Keys that others changed, in order."""
        self.kernel = Kernel(self._deliver, self._meddled, options)
        self.reconciler: Reconciler[KernelKey, KernelValue] = Reconciler(
            self.table,
            self.kernel,
            clock=clock.monotonic,
            prepare=self._adopt,
            converged=self._converged,
            notice=self.notices.append,
        )

    def want(self, wanted: dict[KernelKey, KernelValue]) -> None:
        """Desire *wanted*, and nothing else."""
        for key, _ in list(self.table.items()):
            if key not in wanted:
                self.table.discard(key)
        for key, value in wanted.items():
            self.table.set(key, value)

    def right(self) -> bool:
        """Whether all that is desired is what we believe to be there."""
        return self.table.snapshot() == self.kernel.actual

    async def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            if time.monotonic() >= deadline:
                wrong = set(self.table.snapshot().items()) ^ set(self.kernel.actual.items())
                raise AssertionError((wrong, {k: self.reconciler.failure(k) for k, _ in wrong}, self.notices[-5:]))
            await asyncio.sleep(0.01)

    async def _deliver(self, event: Event) -> None:
        self.events.append(event)

    def _meddled(self, keys: dict[KernelKey, str]) -> None:
        self.drift.extend(keys)
        self.reconciler.meddled(keys)

    def _adopt(self, keys: object) -> None:
        desired = [(key, self.table.get(key)) for key in keys if isinstance(key, RouteKey)]  # type: ignore[attr-defined]
        self.kernel.adopt((key, route) for key, route in desired if isinstance(route, KernelRoute))

    async def _converged(self) -> None:
        pass


@contextlib.asynccontextmanager
async def keeping(
    wanted: dict[KernelKey, KernelValue], *, options: KernelOptions = DEFAULTS, compare_s: float = 3600.0
) -> AsyncIterator[Kept]:
    """Keep *wanted* in the kernel of the present namespace; begins once it is there."""
    kept = Kept(options)
    kept.want(wanted)
    await kept.kernel.open()
    tasks = [
        asyncio.create_task(kept.kernel.run()),
        asyncio.create_task(kept.reconciler.run()),
        asyncio.create_task(
            compare.run(kept.kernel, kept.reconciler, compare_s, kept.notices.append, lambda _differing, _took_s: None)
        ),
    ]
    try:
        await kept.until(kept.right)
        kept.drift.clear()
        yield kept
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await kept.kernel.close()


@contextlib.asynccontextmanager
async def monitoring(space: Namespace, *objects: str) -> AsyncIterator[subprocess.Popen[str]]:
    """Run ``ip monitor``; begins once it listens."""
    watcher = space.start("ip", "monitor", *objects)
    try:
        deadline = time.monotonic() + DEADLINE_S
        while not listens(space, watcher.pid):
            assert time.monotonic() < deadline, "ip monitor does not listen"
            await asyncio.sleep(0.01)
        yield watcher
    finally:
        watcher.kill()
        watcher.communicate()


def listens(space: Namespace, pid: int) -> bool:
    """Whether a process has joined multicast groups of netlink."""
    lines = space.execute("cat", "/proc/net/netlink").splitlines()[1:]
    return any(line.split()[2] == str(pid) and int(line.split()[3], 16) for line in lines)


def heard(watcher: subprocess.Popen[str], within_s: float = 0.5) -> str:
    """Return the first line that a monitor says within so long; empty if none.

    Byte by byte: a buffer of Python's would keep a second line that came with the first, and ``select`` knows nothing of it.
    """
    assert watcher.stdout is not None
    descriptor, line = watcher.stdout.fileno(), b""
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([descriptor], [], [], within_s)
        byte = os.read(descriptor, 1) if ready else b""
        if not byte:
            break
        line += byte
    return line.decode()
