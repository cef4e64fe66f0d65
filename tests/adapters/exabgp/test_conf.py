"""ExaBGP's configuration: what is written is read back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bgpd.adapters.exabgp import conf
from bgpd.adapters.exabgp.conf import Neighbor
from bgpd.adapters.secrets import Password
from bgpd.model.peer import Peer, SecretRef
from bgpd.model.prefix import Address, Family

pytestmark = pytest.mark.core

ROUTER = Address.parse("10.0.0.1")
SOCKET = Path("/run/x/shim.sock")
A = Peer(name="a", address=Address.parse("192.0.2.1"), asn=65001, local_address=ROUTER, local_asn=65000)
B = Peer(
    name='b "quoted" #\n',
    address=Address.parse("2001:db8::1"),
    asn=65002,
    local_address=Address.parse("2001:db8::2"),
    local_asn=65000,
    port=1790,
    graceful_restart_s=0,
    families=(Family.IPV6,),
    passive=True,
    multihop_ttl=3,
)
C = Peer(
    name="c",
    address=Address.parse("192.0.2.3"),
    asn=65003,
    local_address=ROUTER,
    local_asn=65000,
    password=SecretRef("fabric", "c"),
)
SECRET = Password(b'"; } secret \xff\xfe')


def test_what_is_written_is_read_back() -> None:
    """The file holds mode, router id and every peer, whatever its name and its password."""
    neighbors = [Neighbor(B), Neighbor(A), Neighbor(C, SECRET)]
    text = conf.render("raw", ROUTER, neighbors, SOCKET)
    head, held = conf.parse(text)

    assert conf.Head("raw", ROUTER) == head
    assert {neighbor.peer.address: neighbor for neighbor in neighbors} == held
    assert "secret" not in text


def test_no_session_with_a_password_is_configured_without_it() -> None:
    """A password that is missing, or that nobody asked for, is never written, nor accepted in a file."""
    for wrong in (Neighbor(C), Neighbor(A, SECRET)):
        with pytest.raises(ValueError, match="never begun without it"):
            conf.render("raw", ROUTER, [wrong], SOCKET)
    text = conf.render("raw", ROUTER, [Neighbor(C, SECRET)], SOCKET)
    with pytest.raises(ValueError, match="missing"):
        conf.parse("\n".join(line for line in text.splitlines() if "md5-password" not in line))
    with pytest.raises(ValueError, match="base64"):
        conf.parse(re.sub('md5-password "[^"]*"', 'md5-password "x"', text))


def test_equal_sets_give_equal_files() -> None:
    """The order of the peers does not matter."""
    assert conf.render("raw", ROUTER, [Neighbor(A), Neighbor(B)], SOCKET) == conf.render(
        "raw", ROUTER, [Neighbor(B), Neighbor(A)], SOCKET
    )


def test_a_foreign_file_is_refused() -> None:
    """A file that does not begin as ours is not ours."""
    with pytest.raises(ValueError, match="begin"):
        conf.parse("neighbor 192.0.2.1 { }")


def test_what_exabgp_serves_is_recognised_by_its_digest() -> None:
    """The digest in a description changes with what ExaBGP is told, its password included, not with the peer's name."""
    digest = conf.digest("raw", ROUTER, Neighbor(A))
    shown = [b"neighbor 192.0.2.1 {", f'  description "bgpd-{digest}";'.encode(), b"}", b"neighbor 192.0.2.9 {", b"}"]

    assert {"192.0.2.1": digest, "192.0.2.9": ""} == conf.loaded(shown)
    assert digest != conf.digest("json", ROUTER, Neighbor(A))
    other = conf.digest("raw", ROUTER, Neighbor(C, Password(b"other")))
    assert other != conf.digest("raw", ROUTER, Neighbor(C, SECRET))


def test_our_settings_win_over_the_callers_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No exabgp variable of the caller reaches ExaBGP."""
    monkeypatch.setenv("exabgp_tcp_bind", "0.0.0.0")
    monkeypatch.setenv("exabgp_bgp_passive", "true")
    environment = conf.environment(tmp_path)

    assert "" == environment["exabgp_tcp_bind"]
    assert "exabgp_bgp_passive" not in environment
