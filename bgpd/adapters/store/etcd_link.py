"""The way to an etcd cluster: members, which of them is asked, TLS, the user's token, and what an error means.

Theory of operation. Each member has a channel of its own, and one member is the present one. Before a request is sent, the
present member is known to be reachable and to have a leader (it is asked for its Status whenever there was reason to doubt);
else the members after it are asked in turn. So a dead member costs a request some milliseconds, and a write is sent only
to a member that can commit it. A write that fails once sent is not repeated: nobody knows whether it was made.

Channels are made anew when no member can be reached, so that changed certificates, names and addresses are read. The
password is read from its file whenever a token is needed, and appears in no message, log or repr.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Generic, NamedTuple, TypeVar

import grpc
import grpc.aio
import msgspec
from google.protobuf.message import Message

from bgpd.adapters import secrets
from bgpd.adapters.secrets import unfit_secret
from bgpd.adapters.store.base import Transient
from bgpd.adapters.store.proto import rpc_pb2 as rpc

WRITE_S = 5.0
"""Deadline of a write that was sent: an election (1 to 2 s) and a slow disk fit, and an operator does not wait longer."""
READ_S = 2.0
"""Deadline of one attempt at a read, which may be made again: etcd 3.4 forgets reads that were under way at an election."""
OPERATION_S = 6.0
"""How long a member that can answer is looked for, and a read is repeated, before the store counts as lost."""
PROBE_S = 1.0
"""Deadline of the question whether a member is there: connecting with TLS across a continent takes a third of it."""
PAUSE_S = 0.1
"""Pause before the members are asked again: an election takes several of these."""
RENEWALS_MAX = 3
"""Tokens fetched for one request: its own may have ended with a restarted member, and the next member may lag behind."""
RECONNECT_MAX_MS = 400
"""Longest pause of gRPC between attempts to connect, give or take a fifth (its own default is two minutes): a store that
returns is to be read within a second. A member that is down gets two or three SYNs a second from each node."""
PASSWORD_BYTES = 4096
"""Longest password file: far longer than what etcd hashes (bcrypt: 72 bytes)."""
PING_MS = 10_000
"""Interval of HTTP/2 pings while a call is open; etcd refuses clients that ping more often than each 5 s."""

_OPTIONS: Final = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", RECONNECT_MAX_MS),
    ("grpc.keepalive_time_ms", PING_MS),
    ("grpc.keepalive_timeout_ms", PING_MS // 2),
    ("grpc.http2.max_pings_without_data", 0),
    # Each of our channels has its own connection, though several may lead to one address.
    ("grpc.use_local_subchannel_pool", 1),
    # A watch from far back is answered by up to a thousand revisions at once: the server's limits are the bound.
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
)
_TOKEN_REFUSED: Final = ("etcdserver: invalid auth token", "etcdserver: revision of auth store is old")
_NO_USER: Final = "etcdserver: user name is empty"

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)


class EtcdOptions(msgspec.Struct, frozen=True):
    """How to reach a cluster. Paths may be empty; no secret is in here."""

    members: tuple[str, ...]
    """``host:port`` of each."""
    tls: bool = False
    ca: str = ""
    """Certificates to trust; empty: gRPC's own collection."""
    cert: str = ""
    key: str = ""
    server_name: str = ""
    """Name that the members' certificates must have; empty: the host as written in *members*."""
    user: str = ""
    password_file: str = ""


class Method(NamedTuple, Generic[Q, R]):
    """A call of etcd's: its path, and what comes back."""

    path: str
    response: type[R]


STATUS: Final = Method[rpc.StatusRequest, rpc.StatusResponse]("/etcdserverpb.Maintenance/Status", rpc.StatusResponse)
AUTHENTICATE: Final = Method[rpc.AuthenticateRequest, rpc.AuthenticateResponse](
    "/etcdserverpb.Auth/Authenticate", rpc.AuthenticateResponse
)


class Refused(Exception):  # noqa: N818 - what happened; the store says what it means
    """The cluster answered, and the answer is an error; nothing was done."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.details = details


class Member:
    """Owns the channel to one member."""

    def __init__(self, address: str, channel: grpc.aio.Channel) -> None:
        self.address = address
        self.channel = channel
        self.doubted = True
        """It is to be asked for its state before it is used."""

    @property
    def usable(self) -> bool:
        return not self.doubted and self.channel.get_state() is grpc.ChannelConnectivity.READY

    async def ask(self, method: Method[Q, R], request: Q, token: str, timeout_s: float) -> R:
        """Make one unary call; raises grpc.aio.AioRpcError, and Transient where the channel was closed meanwhile."""
        call: Any = self.channel.unary_unary(
            method.path, request_serializer=_serialized, response_deserializer=method.response.FromString
        )
        try:
            response: R = await call(request, timeout=timeout_s, metadata=metadata(token))
        except asyncio.CancelledError as error:
            if is_cancelling():
                raise
            raise Transient(f"{self.address}: the connection was closed") from error
        return response

    def stream(self, method: Method[Q, R], token: str, timeout_s: float | None) -> grpc.aio.StreamStreamCall[Q, R]:
        """Begin a call of two streams; what it raises is raised by its reads and writes."""
        call: Any = self.channel.stream_stream(
            method.path, request_serializer=_serialized, response_deserializer=method.response.FromString
        )
        stream: grpc.aio.StreamStreamCall[Q, R] = call(timeout=timeout_s, metadata=metadata(token))
        return stream


class Link:
    """Owns the members, the index of the present one, and the user's token."""

    def __init__(self, options: EtcdOptions) -> None:
        self._options = options
        self._members: list[Member] = []
        self._present = 0
        self._turn = asyncio.Lock()
        self._failure = ""
        self._token = ""
        self._no_auth = False
        """The cluster said that it has no users."""
        self._closed = False

    async def call(self, method: Method[Q, R], request: Q, *, repeat: bool) -> R:
        """Make a call on a member that can answer; one that fails is made again elsewhere only where *repeat* says so.

        Raises Transient (also: the outcome is unknown) and Refused.
        """
        loop = asyncio.get_running_loop()
        give_up = loop.time() + OPERATION_S
        renewals = 0
        while True:
            member = await self.member(give_up)
            token = await self.token(member)
            try:
                return await member.ask(method, request, token, READ_S if repeat else WRITE_S)
            except grpc.aio.AioRpcError as error:
                if is_token_refused(error) and renewals < RENEWALS_MAX and self._options.user:
                    renewals += 1
                    self.drop_token(token)
                    continue
                failure = self.failed(member, error)
                if not repeat or loop.time() >= give_up or self._closed:
                    raise failure from error
            await asyncio.sleep(PAUSE_S)

    async def reach(self) -> Member:
        """Return a member for a stream, as :meth:`member` does within OPERATION_S."""
        return await self.member(asyncio.get_running_loop().time() + OPERATION_S)

    async def member(self, give_up: float) -> Member:
        """Return a reachable member that knows a leader; raises Transient when none was found by *give_up* (the loop's time)."""
        while True:
            self._check_open()
            if self._members and self._members[self._present].usable:
                return self._members[self._present]
            async with self._turn:
                self._check_open()
                if self._members and self._members[self._present].usable:
                    return self._members[self._present]
                late = asyncio.get_running_loop().time() >= give_up
                # One caller looks for all: who waited until too late is told what was found.
                if not (late and self._failure) and await self._look():
                    return self._members[self._present]
                if late:
                    await self._disconnect()
                    raise Transient(self._failure)
            await asyncio.sleep(PAUSE_S)

    async def token(self, member: Member) -> str:
        """Return the user's token, fetched where there is none; empty without a user. Raises Transient."""
        if not self._options.user or self._token or self._no_auth:
            return self._token
        password = await asyncio.to_thread(read_secret, Path(self._options.password_file))
        request = rpc.AuthenticateRequest(name=self._options.user, password=password)
        try:
            response = await member.ask(AUTHENTICATE, request, "", WRITE_S)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.FAILED_PRECONDITION:
                self._no_auth = True  # users are not enabled; what they may do later is told by UNAUTHENTICATED
                return ""
            if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
                raise Transient(f"user {self._options.user!r} is refused: {error.details()}") from error
            raise self.failed(member, error) from error
        self._token = response.token
        return self._token

    def drop_token(self, token: str) -> None:
        """Forget a token that was refused, unless another caller has fetched the next one meanwhile."""
        self._no_auth = False
        if token == self._token:
            self._token = ""

    def failed(self, member: Member, error: grpc.aio.AioRpcError) -> Transient:
        """Doubt the member and go on to the next; return what to raise.

        Raises what the next member would say as well: Refused for an answer, Transient where the user may not.
        """
        code, details = error.code(), error.details() or ""
        if code is grpc.StatusCode.PERMISSION_DENIED or details == _NO_USER:
            who = f"user {self._options.user!r}" if self._options.user else "without a user"
            raise Transient(f"{member.address}: {who}: {details}") from error
        if code in {
            grpc.StatusCode.INVALID_ARGUMENT,
            grpc.StatusCode.OUT_OF_RANGE,
            grpc.StatusCode.NOT_FOUND,
            grpc.StatusCode.FAILED_PRECONDITION,
        }:
            raise Refused(code, details) from error
        reason = f"{member.address}: {details or code.name}"
        if code is not grpc.StatusCode.RESOURCE_EXHAUSTED:  # too many requests, no space: the same elsewhere
            self.doubt(member)
        return Transient(reason)

    def doubt(self, member: Member) -> None:
        """Go on to the next member, unless another caller did."""
        if not member.doubted:
            member.doubted = True
            if self._members and self._members[self._present] is member:
                self._present = (self._present + 1) % len(self._members)

    async def close(self) -> None:
        self._closed = True
        await self._disconnect()

    def _check_open(self) -> None:
        if self._closed:
            raise Transient("the store is closed")

    async def _look(self) -> bool:
        """Ask each member, from the present one on; the first that will do becomes the present one."""
        if not self._members:
            credentials = await asyncio.to_thread(_credentials, self._options)
            self._members = [Member(a, _channel(a, credentials, self._options)) for a in self._options.members]
        reasons = []
        for offset in range(len(self._members)):
            index = (self._present + offset) % len(self._members)
            member = self._members[index]
            try:
                await member.ask(STATUS, rpc.StatusRequest(), "", PROBE_S)
            except grpc.aio.AioRpcError as error:
                reasons.append(f"{member.address}: {error.details() or error.code().name}")
                continue
            member.doubted = False
            self._present = index
            self._failure = ""
            return True
        self._failure = "; ".join(reasons)
        return False

    async def _disconnect(self) -> None:
        members, self._members, self._present = self._members, [], 0
        for member in members:
            await member.channel.close()


def is_cancelling() -> bool:
    """Say whether this task is being cancelled; gRPC raises CancelledError also when somebody closed the channel."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def is_token_refused(error: grpc.aio.AioRpcError) -> bool:
    """Say whether another token may help; the call was not made."""
    details = error.details() or ""
    return error.code() is grpc.StatusCode.UNAUTHENTICATED or details.startswith((*_TOKEN_REFUSED, _NO_USER))


def metadata(token: str) -> tuple[tuple[str, str], ...]:
    """Return what goes with each call: the token, and that a member without a leader is to refuse it, or to end it then."""
    return (("hasleader", "true"), *((("token", token),) if token else ()))


def read_secret(path: Path) -> str:
    """Read a password; raises Transient, since the file may be mended while we wait."""
    try:
        password = secrets.read(path, PASSWORD_BYTES).decode().rstrip("\r\n")
    except secrets.Unfit as unfit:
        raise Transient(f"{path}: {unfit}") from unfit
    except UnicodeDecodeError:
        raise Transient(f"{path}: the password is not UTF-8 text") from None
    if not password:
        raise Transient(f"{path}: the file is empty")
    return password


def is_loopback(address: str) -> bool:
    """Say whether ``host:port`` is on this machine, so that nobody hears what is sent in the clear."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _channel(address: str, credentials: grpc.ChannelCredentials | None, options: EtcdOptions) -> grpc.aio.Channel:
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=_OPTIONS)
    named: Sequence[tuple[str, Any]] = (
        (("grpc.ssl_target_name_override", options.server_name),) if options.server_name else ()
    )
    return grpc.aio.secure_channel(address, credentials, options=(*_OPTIONS, *named))


def _credentials(options: EtcdOptions) -> grpc.ChannelCredentials | None:
    """Read the certificates; raises Transient where a file cannot be read."""
    if not options.tls:
        return None
    ca, cert, key = (_bytes(path) for path in (options.ca, options.cert, options.key))
    if options.key and (reason := unfit_secret(Path(options.key))):
        raise Transient(f"{options.key}: {reason}")
    return grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=cert)


def _bytes(path: str) -> bytes | None:
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise Transient(f"{path}: the file cannot be read: {error.strerror}") from error


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()
