"""Real etcd servers on loopback, for tests: one member or several, plain or with TLS and users."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from bgpd.adapters.store.etcd import EtcdStore
from bgpd.adapters.store.etcd_link import EtcdOptions

START_DEADLINE_S = 20.0
ROOM_BYTES = 2 << 30
"""etcd makes its log 64 MB long at once; a container's /dev/shm may be no longer than that."""
SHARED_MEMORY = Path("/dev/shm")


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for made in sockets:
            made.bind(("127.0.0.1", 0))
        return [made.getsockname()[1] for made in sockets]
    finally:
        for made in sockets:
            made.close()


def scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder for a server's data, in memory where there is room."""
    roomy = SHARED_MEMORY.is_dir() and shutil.disk_usage(SHARED_MEMORY).free > ROOM_BYTES
    return tempfile.TemporaryDirectory(prefix="bgpd-etcd-", dir=SHARED_MEMORY if roomy else None)


class Certificates:
    """A CA of our own, and what it signed, made with openssl."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-subj", "/CN=bgpd test CA", "-keyout", "ca.key", "-out", "ca.crt",
        )  # fmt: skip
        self.make("member", "DNS:etcd.test,IP:127.0.0.1")
        self.make("client", "DNS:client.test")

    @property
    def ca(self) -> Path:
        return self.folder / "ca.crt"

    def make(self, name: str, alternatives: str) -> None:
        """Make NAME.key and NAME.crt."""
        (self.folder / f"{name}.ext").write_text(f"subjectAltName={alternatives}\n")
        self._openssl(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
            "-keyout", f"{name}.key", "-out", f"{name}.csr",
        )  # fmt: skip
        self._openssl(
            "x509", "-req", "-days", "2", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
            "-extfile", f"{name}.ext", "-out", f"{name}.crt",
        )  # fmt: skip
        (self.folder / f"{name}.key").chmod(0o600)

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True, timeout=30)


class Member:
    """One etcd process, to be started, killed and started again on its data."""

    def __init__(self, name: str, address: str, peer: int, command: Sequence[str], log: Path) -> None:
        self.name = name
        self.address = address
        self.peer = peer
        self._command = command
        self._log = log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal and wait for the end."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(START_DEADLINE_S)
            self.process = None

    def log(self) -> str:
        return self._log.read_text(errors="replace")[-4000:]


class Etcd:
    """A cluster of *count* members; use it as a context, which ends its processes and removes its data."""

    def __init__(
        self,
        count: int = 1,
        *,
        certificates: Certificates | None = None,
        arguments: Sequence[str] = (),
        within: Sequence[str] = (),
        host: str = "127.0.0.1",
    ) -> None:
        self._folder = scratch()
        self.certificates = certificates
        self._within = tuple(within)
        """A command that runs another in some namespace."""
        self.root: tuple[str, ...] = ()
        """etcdctl's arguments to be root, once users are enabled."""
        ports = free_ports(2 * count)
        names = [f"m{index}" for index in range(count)]
        peers = ",".join(f"{name}=http://127.0.0.1:{ports[count + index]}" for index, name in enumerate(names))
        self.members = []
        for index, name in enumerate(names):
            scheme = "https" if certificates else "http"
            client, peer = f"{scheme}://{host}:{ports[index]}", f"http://127.0.0.1:{ports[count + index]}"
            command = [
                *within, "setpriv", "--pdeathsig", "KILL",  # it ends with us, also where we are killed
                "etcd", "--name", name, "--data-dir", f"{self._folder.name}/{name}", "--logger", "zap", "--log-level", "warn",
                "--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer,
                "--initial-advertise-peer-urls", peer, "--initial-cluster", peers, *arguments,
            ]  # fmt: skip
            if certificates:
                base = certificates.folder / "member"
                command += ["--cert-file", f"{base}.crt", "--key-file", f"{base}.key"]
                command += ["--client-cert-auth", "--trusted-ca-file", str(certificates.ca)]
            log = Path(self._folder.name) / f"{name}.log"
            self.members.append(Member(name, f"{host}:{ports[index]}", ports[count + index], command, log))

    def __enter__(self) -> Self:
        try:
            for member in self.members:
                member.start()
            self.wait_healthy()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for member in self.members:
            member.end()
        self._folder.cleanup()

    def wait_healthy(self, members: Sequence[Member] = ()) -> None:
        """Wait until each member answers a linearizable read."""
        for member in members or self.members:
            deadline = time.monotonic() + START_DEADLINE_S
            while not self._healthy(member):
                assert time.monotonic() < deadline, member.log()

    def _healthy(self, member: Member) -> bool:
        done = self._etcdctl([member], "endpoint", "health", "--command-timeout", "1s", *self.root)
        return done.returncode == 0

    def ctl(self, *arguments: str, stdin: str = "") -> str:
        """Run etcdctl on all members that run; its output."""
        done = self._etcdctl([member for member in self.members if member.process], *arguments, *self.root, stdin=stdin)
        assert 0 == done.returncode, done.stderr
        return done.stdout

    def _etcdctl(self, members: Sequence[Member], *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        command = [*self._within, "etcdctl", "--endpoints", ",".join(member.address for member in members)]
        if self.certificates:
            folder = self.certificates.folder
            command += [
                "--cacert",
                f"{folder}/ca.crt",
                "--cert",
                f"{folder}/client.crt",
                "--key",
                f"{folder}/client.key",
            ]
        environment = {**os.environ, "ETCDCTL_API": "3"}
        return subprocess.run(
            [*command, *arguments],
            env=environment,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def leader(self) -> Member:
        """The member that leads."""
        found: list[Member] = []

        def one() -> bool:
            running = [member for member in self.members if member.process]
            for member in running:
                status = self._etcdctl([member], "endpoint", "status", "-w", "simple", *self.root)
                fields = status.stdout.split(", ")
                if status.returncode == 0 and len(fields) > 4 and fields[4] == "true":
                    found.append(member)
            return bool(found)

        poll(one, START_DEADLINE_S)
        return found[-1]

    @property
    def options(self) -> EtcdOptions:
        """How to reach the cluster without a user."""
        members = tuple(member.address for member in self.members)
        if not self.certificates:
            return EtcdOptions(members)
        folder = self.certificates.folder
        return EtcdOptions(
            members,
            tls=True,
            ca=str(folder / "ca.crt"),
            cert=str(folder / "client.crt"),
            key=str(folder / "client.key"),
        )

    def store(self) -> EtcdStore:
        return EtcdStore(self.options)

    def empty(self) -> None:
        """Delete every key."""
        self.ctl("del", "", "--prefix")

    def compact(self, revision: int) -> None:
        """Do what the cluster's own compaction does."""
        self.ctl("compact", str(revision))

    def revision(self) -> int:
        fields = self.ctl("get", "x", "-w", "json")
        return int(fields.partition('"revision":')[2].partition(",")[0])


def quick() -> Etcd:
    """One member whose leases may be as short as a second: etcd's least is one and a half election timeouts."""
    return Etcd(arguments=("--heartbeat-interval", "10", "--election-timeout", "100"))


def poll(condition: Callable[[], bool], deadline_s: float) -> None:
    """Wait until *condition* holds."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come to hold"
        time.sleep(0.02)
