"""Secrets in files: what is used, and what is refused and why; none of it shows the secret."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from bgpd.adapters import secrets
from bgpd.adapters.secrets import Password, Passwords, Unfit
from bgpd.model.peer import SecretRef

pytestmark = pytest.mark.adapter

TOR1 = SecretRef("fabric", "tor1")
SECRET = b"correct horse"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory of secrets with one that is fit."""
    made = tmp_path / "secrets"
    (made / "fabric").mkdir(parents=True)
    put(made / "fabric" / "tor1", SECRET + b"\n")
    return made


def put(path: Path, octets: bytes, mode: int = 0o600) -> None:
    path.write_bytes(octets)
    path.chmod(mode)


def refusal(folder: Path, reference: SecretRef = TOR1) -> str:
    with pytest.raises(Unfit) as raised:
        Passwords(folder).read(reference)
    assert raised.value.__cause__ is None
    return str(raised.value)


def test_a_password_is_the_content_of_its_file(folder: Path) -> None:
    """NAME/KEY is read without the end of its line, whatever its other bytes; it equals the same and is never shown."""
    password = Passwords(folder).read(TOR1)

    assert SECRET == password.reveal()
    assert (Password(SECRET), {Password(SECRET)}) == (password, {password})
    assert password != Password(b"other")
    assert "horse" not in f"{password} {password!r} {[password]}"
    put(folder / "fabric" / "tor1", "\u00fc \"';{}".encode() + b"\xff")
    assert "\u00fc \"';{}".encode() + b"\xff" == Passwords(folder).read(TOR1).reveal()


@pytest.mark.parametrize("mode", [0o640, 0o620, 0o604, 0o602, 0o777])
def test_a_file_for_others_is_refused(folder: Path, mode: int) -> None:
    """Whatever group or others may do with a password is a reason not to use it, told with its cure."""
    (folder / "fabric" / "tor1").chmod(mode)

    assert refusal(folder) == (
        f"password {folder}/fabric/tor1: the file can be used by its group or others (mode {mode:04o}): "
        f"chmod go= {folder}/fabric/tor1"
    )


def test_what_is_no_plain_file_is_refused_and_not_waited_for(folder: Path) -> None:
    """A directory, a pipe nobody writes to, a socket: none is a password."""
    (folder / "fabric" / "folder").mkdir(0o700)
    os.mkfifo(folder / "fabric" / "pipe", 0o600)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "fabric" / "socket"))

    assert refusal(folder, SecretRef("fabric", "folder")).endswith("folder: not a plain file")
    assert refusal(folder, SecretRef("fabric", "pipe")).endswith("pipe: not a plain file")
    assert refusal(folder, SecretRef("fabric", "socket")).endswith("cannot be read: No such device or address")


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b"", "the file is empty"),
        (b"\r\n", "the file is empty"),
        (b"x" * 81, "longer than 80 bytes, the most that TCP-MD5 takes"),
        (b"x" * 5000, "longer than 80 bytes, the most that TCP-MD5 takes"),
        (b"one\ntwo\n", "has a control character, or more than one line"),
        (b"a\0b", "has a control character, or more than one line"),
    ],
)
def test_what_can_be_no_password_is_refused(folder: Path, octets: bytes, reason: str) -> None:
    """An empty, too long or garbled password is refused, and not shown."""
    put(folder / "fabric" / "tor1", octets)

    assert f"password {folder}/fabric/tor1: {reason}" == refusal(folder)


@pytest.mark.parametrize(
    ("name", "key"), [("..", "passwd"), ("fabric", ".."), ("", "x"), ("a/b", "x"), ("a", "/etc/passwd"), ("a", "x\0y")]
)
def test_a_reference_cannot_leave_the_directory(folder: Path, name: str, key: str) -> None:
    """Names with a path in them are refused before any file is looked at."""
    assert refusal(folder, SecretRef(name, key)).endswith("is not the name of a file")


def test_links_stay_in_the_directory(folder: Path) -> None:
    """A Secret as Kubernetes mounts it, through links, is read; a link that leads out, or round and round, is refused."""
    (folder / "mounted" / "..2026").mkdir(parents=True)
    put(folder / "mounted" / "..2026" / "tor1", SECRET)
    (folder / "mounted" / "..data").symlink_to("..2026")
    (folder / "mounted" / "tor1").symlink_to("..data/tor1")
    put(folder.parent / "outside", SECRET)
    (folder / "mounted" / "out").symlink_to(folder.parent / "outside")
    (folder / "mounted" / "loop").symlink_to("loop")

    assert SECRET == Passwords(folder).read(SecretRef("mounted", "tor1")).reveal()
    assert refusal(folder, SecretRef("mounted", "out")).endswith(f"a link leads out of {folder}")
    assert refusal(folder, SecretRef("mounted", "loop")).endswith("Too many levels of symbolic links")


def test_a_missing_password_is_named(folder: Path) -> None:
    """Without a file, or without any directory, the path is told and that it does not exist."""
    expected = f"password {folder}/fabric/tor2: the file cannot be read: No such file or directory"
    assert expected == refusal(folder, SecretRef("fabric", "tor2"))
    assert refusal(folder / "none").endswith("No such file or directory")


def test_a_secret_of_the_daemon_may_be_its_groups(folder: Path) -> None:
    """Keys and password files of the store may be used by their group, and by nobody else."""
    path = folder / "fabric" / "tor1"
    path.chmod(0o640)
    assert "" == secrets.unfit_secret(path)
    path.chmod(0o644)
    assert f"the file can be used by others (mode 0644): chmod o= {path}" == secrets.unfit_secret(path)
    path.chmod(0o600)
    path.write_bytes(b"")
    assert "the file is empty" == secrets.unfit_secret(path)
    assert "the file cannot be read: No such file or directory" == secrets.unfit_secret(folder / "none")
