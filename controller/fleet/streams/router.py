"""Opening a stream on a node, wherever its session is: the grant is made and signed here, the bytes come from there."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from sqlalchemy import select

from controller.db.base import utc_now
from controller.db.engine import Database
from controller.fleet.models import Node, NodeState
from controller.fleet.streams.streams import NodeStream, SessionStreams
from shared.errors import AgentOfflineError, ConflictError, NotFoundError, UnavailableError
from shared.protocol.envelope import Envelope
from shared.protocol.grant import GRANT_SECONDS, StreamGrant, encode_grant
from shared.protocol.streams import STREAM_WINDOW_BYTES, STREAMS_CAPABILITY

MAX_STREAMS_PER_ACCOUNT: Final = 8
"""In one process of the controller, so that one tenant does not use up its node's streams."""


class GrantSigner(Protocol):
    """What is needed of controller.fleet.signing.signer."""

    @property
    def cluster_id(self) -> str: ...

    async def sign_grant(self, payload: bytes) -> Envelope:
        """Sign with every job key that is valid now."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRequest:
    """What is wanted of a node; who may want it was decided before."""

    node_id: str
    account: str
    uid: int
    kind: str
    path: str
    args: bytes
    max_bytes: int
    actor: str
    request_id: str
    window_bytes: int = STREAM_WINDOW_BYTES


@dataclass(frozen=True, slots=True)
class NodePlace:
    """Where a node's session is."""

    node_gen: int
    capability: int
    gateway_id: str | None


class StreamRouter(Protocol):
    """Opens streams; `Streams` is the one of a real controller."""

    async def open(self, request: StreamRequest) -> NodeStream:
        """Open a stream.

        Raises:
            NotFoundError: There is no such node.
            AgentOfflineError: The node is not connected.
            ConflictError: Its agent is too old (`outdated_agent`).
            UnavailableError: Too many streams, or the node could not open it.
        """
        ...


class RemoteStreams(Protocol):
    """Opens streams in another process of the controller."""

    async def open(self, gateway_id: str, node_id: str, grant: Envelope, *, window_bytes: int) -> NodeStream:
        """Open a stream on a node whose session is at that gateway.

        Raises:
            FleetError: As StreamRouter.open.
        """
        ...


class Streams:
    """StreamRouter of one process.

    Args:
        database: Says where a node is.
        signer: Signs the grants.
        find_local: The streams of a node whose session is in this process.
        remote: The way to the other processes; None: there are none.
    """

    def __init__(
        self,
        database: Database,
        signer: GrantSigner,
        find_local: Callable[[str], SessionStreams | None],
        *,
        remote: RemoteStreams | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._signer = signer
        self._find_local = find_local
        self._clock = clock
        self._open_of_account: Counter[tuple[str, str]] = Counter()
        self._open: set[_Counted] = set()
        self.remote = remote

    async def open(self, request: StreamRequest) -> NodeStream:
        """See StreamRouter.open."""
        place = await self._find_place(request.node_id)
        key = (request.node_id, request.account)
        if self._open_of_account[key] >= MAX_STREAMS_PER_ACCOUNT:
            raise UnavailableError(
                f"the account {request.account} has {MAX_STREAMS_PER_ACCOUNT} open streams",
                code="too_many_streams",
                hint="Close one of them, then try again.",
            )
        self._open_of_account[key] += 1
        try:
            stream = await self._open_stream(request, place)
        except BaseException:
            self._release(key)
            raise
        counted = _Counted(stream)
        self._open.add(counted)
        counted.on_close = lambda: self._note_closed(counted, key)
        return counted

    async def stop(self) -> None:
        """End every stream with a reason, so that no open request holds up the end of this process."""
        await asyncio.gather(*(counted.abort() for counted in tuple(self._open)), return_exceptions=True)

    def _note_closed(self, counted: _Counted, key: tuple[str, str]) -> None:
        self._open.discard(counted)
        self._release(key)

    async def _open_stream(self, request: StreamRequest, place: NodePlace) -> NodeStream:
        grant = await self._signer.sign_grant(self._make_grant(request, place))
        local = self._find_local(request.node_id)
        if local is not None:
            return await local.open(grant, window_bytes=request.window_bytes)
        if self.remote is None or place.gateway_id is None:
            raise AgentOfflineError("the node's agent is not connected", hint="Try again when it is.")
        return await self.remote.open(place.gateway_id, request.node_id, grant, window_bytes=request.window_bytes)

    def _make_grant(self, request: StreamRequest, place: NodePlace) -> bytes:
        now = self._clock().timestamp()
        grant = StreamGrant(
            cluster_id=self._signer.cluster_id,
            node_id=request.node_id,
            node_gen=place.node_gen,
            kind=request.kind,
            account=request.account,
            uid=request.uid,
            path=request.path,
            args=request.args,
            max_bytes=request.max_bytes,
            nonce=secrets.token_bytes(16),
            issued_at=now,
            expires_at=now + GRANT_SECONDS,
            actor=request.actor,
            request_id=request.request_id,
        )
        return encode_grant(grant)

    async def _find_place(self, node_id: str) -> NodePlace:
        columns = (Node.node_gen, Node.capability, Node.gateway_id, Node.is_connected, Node.state)
        async with self._database.read() as session:
            row = (await session.execute(select(*columns).where(Node.id == node_id))).first()
        if row is None:
            raise NotFoundError(f"there is no node {node_id[:80]!r}")
        node_gen, capability, gateway_id, is_connected, state = row
        if state is not NodeState.ACTIVE or not (is_connected or self._find_local(node_id)):
            raise AgentOfflineError("the node's agent is not connected", hint="Try again when it is.")
        if capability < STREAMS_CAPABILITY:
            raise ConflictError(
                "the node's agent is too old for streams", code="outdated_agent", hint="Update the node's agent."
            )
        return NodePlace(node_gen, capability, gateway_id)

    def _release(self, key: tuple[str, str]) -> None:
        self._open_of_account[key] -= 1
        if self._open_of_account[key] <= 0:
            del self._open_of_account[key]


class _Counted:
    """A stream that says when it is over."""

    def __init__(self, stream: NodeStream) -> None:
        self._stream = stream
        self._is_aborted = False
        self.on_close: Callable[[], None] | None = None

    async def read(self) -> bytes:
        """See NodeStream.read."""
        data = b"" if self._is_aborted else await self._stream.read()
        if self._is_aborted:
            raise UnavailableError("the controller is being restarted", hint="Go on from the last cursor in a moment.")
        return data

    async def abort(self) -> None:
        """End it for its reader, too."""
        self._is_aborted = True
        await self._stream.close()

    async def close(self) -> None:
        """See NodeStream.close."""
        on_close, self.on_close = self.on_close, None
        if on_close is not None:
            on_close()
        await self._stream.close()
