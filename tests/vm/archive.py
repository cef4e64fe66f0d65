"""The initramfs: a cpio archive in the "newc" format (Linux: Documentation/driver-api/early-userspace/buffer-format.rst).

Written here rather than by ``cpio``, since most of it are files that lie elsewhere: what this Python has loaded, with the times
by which Python knows that its bytecode is current. The kernel restores them.
"""

from __future__ import annotations

import stat
import sys
from importlib import import_module
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Final

DAEMON: Final = ("bgpd.daemon.supervise", "bgpd.cli.run", "bgpd.cli.status")
"""What loads all that the daemon does: some 300 modules of libraries that no test has any use for."""
FOLDER: Final = stat.S_IFDIR | 0o755


class Archive:
    """Owns the bytes, and the names of the folders that are in them."""

    def __init__(self) -> None:
        self._out = BytesIO()
        self._folders: set[Path] = {Path("/")}

    def add(self, path: Path, content: bytes, mode: int) -> None:
        """Put a file of our own at *path*."""
        for folder in reversed(path.parents):
            if folder not in self._folders:
                self._folders.add(folder)
                self._entry(folder, FOLDER, 0, b"")
        self._entry(path, stat.S_IFREG | mode, 0, content)

    def copy(self, source: Path, below: Path) -> None:
        """Put the host's file *source* below *below*, in the same folders with the same modes."""
        for folder in reversed(source.parents):
            inside = below / folder.relative_to("/")
            if inside not in self._folders:
                self._folders.add(inside)
                found = folder.stat()
                self._entry(inside, found.st_mode, int(found.st_mtime), b"")
        found = source.stat()
        self._entry(below / source.relative_to("/"), found.st_mode, int(found.st_mtime), source.read_bytes())

    def finished(self) -> bytes:
        """The archive with its end mark."""
        self._entry(Path("/TRAILER!!!"), 0, 0, b"")
        return self._out.getvalue()

    def _entry(self, path: Path, mode: int, mtime: int, content: bytes) -> None:
        name = str(path)[1:].encode() + b"\0"
        # inode, mode, uid, gid, links, mtime, size, device and rdevice (two each), length of the name, no checksum
        fields = (0, mode, 0, 0, 1, mtime, len(content), 0, 0, 0, 0, len(name), 0)
        self._out.write(b"070701" + b"".join(b"%08x" % field for field in fields) + name)
        for part in (b"", content):
            self._out.write(part)
            self._out.write(bytes(-self._out.tell() % 4))


def warm() -> list[Path]:
    """Return what a guest will read first: files that this process has loaded (modules with their bytecode, shared libraries), ours and
    ExaBGP's, and all that the daemon and the command load. Reading one over 9p takes as long as some thousand of its instructions.
    """
    for name in DAEMON:
        import_module(name)
    files = {getattr(module, "__file__", None) or "" for module in list(sys.modules.values())}
    with Path("/proc/self/maps").open(encoding="utf-8") as maps:
        files |= {line.split(maxsplit=5)[5].rstrip("\n") for line in maps if line.count("/")}
    found: set[Path] = set()
    for name in files:
        path = Path(name)
        if path.is_absolute() and path.is_file():
            path = path.resolve()
            found |= {path, *(path.parent / "__pycache__").glob(f"{path.stem}.*.pyc")}
    for package in ("bgpd", "exabgp"):
        for folder in find_spec(package).submodule_search_locations:
            found |= {path for path in Path(folder).resolve().rglob("*.py*") if path.is_file()}
    return sorted(found)
