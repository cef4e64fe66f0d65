"""The Prometheus endpoint over real TCP, with and without TLS and a password."""

from __future__ import annotations

import asyncio
import base64
import socket as sockets
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from bgpd.adapters.prometheus import Endpoint
from bgpd.adapters.secrets import Password
from bgpd.api.endpoint import Unusable
from bgpd.api.metrics import MetricsServer
from tests.adapters.store.etcd_server import Certificates

pytestmark = pytest.mark.adapter

T = TypeVar("T")


def free_port() -> int:
    with sockets.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def serving(endpoint: Endpoint, body: Callable[[], T]) -> T:
    """Run *body* in a thread while the endpoint is served."""

    async def main() -> T:
        server = MetricsServer(endpoint, lambda: b"bgpd_ready 1\n")
        await server.start()
        try:
            return await asyncio.to_thread(body)
        finally:
            await server.stop()

    return asyncio.run(main())


def get(url: str, authorization: str = "", context: ssl.SSLContext | None = None) -> tuple[int, bytes]:
    request = urllib.request.Request(url, headers={"Authorization": authorization} if authorization else {})
    try:
        with urllib.request.urlopen(request, timeout=30, context=context) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, b""


def test_the_figures_are_served_and_nothing_else() -> None:
    """/metrics answers with the exposition, any other path with 404."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    answers = serving(Endpoint(address="127.0.0.1", port=port), lambda: (get(f"{url}/metrics"), get(f"{url}/")[0]))
    assert ((200, b"bgpd_ready 1\n"), 404) == answers


def test_a_wrong_password_is_refused() -> None:
    """With a password only its bearer is answered, whatever else the header holds."""
    port = free_port()
    endpoint = Endpoint(address="127.0.0.1", port=port, user="prometheus", password=Password(b"right"))

    def basic(text: str) -> str:
        return f"Basic {base64.b64encode(text.encode()).decode()}"

    def body() -> list[int]:
        tries = (basic("prometheus:right"), basic("prometheus:wrong"), basic("other:right"), "Basic !", "Bearer x", "")
        return [get(f"http://127.0.0.1:{port}/metrics", one)[0] for one in tries]

    assert [200, 401, 401, 401, 401, 401] == serving(endpoint, body)


def test_tls_is_spoken_where_a_certificate_is_given(tmp_path: Path) -> None:
    """A client that trusts the certificate's authority is answered by TLS."""
    certificates = Certificates(tmp_path / "tls")
    port = free_port()
    endpoint = Endpoint(
        address="127.0.0.1",
        port=port,
        certificate=certificates.folder / "member.crt",
        key=certificates.folder / "member.key",
    )
    context = ssl.create_default_context(cafile=str(certificates.ca))
    assert 200 == serving(endpoint, lambda: get(f"https://127.0.0.1:{port}/metrics", context=context)[0])


def test_a_port_in_use_says_so() -> None:
    """An address that cannot be had is named with the way to mend it."""
    with sockets.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(Unusable, match=rf"127\.0\.0\.1 port {port}.*\[metrics\]"):
            serving(Endpoint(address="127.0.0.1", port=port), lambda: None)
