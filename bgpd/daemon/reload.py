"""Loading the configuration again while the daemon runs: by SIGHUP, or by an order over the API.

Laws: a file that cannot be used changes nothing, and is told whole; what can be taken over at once is, and what waits for the next
start (config/values.py) keeps its value and is told by name at every reload until then. One reload at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

from bgpd.adapters import clock
from bgpd.adapters.systemd import Systemd
from bgpd.api.protocol import Refused
from bgpd.config.error import ConfigError
from bgpd.config.load import hidden
from bgpd.config.schema import Config
from bgpd.config.values import Change, When, changes, merged
from bgpd.model.notice import Notice
from bgpd.model.view import ChangeView, ReloadView

NAMES_TOLD = 20
"""Changed values named in a log entry; the answer of the API has all."""


class Source(NamedTuple):
    """Where the configuration comes from."""

    path: Path
    config: Config
    """As it was loaded at start."""
    load: Callable[[], Config]
    """Reads file and environment again; raises ConfigError."""


class Reloader:
    """Owns the configuration that holds, as its file and environment gave it."""

    def __init__(
        self,
        source: Source,
        take: Callable[[Config], Awaitable[None]],
        systemd: Systemd,
        notice: Callable[[Notice], None],
    ) -> None:
        """*take* takes over what has changed, all or nothing, or raises Refused."""
        self._path, self._config, self._load = source
        self._take = take
        self._systemd = systemd
        self._notice = notice
        self._one = asyncio.Lock()
        self._hung_up = asyncio.Event()

    def hang_up(self) -> None:
        """Have the configuration loaded again (SIGHUP)."""
        self._hung_up.set()

    async def run(self) -> None:
        """Answer SIGHUP until cancelled; several while one reload runs are one."""
        while True:
            await self._hung_up.wait()
            self._hung_up.clear()
            try:
                await self.reload(dry_run=False)
            except Refused:
                continue  # which is told in the log

    async def reload(self, *, dry_run: bool) -> ReloadView:
        """Load and take over, or with *dry_run* say what would be. Raises Refused with all that is wrong; then nothing has changed."""
        async with self._one:
            if dry_run:
                return self._view(changes(self._config, await self._loaded()), done=False)
            self._systemd.reloading(clock.monotonic())
            try:
                return await self._reload()
            except Refused as refused:
                self._notice(Notice("configuration.refused", {"reason": refused.reason}))
                raise
            finally:
                self._systemd.reloaded()

    async def _reload(self) -> ReloadView:
        wanted = await self._loaded()
        found = changes(self._config, wanted)
        config = merged(self._config, wanted)
        await self._take(config)
        self._config = config
        fields: dict[str, str | int | float | bool | None] = {
            "changed": _names(found, When.RELOAD),
            "waiting": _names(found, When.START),
        }
        self._notice(Notice("configuration.reloaded", fields))
        return self._view(found, done=True)

    async def _loaded(self) -> Config:
        try:
            return await asyncio.to_thread(self._load)  # files may be on a disk that is slow
        except ConfigError as error:
            raise Refused(str(error)) from error

    def _view(self, found: list[Change], *, done: bool) -> ReloadView:
        views = {
            when: tuple(
                ChangeView(one.path, hidden(one.path, one.before), hidden(one.path, one.after))
                for one in found
                if one.when is when
            )
            for when in When
        }
        return ReloadView(done=done, path=str(self._path), changed=views[When.RELOAD], waiting=views[When.START])


def _names(found: list[Change], when: When) -> str | None:
    names = [one.path for one in found if one.when is when]
    more = [f"and {len(names) - NAMES_TOLD} more"] if len(names) > NAMES_TOLD else []
    return ", ".join([*names[:NAMES_TOLD], *more]) or None
