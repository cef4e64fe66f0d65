"""A network namespace of our own, and code that runs inside it: real kernels for tests, benchmarks and the lab.

Law: it is removed by ``close``, which ``with`` calls also on failure. A coroutine enters it in a thread of its own: a namespace
belongs to a thread, and sockets stay where they were opened.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self, TypeVar

_T = TypeVar("_T")

_CLONE_NEWNET: Final = 0x40000000
COMMAND_S: Final = 30.0
"""Longest time that one command may take: they answer in milliseconds, but a host with two cores may be busy."""


class Namespace:
    """Owns one named network namespace (``ip netns``). Needs root."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._run("ip", "netns", "add", name)
        self.ip("link", "set", "lo", "up")

    def ip(self, *arguments: str) -> str:
        """Run ``ip`` inside; raises RuntimeError with its own words if it fails."""
        return self._run("ip", "-n", self.name, *arguments)

    def ip_json(self, *arguments: str) -> list[dict[str, Any]]:
        """Run ``ip -j`` inside, and read its answer."""
        answer: list[dict[str, Any]] = json.loads(self.ip("-j", *arguments) or "[]")
        return [entry for entry in answer if entry]

    def batch(self, *lines: str) -> None:
        """Run many ``ip`` commands in one process, up to the first that fails."""
        self._run("ip", "-n", self.name, "-batch", "-", given="\n".join(lines))

    def attempt(self, *arguments: str) -> bool:
        """Run ``ip`` inside; returns whether it succeeded."""
        try:
            self.ip(*arguments)
        except RuntimeError:
            return False
        return True

    def execute(self, *command: str) -> str:
        """Run any command inside."""
        return self._run("ip", "netns", "exec", self.name, *command)

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a command inside, with its output in a pipe; the caller ends it."""
        return subprocess.Popen(["ip", "netns", "exec", self.name, *command], stdout=subprocess.PIPE, text=True)

    def run(self, main: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Run a coroutine to its end in an event loop inside; its exception is raised here."""
        result: list[_T] = []
        failure: list[BaseException] = []

        def inside() -> None:
            try:
                self._enter()
                result.append(asyncio.run(main()))
            except BaseException as error:  # noqa: BLE001 - carried over to the caller's thread, whatever it is
                failure.append(error)

        thread = threading.Thread(target=inside, name=self.name)
        thread.start()
        thread.join()
        if failure:
            raise failure[0]
        return result[0]

    def kill_all(self) -> None:
        """End every process inside, those that outlive who started them included; one that ends by itself meanwhile is no error."""
        for pid in self._run("ip", "netns", "pids", self.name).split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)

    def close(self) -> None:
        self._run("ip", "netns", "delete", self.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _enter(self) -> None:
        library = ctypes.CDLL(None, use_errno=True)  # os.setns came with Python 3.12
        descriptor = os.open(f"/run/netns/{self.name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if library.setns(descriptor, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        finally:
            os.close(descriptor)

    def _run(self, *command: str, given: str = "") -> str:
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=COMMAND_S, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
        return done.stdout
