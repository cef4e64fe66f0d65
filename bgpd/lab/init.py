"""The first process of a lab node: makes the node's mounts, starts its services, reaps, and takes everything down with its own end.

Runs as a plain file (standard library only: eight of them start at once on two cores) under
``ip netns exec NETNS unshare --mount --pid --uts --fork --kill-child --mount-proc``, reads its orders as JSON from standard input
and writes one line to standard output when the node is ready. Laws: nothing it mounts or writes reaches the host (tmpfs on /run and
/tmp, an overlay with its upper half on that tmpfs for /etc, /var and whatever else a bind needs); it starts no service before
SIGUSR1, which also starts again those that have ended; when it ends, the kernel ends every process of its PID namespace.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
"""linux/mount.h."""

NEED_S = 20.0
"""A service waits this long for the files of those before it; a router that has not made its socket by then will not."""

POLL_S = 0.02
"""How often such a file is looked for."""

ENDED = "-- lab: "
"""How the line begins that is put at the end of a log when its service ends; the line ends with the exit status."""

HIDDEN = ("/run", "/tmp")  # noqa: S108 - these are hidden from the node, not used
UPPER = "/run/.lab"

libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    """Mount by the system call. Raises OSError with the target's name."""
    words = [word.encode() for word in (source, target, kind, data)]
    if libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3]):
        code = ctypes.get_errno()
        raise OSError(code, f"mount {kind or 'bind'} {source}: {os.strerror(code)}", target)


def held(path: str) -> tuple[str, int, bool]:
    """Hold a path open, so that it can be bound after its place has been hidden."""
    return path, os.open(path, os.O_PATH | os.O_CLOEXEC), Path(path).is_dir()


def show(fd: int, is_dir: bool, target: str, read_only: bool) -> None:
    """Bind a held path at *target*, making the mountpoint where it is missing."""
    place = Path(target)
    if is_dir:
        place.mkdir(parents=True, exist_ok=True)
    elif not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    mount(f"/proc/self/fd/{fd}", target, "", MS_BIND | MS_REC)
    if read_only:
        mount("", target, "", MS_BIND | MS_REMOUNT | MS_RDONLY)


def overlay(top: str) -> None:
    """Let the node write to a directory of the host without the host noticing; the owner and mode of the directory stay."""
    name = top.strip("/").replace("/", "-")
    upper, work = Path(UPPER, name), Path(UPPER, f"{name}.work")
    upper.mkdir(parents=True)
    work.mkdir()
    shutil.copystat(top, upper)
    mount("overlay", top, "overlay", 0, f"lowerdir={top},upperdir={upper},workdir={work}")


def furnish(orders: dict[str, Any]) -> None:
    """Make the node's file system: hide the host's changing parts, then show what the node binds."""
    mount("", "/", "", MS_REC | MS_PRIVATE)
    binds = [(held(source), target, read_only) for source, target, read_only in orders["binds"]]
    tops = {"/" + Path(target).parts[1] for _, target, _ in binds}
    overlays = sorted(({"/etc", "/var"} | tops) - set(HIDDEN))
    kept = [held(path) for path in orders["keep"] if path.startswith((*(f"{top}/" for top in (*HIDDEN, *overlays)),))]
    for place in HIDDEN:
        mount("lab", place, "tmpfs", 0, "mode=1777" if place == "/tmp" else "mode=755")  # noqa: S108
    for top in overlays:
        if not Path(top).is_dir():
            raise FileNotFoundError(2, "a bind needs its topmost directory to exist on this host", top)
        overlay(top)
    for path, fd, is_dir in kept:
        show(fd, is_dir, path, read_only=False)
        os.close(fd)
    for (_, fd, is_dir), target, read_only in binds:
        show(fd, is_dir, target, read_only)
        os.close(fd)
    for path, owner, mode in orders["directories"]:
        Path(path).mkdir(parents=True, exist_ok=True)
        if owner:
            shutil.chown(path, owner, owner)
        Path(path).chmod(mode)
    for path, text in orders["files"]:
        Path(path).write_text(text, encoding="utf-8")


def configure(orders: dict[str, Any]) -> None:
    """Name the host and set its sysctls (before any device exists, so that devices inherit ``default``)."""
    socket.sethostname(orders["hostname"])
    for key, value in orders["sysctls"]:
        place = Path("/proc/sys") / key.replace(".", "/") if "/" not in key else Path("/proc/sys") / key
        try:
            place.write_text(value, encoding="ascii")
        except OSError as error:
            raise OSError(error.errno, f"sysctl {key}={value}: {os.strerror(error.errno or 0)}", str(place)) from error


class Services:
    """The node's services. Owns their processes by name, and the directory of their logs."""

    def __init__(self, orders: dict[str, Any]) -> None:
        self.orders = orders
        self.logs = os.open(orders["logs"], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.running: dict[int, str] = {}
        self.finished: set[str] = set()

    def start(self) -> None:
        """Start what is not running, in order; a ``once`` service that succeeded is not run again."""
        for service in self.orders["services"]:
            name = service["name"]
            if name not in self.running.values() and name not in self.finished:
                self.running[self.spawn(service)] = name

    def spawn(self, service: dict[str, Any]) -> int:
        pid = os.fork()
        if pid:
            return pid
        try:
            signal.signal(signal.SIGUSR1, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.setsid()
            self.redirect(service["name"])
            await_files(service["needs"])
            command = service["command"]
            os.execvpe(command[0], command, {**os.environ, **dict(self.orders["env"])})  # noqa: S606
        except OSError as error:
            os.write(2, f"{service['name']}: {error}\n".encode())
        finally:
            os._exit(127)

    def redirect(self, name: str) -> None:
        out = os.open(f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640, dir_fd=self.logs)
        null = os.open(os.devnull, os.O_RDONLY)
        for fd, onto in ((null, 0), (out, 1), (out, 2)):
            os.dup2(fd, onto)

    def ended(self, pid: int, status: int) -> None:
        """Note the end of a service; other processes are orphans that only had to be reaped."""
        name = self.running.pop(pid, None)
        if name is None:
            return
        once = any(service["once"] for service in self.orders["services"] if service["name"] == name)
        if once and status == 0:
            self.finished.add(name)
        line = f"{ENDED}{name} ended with {os.waitstatus_to_exitcode(status)}\n"
        fd = os.open(f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640, dir_fd=self.logs)
        os.write(fd, line.encode())
        os.close(fd)


def await_files(paths: list[str]) -> None:
    """Wait until all exist. Raises TimeoutError (an OSError) after NEED_S."""
    deadline = time.monotonic() + NEED_S
    for path in paths:
        while not Path(path).exists():
            if time.monotonic() > deadline:
                raise TimeoutError(110, f"not there after {NEED_S:g} s", path)
            time.sleep(POLL_S)


def main() -> None:
    signals = {signal.SIGUSR1, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    orders = json.load(sys.stdin)
    services = Services(orders)
    os.chdir("/")
    try:
        furnish(orders)
        configure(orders)
    except (OSError, LookupError) as error:
        print(f"failed: {error}", flush=True)
        sys.exit(1)
    print("ready", flush=True)
    os.dup2(2, 1)
    while True:
        if signal.sigwait(signals) == signal.SIGUSR1:
            services.start()
            continue
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if not pid:
                break
            services.ended(pid, status)


if __name__ == "__main__":
    main()
