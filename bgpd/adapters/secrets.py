"""Secrets in files: who may be able to read them, and passwords of BGP sessions below one directory.

Laws: a secret is read where it is needed and kept nowhere else; it is in no message, log, recording, command line or repr.
A file that somebody else could read is not used, so that the mistake is seen at once. What is wrong is said by the file's
path, which is no secret.

A password is named as Calico's ``secretKeyRef`` names it, and is the content of DIRECTORY/NAME/KEY, without the end of its
line. It may be reached through links that stay in the directory, which is how Kubernetes mounts a Secret.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from bgpd.model.peer import SecretRef

DIRECTORY = Path("/etc/bgpd/secrets")
PASSWORD_BYTES = 80
"""Longest key of TCP-MD5 (RFC 2385) in Linux: TCP_MD5SIG_MAXKEYLEN."""
OTHERS = 0o007
GROUP_AND_OTHERS = 0o077


class Unfit(Exception):  # noqa: N818 - named by what it says of the file
    """A secret is not used; the text says why and how to mend it, and holds nothing of the secret."""


class Password:
    """A secret in memory; equal to another with the same bytes, and shown as ``…`` wherever it is printed."""

    __slots__ = ("_octets",)

    def __init__(self, octets: bytes) -> None:
        self._octets = octets

    def reveal(self) -> bytes:
        """Return the bytes, for the one place that hands them on."""
        return self._octets

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Password) and other._octets == self._octets

    def __hash__(self) -> int:
        return hash(self._octets)

    def __repr__(self) -> str:
        return "Password(…)"


class Passwords:
    """Reads the passwords of sessions below *directory*."""

    def __init__(self, directory: Path = DIRECTORY) -> None:
        self._directory = directory

    def read(self, reference: SecretRef) -> Password:
        """Read the password that is there now; raises Unfit."""
        for part in (reference.name, reference.key):
            if part in {"", ".", ".."} or "/" in part or "\0" in part:
                raise Unfit(f"password {reference.name}/{reference.key}: {part!r} is not the name of a file")
        path = self._directory / reference.name / reference.key
        try:
            octets = read(self._inside(path), PASSWORD_BYTES + 2, GROUP_AND_OTHERS).rstrip(b"\r\n")
        except Unfit as unfit:
            raise Unfit(f"password {path}: {unfit}") from None
        if not octets:
            raise Unfit(f"password {path}: the file is empty")
        if len(octets) > PASSWORD_BYTES:
            raise Unfit(f"password {path}: longer than {PASSWORD_BYTES} bytes, the most that TCP-MD5 takes")
        if any(octet < 0x20 or octet == 0x7F for octet in octets):
            raise Unfit(f"password {path}: has a control character, or more than one line")
        return Password(octets)

    def unfit(self, reference: SecretRef) -> str:
        """Say why a password is not used as it is now; empty if it is."""
        try:
            self.read(reference)
        except Unfit as unfit:
            return str(unfit)
        return ""

    def _inside(self, path: Path) -> Path:
        """Follow links; raises Unfit for what does not exist or is outside of the directory."""
        try:
            real = path.resolve(strict=True)
        except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, up to Python 3.12
            reason = error.strerror if isinstance(error, OSError) else "Too many levels of symbolic links"
            raise Unfit(f"the file cannot be read: {reason}") from None
        if not real.is_relative_to(self._directory.resolve()):
            raise Unfit(f"a link leads out of {self._directory}")
        return real


def read(path: Path, limit_bytes: int, forbidden: int = OTHERS) -> bytes:
    """Read up to *limit_bytes* of a file with a secret; raises Unfit where its mode has a bit of *forbidden*."""
    try:
        # Not blocking: a pipe is refused, not waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if reason := _unfit(path, os.fstat(descriptor), forbidden):
                raise Unfit(reason)
            return os.read(descriptor, limit_bytes)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise Unfit(_unreadable(error)) from None


def unfit_secret(path: Path) -> str:
    """Say why a file with a secret is not used; empty if it is."""
    try:
        return "" if read(path, 1) else "the file is empty"
    except Unfit as unfit:
        return str(unfit)


def unfit_file(path: Path) -> str:
    """Say why a file cannot be read; empty if it can."""
    try:
        with path.open("rb") as file:
            return "" if file.read(1) else "the file is empty"
    except OSError as error:
        return _unreadable(error)


def _unfit(path: Path, found: os.stat_result, forbidden: int) -> str:
    if not stat.S_ISREG(found.st_mode):
        return "not a plain file"
    if found.st_mode & forbidden:
        who, cure = ("others", "o=") if forbidden == OTHERS else ("its group or others", "go=")
        return f"the file can be used by {who} (mode {stat.S_IMODE(found.st_mode):04o}): chmod {cure} {path}"
    return ""


def _unreadable(error: OSError) -> str:
    return f"the file cannot be read: {error.strerror}"
