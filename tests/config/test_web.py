"""Where the web page and the metrics may be served."""

from __future__ import annotations

from pathlib import Path

import pytest

from bgpd.config.error import ConfigError
from bgpd.config.load import load

pytestmark = pytest.mark.core

NODE = """
[node]
name = "node1"
address = "10.0.0.1/32"
asn = 65001
[store]
url = "memory://"
"""
PASSWORD = 'user = "operator"\npassword = { name = "a", key = "b" }\n'
TLS = 'certificate = "/etc/bgpd/web.pem"\nkey = "/etc/bgpd/web.key"\n'


def defects(folder: Path, text: str) -> list[str]:
    path = folder / "bgpd.toml"
    path.write_text(NODE + text)
    try:
        load(path)
    except ConfigError as error:
        return [defect.path for defect in error.errors]
    return []


def test_the_page_is_off_unless_asked_for(tmp_path: Path) -> None:
    """Without a port nothing is served."""
    path = tmp_path / "bgpd.toml"
    path.write_text(NODE)
    config = load(path)
    assert (0, "127.0.0.1") == (config.web.port, str(config.web.address))
    assert (0, "127.0.0.1") == (config.metrics.port, str(config.metrics.address))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[web]\nport = 9180\n", []),
        ('[web]\nport = 9180\naddress = "::1"\n', []),
        ('[web]\nport = 9180\naddress = "0.0.0.0"\n', ["web.address"]),
        ('[web]\nport = 9180\naddress = "0.0.0.0"\n' + PASSWORD, ["web.password"]),
        ('[web]\nport = 9180\naddress = "0.0.0.0"\n' + PASSWORD + TLS, []),
        ('[web]\nport = 9180\nuser = "operator"\n', ["web.user"]),
        ('[web]\nport = 9180\nkey = "/etc/bgpd/web.key"\n', ["web.certificate"]),
        ('[metrics]\nport = 9179\naddress = "0.0.0.0"\n', []),
    ],
)
def test_beyond_this_host_the_page_needs_password_and_tls(tmp_path: Path, text: str, expected: list[str]) -> None:
    """The page is for everybody on this host only; on another address it is an error without a password by TLS."""
    assert expected == defects(tmp_path, text)
