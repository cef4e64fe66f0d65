"""How a node finds its own address, as text."""

from __future__ import annotations

import pytest

from bgpd.model.node import AddressMethod, FindBy

pytestmark = pytest.mark.core


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("first-found", AddressMethod(FindBy.FIRST_FOUND)),
        ("interface=eth.*, bond0", AddressMethod(FindBy.INTERFACE, ("eth.*", "bond0"))),
        ("can-reach=192.0.2.1", AddressMethod(FindBy.CAN_REACH, ("192.0.2.1",))),
        ("cidr=10.0.0.0/8,192.168.0.0/16", AddressMethod(FindBy.CIDR, ("10.0.0.0/8", "192.168.0.0/16"))),
        ("10.0.0.1/32", None),
        ("nonsense=1", None),
    ],
)
def test_methods_are_read(text: str, expected: AddressMethod | None) -> None:
    """A method is read with its arguments; what does not begin with one's name is none."""
    assert expected == AddressMethod.parse(text)


@pytest.mark.parametrize(
    "text",
    ["first-found=eth0", "interface", "interface=", "can-reach=a,b", "can-reach=x", "cidr=10.0.0.1/8", "interface=["],
)
def test_bad_arguments_are_refused(text: str) -> None:
    """A missing, superfluous or unreadable argument is refused with the reason."""
    with pytest.raises(ValueError):
        AddressMethod.parse(text)
