"""Streams between processes of the controller: whoever serves a request asks the gateway that has the node's session.

One WebSocket for each stream, on the agents' listener, with a controller's own certificate at both ends. What the
asking process does not read fills the socket, and then the gateway reads no more from the node.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from sqlalchemy import select
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Subprotocol

from controller.db.engine import Database
from controller.fleet.gateway.presence_models import ProcessRow
from controller.fleet.identity.authority import ServerCertificate
from controller.fleet.identity.server_certificate import controller_identity
from controller.fleet.streams.streams import NodeStream, SessionStreams, stream_error
from shared.errors import AgentOfflineError, FleetError, ProtocolError, UnavailableError
from shared.protocol.envelope import Envelope
from shared.protocol.frames import SUBPROTOCOL
from shared.protocol.streams import STREAM_WINDOW_BYTES

PEER_PATH: Final = "/internal/v1/streams"
CONNECT_SECONDS: Final = 10.0
OPEN_SECONDS: Final = 75.0
"""Longer than the gateway waits for its node."""
CLOSE_SECONDS: Final = 2.0
MAX_MESSAGE_BYTES: Final = 256 * 1024


class PeerAsk(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The first message: which stream is wanted."""

    node_id: str
    grant: Envelope
    window_bytes: int = STREAM_WINDOW_BYTES


class PeerEnd(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A text message: the stream is open (the first one) or has ended (the second). An empty code means in order."""

    code: str = ""
    message: str = ""


def is_controller(certificate: Mapping[str, Any] | None, cluster_id: str) -> bool:
    """Whether a verified certificate (as ssl.SSLObject.getpeercert gives it) is a controller's."""
    names = (certificate or {}).get("subjectAltName", ())
    return ("URI", controller_identity(cluster_id)) in names


# --- the gateway's side ---------------------------------------------------------------------------------------------


async def serve_peer(connection: ServerConnection, find_streams: Callable[[str], SessionStreams | None]) -> None:
    """Serve one stream to another process of the controller, until it ends or the other one has enough."""
    stream: NodeStream | None = None
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            ask = _decode_ask(await connection.recv(decode=False))
        streams = find_streams(ask.node_id)
        if streams is None:
            raise AgentOfflineError("the node's session is not here any more")
        stream = await _unless_closed(connection, streams.open(ask.grant, window_bytes=ask.window_bytes))
        await _say(connection, PeerEnd())
        await _unless_closed(connection, _pass_on(stream, connection))
        await _say(connection, PeerEnd())
    except FleetError as error:
        await _say(connection, PeerEnd(code=error.code, message=error.message))
    except (ConnectionClosed, TimeoutError, asyncio.CancelledError):
        pass  # the other process has gone, or this one goes
    finally:
        if stream is not None:
            await stream.close()


async def _pass_on(stream: NodeStream, connection: ServerConnection) -> None:
    while data := await stream.read():
        await connection.send(data)


async def _unless_closed(connection: ServerConnection, work: Any) -> Any:
    """The result of the work; a connection that closes meanwhile ends it."""
    working = asyncio.ensure_future(work)
    closing = asyncio.ensure_future(connection.wait_closed())
    try:
        await asyncio.wait((working, closing), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            working.cancel()
        return await working
    finally:
        closing.cancel()
        working.cancel()


async def _say(connection: ServerConnection, end: PeerEnd) -> None:
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await connection.send(msgspec.json.encode(end).decode())
    except (ConnectionClosed, TimeoutError):
        return


def _decode_ask(raw: bytes) -> PeerAsk:
    try:
        return msgspec.msgpack.decode(raw, type=PeerAsk)
    except msgspec.MsgspecError as error:
        raise ProtocolError(f"not a question for a stream: {error}", code="bad_frame") from error


# --- the asking side --------------------------------------------------------------------------------------------------


class RemoteStream:
    """NodeStream whose bytes come from another process of the controller."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._end: FleetError | None = None
        self._is_ended = False

    async def read(self) -> bytes:
        """See NodeStream.read."""
        while not self._is_ended:
            try:
                message = await self._connection.recv()
            except ConnectionClosed:
                self._is_ended = True
                self._end = self._end or AgentOfflineError("the gateway of the node went away", hint="Try again.")
                break
            if isinstance(message, bytes):
                return message
            self._is_ended, self._end = True, parse_end(message)
        if self._end is not None:
            raise self._end
        return b""

    async def close(self) -> None:
        """See NodeStream.close."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._connection.close()
        except TimeoutError:
            self._connection.transport.abort()


class PeerStreams:
    """RemoteStreams over the other processes' gateways.

    Args:
        database: Says where the other gateways are.
        cluster_id: Whose controllers are believed.
        certificate: What this process shows.
        read_ca_pem: The authorities of the fleet.
    """

    def __init__(
        self,
        database: Database,
        *,
        cluster_id: Callable[[], str],
        certificate: Callable[[], ServerCertificate],
        read_ca_pem: Callable[[], Any],
    ) -> None:
        self._database = database
        self._cluster_id = cluster_id
        self._certificate = certificate
        self._read_ca_pem = read_ca_pem

    async def open(self, gateway_id: str, node_id: str, grant: Envelope, *, window_bytes: int) -> NodeStream:
        """See RemoteStreams.open."""
        connection = await self._connect(gateway_id)
        stream = RemoteStream(connection)
        try:
            ask = PeerAsk(node_id=node_id, grant=grant, window_bytes=window_bytes)
            async with asyncio.timeout(OPEN_SECONDS):
                await connection.send(msgspec.msgpack.encode(ask))
                error = parse_end(await connection.recv(decode=True))
        except (ConnectionClosed, TimeoutError) as failed:
            await stream.close()
            raise UnavailableError("the node's gateway did not answer in time", code="stream_timeout") from failed
        except BaseException:
            await stream.close()
            raise
        if error is not None:
            await stream.close()
            raise error
        return stream

    async def _connect(self, gateway_id: str) -> ClientConnection:
        async with self._database.read() as session:
            statement = select(ProcessRow.address).where(ProcessRow.id == gateway_id)
            address = (await session.execute(statement)).scalar_one_or_none()
        if not address:
            raise AgentOfflineError("the node's gateway is not known (any more)", hint="Try again in a moment.")
        try:
            connection = await connect(
                f"wss://{address}{PEER_PATH}",
                ssl=await self._make_context(),
                server_hostname="controller",  # the name inside the certificate is checked below
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                compression=None,
                max_size=MAX_MESSAGE_BYTES,
                max_queue=4,
                open_timeout=CONNECT_SECONDS,
                close_timeout=CLOSE_SECONDS,
                user_agent_header=None,
                proxy=None,
            )
        except (OSError, InvalidHandshake, EOFError) as error:
            raise UnavailableError(
                f"the node's gateway at {address} cannot be reached: {error}",
                code="gateway_unreachable",
                hint="Can this process reach the gateway's port? See internal_address in docs/operations.",
            ) from error
        tls = connection.transport.get_extra_info("ssl_object")
        if not is_controller(tls.getpeercert(), self._cluster_id()):
            connection.transport.abort()
            raise UnavailableError(f"what answers at {address} is no controller", code="gateway_unreachable")
        return connection

    async def _make_context(self) -> ssl.SSLContext:
        certificate = self._certificate()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        # Gateways are reached by addresses that no certificate holds; who answers is told by the name checked above.
        context.check_hostname = False
        context.load_verify_locations(cadata=await self._read_ca_pem())
        context.load_cert_chain(certificate.chain_path, certificate.key_path)
        return context


def parse_end(message: str | bytes) -> FleetError | None:
    """How the stream stands; None: well."""
    try:
        end = msgspec.json.decode(message, type=PeerEnd)
    except msgspec.MsgspecError as error:
        return UnavailableError(f"the gateway sent something else than its word: {error}", code="stream_lost")
    return stream_error(end.code, end.message) if end.code else None
