"""etcd beyond the contract: users, certificates, silence, lost members and restored backups."""

from __future__ import annotations

import asyncio
import logging
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest

from bgpd.adapters.store import etcd as etcd_module
from bgpd.adapters.store import etcd_link
from bgpd.adapters.store.base import Change, Compacted, Compare, LeaseNotFound, Put, Transient
from bgpd.adapters.store.etcd import EtcdStore
from bgpd.adapters.store.etcd_link import EtcdOptions
from tests.adapters.store.etcd_server import Certificates, Etcd

pytestmark = pytest.mark.adapter

DEADLINE_S = 20.0
PASSWORD = "hush-hush"


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits that a test can wait for."""
    monkeypatch.setattr(etcd_module, "IDLE_S", 0.2)
    monkeypatch.setattr(etcd_module, "ANSWER_S", 0.3)
    monkeypatch.setattr(etcd_module, "WATCH_LOST_S", 0.5)
    monkeypatch.setattr(etcd_link, "OPERATION_S", 0.5)
    monkeypatch.setattr(etcd_link, "READ_S", 0.3)
    monkeypatch.setattr(etcd_link, "WRITE_S", 0.3)
    monkeypatch.setattr(etcd_link, "PROBE_S", 0.2)


@pytest.fixture
def own() -> Iterator[Etcd]:
    """A server that a test may stop, end and spoil."""
    with Etcd() as made:
        yield made


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text(PASSWORD + "\n")
    path.chmod(0o600)
    return path


def nobody() -> str:
    """An address at which nobody listens."""
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{made.getsockname()[1]}"


def enable_users(server: Etcd) -> None:
    for name, role in (("root", "root"), ("node", "node")):
        server.ctl("user", "add", name, "--interactive=false", stdin=PASSWORD)
        if role != "root":
            server.ctl("role", "add", role)
            server.ctl("role", "grant-permission", "--prefix=true", role, "readwrite", "/ours/")
        server.ctl("user", "grant-role", name, role)
    server.ctl("auth", "enable")
    server.root = ("--user", f"root:{PASSWORD}")


async def put(store: EtcdStore, key: str, value: bytes) -> int:
    return (await store.txn((), (Put(key, value),))).revision


def run(options: EtcdOptions, work: Callable) -> None:
    """Run *work* on a store, within the deadline."""

    async def main() -> None:
        store = EtcdStore(options)
        try:
            async with asyncio.timeout(DEADLINE_S):
                await work(store)
        finally:
            await store.close()

    asyncio.run(main())


def test_a_store_that_is_not_there_is_transient_and_names_each_member(short):
    """Where no member answers, the reason names every member; the time is bounded."""
    members = (nobody(), nobody())

    async def work(store):
        begun = time.monotonic()
        for attempt in (store.get("/a"), store.txn((), (Put("/a", b""),)), store.grant(5), store.keepalive(5)):
            with pytest.raises(Transient) as raised:
                await attempt
            assert all(f"{member}: " in raised.value.reason for member in members)
            assert "refused" in raised.value.reason
        async with aclosing(store.watch("/", 1)) as changes:
            with pytest.raises(Transient):
                await anext(changes)
        assert time.monotonic() - begun < 10

    run(EtcdOptions(members), work)


def test_an_absent_member_costs_no_error(etcd):
    """With the first member absent the next one is asked, for reads, writes, leases and watches alike."""

    async def work(store):
        revision = await put(store, "/a", b"1")
        assert (await store.get("/a")).mod_revision == revision
        await store.keepalive(await store.grant(5))
        async with aclosing(store.watch("/", revision)) as changes:
            assert await anext(changes) == (revision, [Change("/a", b"1", revision)])

    run(EtcdOptions((nobody(), *etcd.options.members)), work)


def test_a_silent_server_is_found_out_and_a_write_to_it_is_unknown(own, short):
    """A stopped server, whose connection stands, is noticed by watch, read and write; the write may be made all the same."""

    async def work(store):
        revision = await put(store, "/a", b"1")
        async with aclosing(store.watch("/", revision + 1)) as changes:
            step = asyncio.ensure_future(anext(changes))
            await asyncio.sleep(0.5)  # idle, and known to be alive
            assert not step.done()
            process = own.members[0].process
            assert process is not None
            process.send_signal(signal.SIGSTOP)
            try:
                with pytest.raises(Transient):
                    await store.txn((Compare("/a", revision),), (Put("/a", b"2"),))
                with pytest.raises(Transient):
                    await store.get("/a")
                with pytest.raises(Transient):
                    await step
            finally:
                process.send_signal(signal.SIGCONT)
        while True:
            try:
                held = await store.get("/a")
                break
            except Transient:
                await asyncio.sleep(0.05)
        assert held.value in {b"1", b"2"}

    run(own.options, work)


def test_a_watch_goes_on_when_the_server_is_back(own):
    """A watch outlives kill -9 and restart of the server: it goes on after the last revision told, without repeating it."""

    async def work(store):
        first = await put(store, "/a", b"1")
        async with aclosing(store.watch("/", first)) as changes:
            assert (await anext(changes))[0] == first
            step = asyncio.ensure_future(anext(changes))
            await asyncio.sleep(0.05)
            own.members[0].end(signal.SIGKILL)
            own.members[0].start()
            second = 0
            while not second:
                try:
                    second = await put(store, "/a", b"2")
                except Transient:
                    await asyncio.sleep(0.05)
            told, found = await step
            assert told == first + 1
            assert found[0].value == b"2"

    run(own.options, work)


def test_a_store_that_went_back_is_compacted(own, tmp_path):
    """A store restored from a backup, behind what a watch has told, is to be read anew."""
    snapshot = tmp_path / "data"

    async def work(store):
        await put(store, "/a", b"1")
        member = own.members[0]
        member.end(signal.SIGTERM)
        data = Path(own._folder.name) / member.name
        await asyncio.to_thread(shutil.copytree, data, snapshot)
        member.start()
        await asyncio.to_thread(own.wait_healthy)
        for _ in range(5):
            last = await put(store, "/a", b"2")
        async with aclosing(store.watch("/", last)) as changes:
            await anext(changes)
            step = asyncio.ensure_future(anext(changes))
            await asyncio.sleep(0.05)
            member.end(signal.SIGKILL)
            await asyncio.to_thread(shutil.rmtree, data)
            await asyncio.to_thread(shutil.copytree, snapshot, data)
            member.start()
            with pytest.raises(Compacted):
                await step

    run(own.options, work)


def test_a_user_gets_a_token_and_a_new_one_when_it_ends(own, secret, caplog):
    """A user reads, writes and watches; a token that the server no longer knows is renewed unnoticed; the password is in no log."""
    caplog.set_level(logging.DEBUG)
    enable_users(own)
    options = msgspec.structs.replace(own.options, user="node", password_file=str(secret))

    async def work(store):
        first = await put(store, "/ours/a", b"1")
        async with aclosing(store.watch("/ours/", first)) as changes:
            assert (await anext(changes))[0] == first
            own.members[0].end(signal.SIGKILL)  # tokens are in the server's memory
            own.members[0].start()
            await asyncio.to_thread(own.wait_healthy)
            assert (await store.get("/ours/a")).value == b"1"
            second = await put(store, "/ours/a", b"2")
            assert (await anext(changes))[0] == second
            lease = await store.grant(5)
            await store.keepalive(lease)
            await store.revoke(lease)
            with pytest.raises(LeaseNotFound):
                await store.keepalive(lease)
        for attempt in (store.get("/theirs"), store.txn((), (Put("/theirs", b""),))):
            with pytest.raises(Transient, match="user 'node': etcdserver: permission denied"):
                await attempt

    run(options, work)

    assert PASSWORD not in caplog.text
    assert PASSWORD not in repr(options)


def test_a_wrong_password_is_told_and_may_be_mended(own, secret):
    """A refused user is Transient and named; the file is read again, so mending it is enough; one open to others is not read."""
    enable_users(own)
    secret.write_text("wrong-one")
    options = msgspec.structs.replace(own.options, user="node", password_file=str(secret))

    async def work(store):
        with pytest.raises(Transient, match=r"user 'node' is refused: .*authentication failed") as raised:
            await store.get("/ours/a")
        assert "wrong-one" not in str(raised.value)
        secret.write_text(PASSWORD)
        secret.chmod(0o604)
        with pytest.raises(Transient, match="can be used by others"):
            await store.get("/ours/a")
        secret.chmod(0o600)
        assert await store.get("/ours/a") is None

    run(options, work)
    with pytest.raises(Transient, match="without a user: etcdserver: user name is empty"):
        run(own.options, lambda store: store.get("/ours/a"))


def test_a_user_of_a_store_without_users_is_no_user(etcd, secret):
    """Where users are not enabled, a configured one does no harm."""
    options = msgspec.structs.replace(etcd.options, user="node", password_file=str(secret))

    async def work(store):
        assert await put(store, "/a", b"1") > 0

    run(options, work)


def test_tls_checks_both_ends(tmp_path, request):
    """With CA and client certificate the store works; a wrong name, a wrong CA and a missing certificate are Transient, with the reason."""
    good, bad = Certificates(tmp_path / "good"), Certificates(tmp_path / "bad")
    with Etcd(certificates=good) as server:
        options = msgspec.structs.replace(server.options, server_name="etcd.test")

        async def work(store):
            assert await put(store, "/a", b"1") > 0

        run(options, work)
        run(server.options, work)  # by the address in the certificate
        request.getfixturevalue("short")  # what follows fails, and need not wait for it
        for change, reason in (
            ({"server_name": "other.test"}, "other.test|[Hh]ostname|CERTIFICATE_VERIFY_FAILED"),
            ({"ca": str(bad.ca)}, "CERTIFICATE_VERIFY_FAILED"),
            ({"cert": "", "key": ""}, "127.0.0.1:"),
            ({"ca": "/no/ca"}, "/no/ca: the file cannot be read"),
            ({"tls": False}, "127.0.0.1:"),
        ):
            with pytest.raises(Transient, match=reason):
                run(msgspec.structs.replace(options, **change), lambda store: store.get("/a"))
        Path(options.key).chmod(0o644)
        with pytest.raises(Transient, match="can be used by others"):
            run(options, lambda store: store.get("/a"))
