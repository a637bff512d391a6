"""`wcpd signer`: the one process that can read the private keys. It has no network, only a unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import signal
import socket
import struct
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import structlog

from controller.db.base import utc_now
from controller.fleet.signing.messages import (
    LENGTH_BYTES,
    Answer,
    AnyRequest,
    ArrangeAuthorities,
    Identify,
    IssueNode,
    IssueServer,
    ListAuthorities,
    ListKeys,
    RevokeJobKey,
    RotateJobKey,
    SignDocument,
    Signed,
    SignerIdentity,
    SignerKeys,
    SignJobs,
    decode_length,
    decode_request,
    encode_message,
    encode_result,
    render_error,
)
from controller.fleet.signing.policy import Rates, require_document, require_job, require_node_id
from controller.fleet.signing.signer import LocalSigner
from controller.notify import notify_systemd
from controller.settings import Settings
from shared.errors import FleetError, InvalidInputError, ProtocolError, UnavailableError

DEFAULT_USER: Final = "wcp360"
SOCKET_MODE: Final = 0o660
IDLE_SECONDS: Final = 3600.0
"""A connection that says nothing for so long is closed; the client comes back when it needs something."""
_PEERCRED: Final = struct.Struct("3i")
"""struct ucred: pid, uid, gid. Source: unix(7), SO_PEERCRED."""

_log = structlog.get_logger("controller.signer")


class SignerServer:
    """Answers the other processes of the controller."""

    def __init__(
        self, signer: LocalSigner, path: Path, *, allowed_uids: frozenset[int], clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._signer = signer
        self._path = path
        self._allowed = allowed_uids
        self._clock = clock
        self._rates = Rates()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Open the keys and listen.

        Raises:
            UnavailableError: A key cannot be read, or another signer listens there.
            OSError: The socket cannot be made.
        """
        self._signer.open()
        await asyncio.to_thread(_remove_dead_socket, self._path)
        self._server = await asyncio.start_unix_server(self._serve, path=str(self._path))
        self._path.chmod(SOCKET_MODE)
        _log.info("signer.ready", socket=str(self._path), cluster_id=self._signer.cluster_id)

    async def stop(self) -> None:
        """Close; who waits for an answer asks the next signer."""
        if self._server is None:
            return
        self._server.close()
        for writer in tuple(self._writers):
            writer.close()
        await self._server.wait_closed()
        self._server = None
        self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        uid = _read_peer_uid(writer)
        if uid not in self._allowed:
            _log.warning("signer.stranger", uid=uid)
            writer.close()
            return
        self._writers.add(writer)
        try:
            while True:
                async with asyncio.timeout(IDLE_SECONDS):
                    length = decode_length(await reader.readexactly(LENGTH_BYTES))
                    body = await reader.readexactly(length)
                writer.write(encode_message(await self._answer(decode_request(body), uid)))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # the other side went away, or has nothing to say
        except ProtocolError as error:
            _log.warning("signer.nonsense", uid=uid, error=error.message)
        finally:
            self._writers.discard(writer)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, request: AnyRequest, uid: int) -> Answer:
        try:
            return Answer(n=request.n, result=encode_result(await self._act(request)))
        except FleetError as error:
            _log.warning("signer.refused", uid=uid, request=type(request).__name__, code=error.code, why=error.message)
            return Answer(n=request.n, error=render_error(error))

    async def _act(self, request: AnyRequest) -> Any:
        signer = self._signer
        match request:
            case SignJobs():
                return tuple([await self._sign_job(payload) for payload in request.payloads])
            case SignDocument():
                return await self._sign_document(request)
            case Identify():
                return SignerIdentity(
                    cluster_id=signer.cluster_id, root_kid=signer.root_kid, root_public_key=signer.root_public_key
                )
            case ListKeys():
                return SignerKeys(
                    jobs=await signer.current_job_keys(),
                    revoked=await signer.revoked_job_keys(),
                    releases=await signer.current_release_keys(),
                )
            case ListAuthorities():
                return signer.read_authorities()
            case _:
                return await self._change(request)

    async def _change(self, request: RotateJobKey | RevokeJobKey | IssueNode | IssueServer | ArrangeAuthorities) -> Any:
        signer = self._signer
        self._rates.require(_RATE_OF[type(request)])
        match request:
            case RotateJobKey():
                key = await signer.rotate_job_key()
                _log.info("signer.rotated", kid=key.kid)
                return key
            case RevokeJobKey():
                await signer.revoke_job_key(request.kid)
                _log.warning("signer.revoked", kid=request.kid)
                return None
            case IssueNode():
                node_id = require_node_id(request.node_id)
                issued = await signer.issue_node_certificate(request.csr_pem, node_id=node_id)
                _log.info("signer.certificate", node_id=node_id, serial=issued.serial, issuer=issued.issuer)
                return issued
            case IssueServer():
                _log.info("signer.server_certificate", names=list(request.names))
                return signer.issue_server_certificate(request.csr_pem, request.names)
            case ArrangeAuthorities():
                authorities = await signer.arrange_authorities(request.arrangement)
                _log.info("signer.authorities", trusted=list(request.arrangement.trusted), issuer=authorities.issuer)
                return authorities

    async def _sign_job(self, payload: bytes) -> Signed:
        try:
            job = require_job(payload, cluster_id=self._signer.cluster_id, now=self._clock())
            self._rates.require("actor", job.actor)
            self._rates.require("action", job.action)
            envelope = await self._signer.sign_job(payload)
        except FleetError as error:
            _log.warning("signer.job_refused", code=error.code, why=error.message)
            return Signed(error=render_error(error))
        ids = {"job_id": job.job_id, "node_id": job.node_id, "request_id": job.request_id}
        _log.info("signer.job", action=job.action, actor=job.actor, seq=job.seq, **ids)
        return Signed(signatures=envelope.signatures)

    async def _sign_document(self, request: SignDocument) -> Signed:
        kind = await require_document(request.payload_type, request.payload, signer=self._signer, now=self._clock())
        self._rates.require(kind)
        envelope = await self._signer.sign_document(request.payload_type, request.payload)
        _log.info("signer.document", type=request.payload_type, bytes=len(request.payload))
        return Signed(signatures=envelope.signatures)


_RATE_OF: Final[dict[type, str]] = {
    RotateJobKey: "rotate",
    RevokeJobKey: "revoke",
    IssueNode: "node",
    IssueServer: "server",
    ArrangeAuthorities: "arrange",
}


async def run_signer(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        InvalidInputError: No socket is named, or a user is not known.
        UnavailableError: A key cannot be read, or another signer runs.
    """
    if settings.signer_socket is None:
        raise InvalidInputError("setting signer_socket: name the socket that the signer shall serve")
    server = SignerServer(
        LocalSigner(settings.data_dir / "pki"),
        settings.signer_socket,
        allowed_uids=find_uids(settings.signer_users or (DEFAULT_USER,)),
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await server.start()
    notify_systemd("READY=1")
    try:
        await stop.wait()
    finally:
        notify_systemd("STOPPING=1")
        await server.stop()


def find_uids(users: Iterable[str]) -> frozenset[int]:
    """Root, ourselves, and those of the named users that exist here."""
    uids = {0, os.getuid()}
    for user in users:
        try:
            uids.add(pwd.getpwnam(user).pw_uid)
        except KeyError:
            _log.warning("signer.unknown_user", user=user)
    return frozenset(uids)


def _read_peer_uid(writer: asyncio.StreamWriter) -> int:
    raw = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size)
    return int(_PEERCRED.unpack(raw)[1])


def _remove_dead_socket(path: Path) -> None:
    """A killed signer leaves its socket behind; a living one keeps it."""
    if not path.exists():
        return
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
            return
    raise UnavailableError(f"another signer listens on {path}", hint="Stop it first.")
