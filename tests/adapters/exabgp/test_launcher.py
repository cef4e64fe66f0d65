"""The patches of ExaBGP, against the ExaBGP that is installed."""

from __future__ import annotations

import pytest
from exabgp.bgp.message import Notify
from exabgp.reactor.protocol import Protocol

from bgpd.adapters.exabgp.child import launcher

pytestmark = pytest.mark.core


def test_the_installed_exabgp_fits() -> None:
    """The functions that are replaced are the ones the patches were written for."""
    launcher.verify()


def test_another_exabgp_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reading loop of another shape is named, and nothing is patched."""

    def read_message(self: object) -> None:
        """Decode at once."""

    monkeypatch.setattr(Protocol, "read_message", read_message)
    with pytest.raises(launcher.Unfit, match="read_message"):
        launcher.install()


@pytest.mark.parametrize("body", [b"\0\0\0\0", b"\0\0\0\1\0", b"\0\1\0\0\0", b"\0\0\0\0\x08\x0a"])
def test_lengths_that_fit_pass(body: bytes) -> None:
    """An UPDATE whose three parts fill it passes."""
    launcher.check_lengths(body)


@pytest.mark.parametrize("body", [b"", b"\0\0\0", b"\0\1\0\0", b"\0\0\0\1", b"\xff\xff\0\0"])
def test_lengths_that_exceed_end_the_session(body: bytes) -> None:
    """Lengths that exceed the message are answered with NOTIFICATION 3/1."""
    with pytest.raises(Notify) as caught:
        launcher.check_lengths(body)

    assert (3, 1) == (caught.value.code, caught.value.subcode)
