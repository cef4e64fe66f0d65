"""The WireGuard key pair of this node (X25519, RFC 7748): made here, and its private half never leaves this host.

Laws: the private key is in one file that only we may read (0600), and in memory only on its way into the device; it is in no
message, log, recording, command line or repr. A file that somebody else could read is not used. A key is replaced in one step, so
that a crash leaves the old one or the new one.
"""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from contextlib import suppress
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from bgpd.adapters.secrets import GROUP_AND_OTHERS, Password, Unfit, read

DIRECTORY = Path("/var/lib/bgpd/wireguard")
KEY_BYTES = 32
_FILE = "private.key"
_TEXT_BYTES = 64
"""More than a key in base64 (44) with the end of its line."""


class WireguardKeys:
    """Owns the file of the private key below *directory*."""

    def __init__(self, directory: Path = DIRECTORY) -> None:
        self._path = directory / _FILE

    def there(self) -> bool:
        """Whether a pair was made."""
        return self._path.exists()

    def public(self) -> str:
        """Return the public key, base64; a pair is made where there is none. Raises Unfit, with the path and how to mend it."""
        if not self.there():
            self._write(X25519PrivateKey.generate())
        return public_of(self._private())

    def private(self, public: str) -> Password:
        """Return the 32 bytes of the private key whose public one is *public*; raises Unfit where that is not what the file holds."""
        private = self._private()
        if public_of(private) != public:
            raise Unfit(f"{self._path}: holds the key of another public key than {public}")
        return private

    def rotate(self) -> str:
        """Make a new pair, and return its public key. Raises Unfit; the old key is kept then."""
        private = X25519PrivateKey.generate()
        self._write(private)
        return public_of(Password(private.private_bytes_raw()))

    def age_s(self, wall_s: float) -> float:
        """Return how long before *wall_s* (seconds since 1970) the present pair was made; 0 where there is none."""
        with suppress(OSError):
            return max(0.0, wall_s - self._path.stat().st_mtime)
        return 0.0

    def _private(self) -> Password:
        try:
            text = read(self._path, _TEXT_BYTES, GROUP_AND_OTHERS)
            octets = b64decode(text.strip(), validate=True)
        except Unfit as unfit:
            raise Unfit(f"{self._path}: {unfit}") from None
        except ValueError:
            octets = b""
        if len(octets) != KEY_BYTES:
            raise Unfit(f"{self._path}: is no private key: remove it, and a new one is made")
        return Password(octets)

    def _write(self, private: X25519PrivateKey) -> None:
        """Replace the file as a whole; what was half written before a crash is written anew."""
        text = b64encode(private.private_bytes_raw()) + b"\n"
        half = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            half.unlink(missing_ok=True)
            descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, text)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            half.rename(self._path)
        except OSError as error:
            raise Unfit(f"{self._path}: cannot be written: {error.strerror}") from None


def public_of(private: Password) -> str:
    """Return the public key of a private one, base64."""
    return b64encode(X25519PrivateKey.from_private_bytes(private.reveal()).public_key().public_bytes_raw()).decode()
