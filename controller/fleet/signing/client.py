"""A Signer that asks the signer's process: this process then holds no key that a node believes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from controller.fleet.identity.authorities import Arrangement, Authorities
from controller.fleet.identity.authority import IssuedCertificate
from controller.fleet.signing.messages import (
    LENGTH_BYTES,
    MAX_BATCH,
    MAX_BATCH_BYTES,
    Answer,
    ArrangeAuthorities,
    Identify,
    IssueNode,
    IssueServer,
    ListAuthorities,
    ListKeys,
    Request,
    RevokeJobKey,
    RotateJobKey,
    SignDocument,
    Signed,
    SignerIdentity,
    SignerKeys,
    SignJobs,
    decode_answer,
    decode_length,
    encode_message,
    parse_error,
    render_error,
)
from controller.fleet.signing.signer import LocalSigner, Signer
from controller.settings import Settings
from shared.audit_proof import CHECKPOINT_TYPE
from shared.errors import BugError, FleetError, ProtocolError, UnavailableError
from shared.protocol.envelope import JOB_TYPE, TRUST_TYPE, Envelope
from shared.protocol.grant import GRANT_TYPE
from shared.protocol.release import RELEASE_KEYS_TYPE, RELEASE_TYPE, ReleaseKey
from shared.protocol.trust import JobKey

TIMEOUT_SECONDS: Final = 10.0
PATIENCE: Final = (0.0, 0.1, 0.4, 1.0)
"""Seconds before each attempt to reach a signer that restarts; every request may be asked twice."""
T = TypeVar("T")


def make_signer(settings: Settings) -> Signer:
    """The signer's process where the settings name its socket; else keys of our own."""
    if settings.signer_socket is None:
        return LocalSigner(settings.data_dir / "pki")
    return SignerClient(settings.signer_socket)


class SignerClient:
    """One connection, made when it is needed and again after it was lost. Jobs asked for at once go in one message."""

    def __init__(self, path: Path, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._path = path
        self._timeout = timeout_seconds
        self._identity: SignerIdentity | None = None
        self._numbers = itertools.count(1)
        self._connecting = asyncio.Lock()
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._asked: dict[int, asyncio.Future[Answer]] = {}
        self._batch: list[tuple[bytes, asyncio.Future[Envelope]]] = []
        self._flushing: asyncio.Task[None] | None = None

    # --- who it is ----------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Learn cluster and root key; blocks for a moment. Again: nothing happens."""
        if self._identity is None:
            self._identity = self._ask_blocking(Identify(n=0), SignerIdentity)

    @property
    def _known(self) -> SignerIdentity:
        if self._identity is None:
            raise BugError("the signer was not opened")
        return self._identity

    @property
    def cluster_id(self) -> str:
        """UUID of this fleet."""
        return self._known.cluster_id

    @property
    def root_kid(self) -> str:
        """Key id of the root key."""
        return self._known.root_kid

    @property
    def root_public_key(self) -> bytes:
        """32 bytes of Ed25519."""
        return self._known.root_public_key

    # --- signatures ---------------------------------------------------------------------------------------------------

    async def sign_job(self, payload: bytes) -> Envelope:
        """Signatures by every job key that is valid now."""
        future: asyncio.Future[Envelope] = asyncio.get_running_loop().create_future()
        self._batch.append((payload, future))
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush(), name="signer-batch")
        return await future

    async def _flush(self) -> None:
        """Send what was asked for until now, and again what was asked for meanwhile."""
        while self._batch:
            batch = self._take_batch()
            try:
                request = SignJobs(n=next(self._numbers), payloads=tuple(payload for payload, _ in batch))
                signed = await self._ask(request, tuple[Signed, ...])
            except FleetError as error:
                _settle_all(batch, error)
            else:
                for (payload, future), one in zip(batch, signed, strict=True):
                    _settle(future, JOB_TYPE, payload, one)

    def _take_batch(self) -> list[tuple[bytes, asyncio.Future[Envelope]]]:
        size_bytes = count = 0
        for payload, _ in self._batch[:MAX_BATCH]:
            size_bytes += len(payload)
            if count and size_bytes > MAX_BATCH_BYTES:
                break
            count += 1
        batch, self._batch = self._batch[:count], self._batch[count:]
        return batch

    async def sign_trust(self, payload: bytes) -> Envelope:
        """The root key's signature over a trust bundle."""
        return await self._sign_document(TRUST_TYPE, payload)

    async def sign_grant(self, payload: bytes) -> Envelope:
        """Signatures over a stream grant by every job key that is valid now."""
        return await self._sign_document(GRANT_TYPE, payload)

    async def sign_release(self, payload: bytes) -> Envelope:
        """Signatures over a release's manifest."""
        return await self._sign_document(RELEASE_TYPE, payload)

    async def sign_release_keys(self, payload: bytes) -> Envelope:
        """The root key's signature over a list of release keys."""
        return await self._sign_document(RELEASE_KEYS_TYPE, payload)

    async def sign_checkpoint(self, payload: bytes) -> Envelope:
        """The root key's signature over the end of the audit log."""
        return await self._sign_document(CHECKPOINT_TYPE, payload)

    async def _sign_document(self, payload_type: str, payload: bytes) -> Envelope:
        request = SignDocument(n=next(self._numbers), payload_type=payload_type, payload=payload)
        signed = await self._ask(request, Signed)
        return Envelope(payload_type=payload_type, payload=payload, signatures=signed.signatures)

    # --- keys ---------------------------------------------------------------------------------------------------------

    async def _list_keys(self) -> SignerKeys:
        return await self._ask(ListKeys(n=next(self._numbers)), SignerKeys)

    async def current_job_keys(self) -> tuple[JobKey, ...]:
        """Public halves of all job keys that have not ended."""
        return (await self._list_keys()).jobs

    async def revoked_job_keys(self) -> tuple[str, ...]:
        """Key ids that nodes are to be told not to believe."""
        return (await self._list_keys()).revoked

    async def current_release_keys(self) -> tuple[ReleaseKey, ...]:
        """Public halves of the release keys that sign now."""
        return (await self._list_keys()).releases

    async def rotate_job_key(self) -> JobKey:
        """A new job key now."""
        return await self._ask(RotateJobKey(n=next(self._numbers)), JobKey)

    async def revoke_job_key(self, kid: str) -> None:
        """Never sign with this key again."""
        await self._ask(RevokeJobKey(n=next(self._numbers), kid=kid), type(None))

    # --- certificates -------------------------------------------------------------------------------------------------

    async def issue_node_certificate(self, csr_pem: str, *, node_id: str) -> IssuedCertificate:
        """A client certificate for the request's public key."""
        request = IssueNode(n=next(self._numbers), csr_pem=csr_pem, node_id=node_id)
        return await self._ask(request, IssuedCertificate)

    def issue_server_certificate(self, csr_pem: str, names: tuple[str, ...]) -> str:
        """A listener's certificate and its authority, as PEM; blocks for a moment."""
        return self._ask_blocking(IssueServer(n=0, csr_pem=csr_pem, names=names), str)

    def read_authorities(self) -> Authorities:
        """Who is trusted and who issues; blocks for a moment."""
        return self._ask_blocking(ListAuthorities(n=0), Authorities)

    async def list_authorities(self) -> Authorities:
        """Who is trusted and who issues."""
        return await self._ask(ListAuthorities(n=next(self._numbers)), Authorities)

    async def arrange_authorities(self, arrangement: Arrangement) -> Authorities:
        """Make it so."""
        request = ArrangeAuthorities(n=next(self._numbers), arrangement=arrangement)
        return await self._ask(request, Authorities)

    # --- the socket ---------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Let go of the connection."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _ask(self, request: Request, kind: type[T]) -> T:
        message = encode_message(request)
        failure: Exception | None = None
        for pause_seconds in PATIENCE:
            await asyncio.sleep(pause_seconds)
            try:
                async with asyncio.timeout(self._timeout):
                    return _open_answer(await self._exchange(request.n, message), kind)
            except (OSError, TimeoutError, ProtocolError) as error:
                failure = error
        raise _unreachable(self._path) from failure

    async def _exchange(self, number: int, message: bytes) -> Answer:
        writer = await self._connect()
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._asked[number] = future
        try:
            writer.write(message)
            await writer.drain()
            return await future
        finally:
            self._asked.pop(number, None)

    async def _connect(self) -> asyncio.StreamWriter:
        async with self._connecting:
            if self._writer is None:
                reader, self._writer = await asyncio.open_unix_connection(str(self._path))
                self._reading = asyncio.create_task(self._read(reader, self._writer), name="signer-answers")
            return self._writer

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                length = decode_length(await reader.readexactly(LENGTH_BYTES))
                answer = decode_answer(await reader.readexactly(length))
                future = self._asked.get(answer.n)
                if future is not None and not future.done():
                    future.set_result(answer)
        except (OSError, asyncio.IncompleteReadError, ProtocolError) as error:
            lost = ConnectionResetError(f"the signer went away: {error}")
            for future in self._asked.values():
                if not future.done():
                    future.set_exception(lost)
        finally:
            if self._writer is writer:
                self._writer = None
            writer.close()

    def _ask_blocking(self, request: Request, kind: type[T]) -> T:
        """With a connection of its own: before there is an event loop, and from threads."""
        try:
            with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as connection:
                connection.settimeout(self._timeout)
                connection.connect(str(self._path))
                connection.sendall(encode_message(request))
                with connection.makefile("rb") as stream:
                    length = decode_length(stream.read(LENGTH_BYTES).rjust(LENGTH_BYTES, b"\xff"))
                    answer = decode_answer(stream.read(length))
        except (OSError, ProtocolError) as error:
            raise _unreachable(self._path) from error
        return _open_answer(answer, kind)


def _open_answer(answer: Answer, kind: type[T]) -> T:
    if answer.error is not None:
        raise parse_error(answer.error)
    result: Any = msgspec.msgpack.decode(answer.result, type=kind)
    return result  # type: ignore[no-any-return] # decoded as exactly this kind


def _settle(future: asyncio.Future[Envelope], payload_type: str, payload: bytes, signed: Signed) -> None:
    if future.done():
        return  # who asked has given up
    if signed.error is not None:
        future.set_exception(parse_error(signed.error))
    else:
        future.set_result(Envelope(payload_type=payload_type, payload=payload, signatures=signed.signatures))


def _settle_all(batch: list[tuple[bytes, asyncio.Future[Envelope]]], error: FleetError) -> None:
    for payload, future in batch:
        _settle(future, JOB_TYPE, payload, Signed(error=render_error(error)))


def _unreachable(path: Path) -> UnavailableError:
    return UnavailableError(f"the signer does not answer on {path}", hint="systemctl status wcp-signer")
