"""A virtual machine with Debian's kernel, whose root is this machine's own, and in which pytest runs.

Theory of operation. QEMU emulates two processors (no KVM is needed). The initramfs (busybox, the modules to reach the root, ``init``)
mounts the host's root over 9p, read-only, under an overlay on tmpfs: the project, its libraries and every installed package are
there, and nothing that the guest does reaches the host, network included (it has none). Then process 1 is either ``enter`` (a
few processes, the quick way) or systemd, which starts ``enter`` as a service. That runs pytest (``guest.py``) on the tests
listed in the one folder that both share, which appends to ``reports`` there what pytest reports, one JSON line each, as it
goes. The host reads along.

Law: every wait ends. A guest that says nothing for ``SILENCE_S`` or runs longer than ``WHOLE_S`` is ended, and what it wrote on
its console is shown.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from tests.vm.archive import Archive, warm

TOP: Final = Path(__file__).parents[2]
KERNELS: Final = Path(os.environ.get("BGPD_VM_KERNELS", "/var/cache/bgpd/linux"))
"""Where containerlab/prepare unpacks Debian's kernel: a folder for each version."""
MODULES: Final = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
"""What must be loaded before the root can be mounted; all others are loaded from there."""

KNOBS: Final = ("CHAOS_", "KERNEL_")
"""Variables of these names are for tests, and reach those in the guest."""

MEMORY_MB: Final = 2048
PROCESSORS: Final = 2
SHARDS: Final = PROCESSORS
"""So many pytests share the tests of a guest without systemd."""
SILENCE_S: Final = float(os.environ.get("BGPD_VM_SILENCE_S", "600"))
"""Longest time without a word from the guest: to boot and to collect takes 60 s on a busy host, a test at most LONGEST_S of guest.py."""
WHOLE_S: Final = 1500.0
"""Longest life of one guest: some 200 s on an idle host, five times that on a busy one."""
POLL_S: Final = 0.05
SHOWN_LINES: Final = 80
"""So much of the console is shown with a failure: a whole boot with systemd has some 300 lines."""


class Lost(Exception):  # noqa: N818 - named by what happened to the guest
    """The guest ended, or was ended, before it had reported all; the text shows its console."""


class Machine:
    """Owns one QEMU process and the folder that it shares with its guest."""

    def __init__(self, tests: Sequence[str], *, systemd: bool) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="bgpd-vm-")
        self._shared = Path(self._folder.name) / "shared"
        self._shared.mkdir()
        shards = 1 if systemd else SHARDS
        for number in range(shards):
            (self._shared / f"tests.{number}").write_text("".join(f"{test}\n" for test in tests[number::shards]))
        knobs = {name: value for name, value in os.environ.items() if name.startswith(KNOBS)}
        (self._shared / "environment").write_text(json.dumps(knobs))
        (self._shared / "reports").touch()
        self._console = Path(self._folder.name) / "console"
        self._started = time.monotonic()
        self._qemu = subprocess.Popen(
            self._command(systemd=systemd),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
        )

    def reports(self) -> Iterator[dict[str, Any]]:
        """What the guest reports, as it comes; raises Lost where it ends too early or too late."""
        heard = time.monotonic()
        with (self._shared / "reports").open(encoding="utf-8") as lines:
            part = ""
            while True:
                ended = self._qemu.poll() is not None  # looked at before reading: what it wrote last is read, too
                part += lines.readline()
                if part.endswith("\n"):
                    yield json.loads(part)
                    part, heard = "", time.monotonic()
                    continue
                if ended:
                    raise Lost(self._told("the guest ended"))
                now = time.monotonic()
                if now - heard > SILENCE_S:
                    raise Lost(self._told(f"the guest has said nothing for {SILENCE_S:.0f} s"))
                if now - self._started > WHOLE_S:
                    raise Lost(self._told(f"the guest has run for {WHOLE_S:.0f} s"))
                time.sleep(POLL_S)

    def close(self) -> None:
        """End the guest: it holds nothing that is worth an orderly end."""
        if self._qemu.poll() is None:
            self._qemu.kill()
        self._qemu.wait()
        self._folder.cleanup()

    def _told(self, what: str) -> str:
        lines = self._console.read_text(errors="replace").splitlines() if self._console.exists() else []
        return "\n".join([f"{what}; the end of its console:", *lines[-SHOWN_LINES:]])

    def _command(self, *, systemd: bool) -> list[str]:
        folder = kernel()
        version = folder.name
        initramfs = Path(self._folder.name) / "initramfs"
        initramfs.write_bytes(_initramfs(folder, version, systemd=systemd))
        append = "console=ttyS0 quiet panic=-1 net.ifnames=0 mitigations=off"
        if systemd:
            append += " systemd.show_status=error systemd.journald.forward_to_console=1"
        return [
            *(
                "qemu-system-x86_64",
                "-accel",
                "tcg,thread=multi",
                "-cpu",
                "max",
                "-smp",
                str(PROCESSORS),
                "-m",
                str(MEMORY_MB),
            ),
            *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none"),
            *("-serial", f"file:{self._console}", "-device", "virtio-rng-pci"),
            *("-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap"),
            *("-device", "virtio-9p-pci,fsdev=host,mount_tag=host"),
            *("-fsdev", f"local,id=out,path={self._shared},security_model=none"),
            *("-device", "virtio-9p-pci,fsdev=out,mount_tag=out"),
            *("-kernel", str(folder / "boot" / f"vmlinuz-{version}"), "-initrd", str(initramfs), "-append", append),
        ]


def kernel() -> Path:
    """The folder of the newest kernel that was unpacked."""
    found = sorted(KERNELS.glob("*/boot/vmlinuz-*"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise Lost(f"no kernel in {KERNELS}: run containerlab/prepare test")
    return found[-1].parents[1]


def _initramfs(folder: Path, version: str, *, systemd: bool) -> bytes:
    """What boots: busybox, ``init``, its settings, the modules that it loads in order, and what the guest's Python will read first."""
    here = Path(__file__).parent
    enter = f"/bin/sh {here / 'enter'} {sys.executable}"
    settings = {
        "KEEP": " ".join(sorted({str(TOP), sys.prefix, str(folder)})),
        "KERNEL": str(folder),
        "VERSION": version,
        "ENTER": "/lib/systemd/systemd --unit=vm-tests.service" if systemd else enter,
    }
    archive = Archive()
    archive.add(Path("/bin/busybox"), Path("/bin/busybox").read_bytes(), 0o755)
    archive.add(Path("/init"), (here / "init").read_bytes(), 0o755)
    archive.add(Path("/settings"), "".join(f"{k}={shlex.quote(v)}\n" for k, v in settings.items()).encode(), 0o644)
    archive.add(Path("/vm-tests.service"), (here / "vm-tests.service").read_text().format(enter=enter).encode(), 0o644)
    for number, module in enumerate(_modules(folder, version)):
        archive.add(Path(f"/modules/{number:02}-{module.name}"), module.read_bytes(), 0o644)
    for path in warm():
        archive.copy(path, Path("/warm"))
    return archive.finished()


def _modules(folder: Path, version: str) -> list[Path]:
    """The files of MODULES and of what they need, in the order of loading."""
    asked = ["modprobe", "-d", str(folder), "-S", version, "--show-depends", "-a", *MODULES]
    lines = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()
    # Each of MODULES brings its own list: what two of them need is named twice.
    return list(dict.fromkeys(Path(line.split()[1]) for line in lines if line.startswith("insmod ")))
