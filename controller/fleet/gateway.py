"""The agents' listener: mutual TLS, one WebSocket per node, and the loops that keep an eye on all of them.

A listener of its own, because no ASGI server hands the client's certificate to the application.
"""

from __future__ import annotations

import asyncio
import asyncio.sslproto
import http
import random
import ssl
import uuid
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from weakref import WeakKeyDictionary

import structlog
from sqlalchemy.exc import SQLAlchemyError
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from controller.db.engine import Database
from controller.fleet.authority import ServerCertificate, fingerprint_of
from controller.fleet.metrics import NodeSample, SampleKeeper
from controller.fleet.ports import Publisher, Reconverge
from controller.fleet.session import CLOSE_TRY_AGAIN, NodeSession
from controller.fleet.sessions import (
    Admitted,
    OpenedSession,
    admit,
    find_outsiders,
    mark_heard,
    mark_silent,
    write_heartbeats,
)
from controller.jobs import offers
from controller.jobs.engine import JobEngine
from controller.jobs.loops import Loops
from shared.errors import FleetError, ForbiddenError
from shared.protocol.envelope import Envelope
from shared.protocol.frames import GATEWAY_PATH, MAX_FRAME_BYTES, SUBPROTOCOL, Metrics

# CPython keeps a read buffer of 256 KiB for every TLS connection (asyncio/sslproto.py, SSLProtocol.max_size); with
# 16 KiB a thousand idle agents cost 63 MB instead of 300 MB, measured. Not documented, so a test holds it to account.
TLS_BUFFER_BYTES: Final = 16 * 1024
asyncio.sslproto.SSLProtocol.max_size = TLS_BUFFER_BYTES

POLL_SECONDS: Final = 1.5
"""How long a lost hint delays an offer, and how long a revoked node may stay."""
HEARTBEAT_FLUSH_SECONDS: Final = 5.0
OFFLINE_GRACE_SECONDS: Final = 10.0
DRAIN_SECONDS: Final = 5.0
"""Window over which agents spread their return after a restart; a larger fleet gets more (see _drain_window)."""
_IDS_PER_QUERY: Final = 500

_log = structlog.get_logger("controller.gateway")


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayOptions:
    """How the gateway listens and what it tells the agents."""

    host: str
    port: int
    """0 takes any free port."""
    heartbeat_seconds: float
    metrics_seconds: float
    drift_check_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayParts:
    """What the gateway works with."""

    database: Database
    engine: JobEngine
    publisher: Publisher
    reconverge: Reconverge
    read_trust: Callable[[], Coroutine[Any, Any, tuple[int, Envelope]]]
    clock: Callable[[], datetime]


class Gateway:
    """All sessions of this process."""

    def __init__(self, options: GatewayOptions, parts: GatewayParts) -> None:
        self._options = options
        self._parts = parts
        self.gateway_id = str(uuid.uuid4())
        self._sessions: dict[str, NodeSession] = {}
        self._admitted: WeakKeyDictionary[ServerConnection, Admitted] = WeakKeyDictionary()
        self._beats: dict[str, datetime] = {}
        self._samples = SampleKeeper(options.metrics_seconds, parts.clock)
        self._loops = Loops()
        self._server: Server | None = None
        self._context: ssl.SSLContext | None = None

    # --- life ---------------------------------------------------------------------------------------------------------

    async def start(self, certificate: ServerCertificate, ca_path: str) -> None:
        """Listen.

        Raises:
            OSError: The port is taken.
        """
        self._context = make_server_context(certificate, ca_path)
        self._server = await serve(
            self._handle_connection,
            self._options.host,
            self._options.port,
            ssl=self._context,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            process_request=self._admit,
            compression=None,  # 90 kB of zlib windows per agent for frames of 300 bytes
            server_header=None,
            max_size=MAX_FRAME_BYTES,
            max_queue=4,
            ping_interval=30,
            ping_timeout=60,
            open_timeout=20,
            close_timeout=5,
            backlog=1024,
        )
        for loop in (self._run_poll, self._run_heartbeats):
            self._loops.spawn(loop())

    async def stop(self) -> None:
        """Say goodbye to every agent, then close."""
        sessions = list(self._sessions.values())
        window = _drain_window(len(sessions))
        await asyncio.gather(*(session.drain(window) for session in sessions))
        if self._server is not None:
            self._server.close(code=1012, reason="restart")
            await self._server.wait_closed()
            self._server = None
        await self._loops.stop()

    def use_certificate(self, certificate: ServerCertificate) -> None:
        """Show another certificate to agents that connect from now on."""
        if self._context is not None:
            self._context.load_cert_chain(certificate.chain_path, certificate.key_path)

    @property
    def port(self) -> int:
        """Where it really listens."""
        if self._server is None:
            return self._options.port
        return int(next(iter(self._server.sockets)).getsockname()[1])

    # --- what others ask ----------------------------------------------------------------------------------------------

    @property
    def connected_ids(self) -> frozenset[str]:
        """Nodes with a session in this process."""
        return frozenset(self._sessions)

    def connected_since(self) -> dict[str, datetime]:
        """Node id to the begin of its session."""
        return {node_id: session.opened_at for node_id, session in self._sessions.items()}

    def latest_metrics(self) -> dict[str, NodeSample]:
        """Node id to its last sample, for nodes with a session in this process; old ones are left out."""
        return self._samples.list_fresh()

    def find_metrics(self, node_id: str) -> NodeSample | None:
        """The node's last sample, unless it is old or the node has no session in this process."""
        return self._samples.find(node_id)

    def offer_soon(self, node_id: str) -> None:
        """There is something to send to this node."""
        session = self._sessions.get(node_id)
        if session is not None:
            session.hint()

    def check_soon(self) -> None:
        """Somebody may have been revoked, or a job cancelled: look now instead of at the next poll."""
        self._loops.spawn(self._look_after_all())

    async def offer_trust(self, version: int, envelope: Envelope) -> None:
        """Give every connected node the new bundle."""
        _log.info("gateway.trust", version=version, nodes=len(self._sessions))
        offered = (session.offer_trust(envelope) for session in list(self._sessions.values()))
        await asyncio.gather(*offered, return_exceptions=True)  # who is gone now gets it at the next hello

    # --- a connection -------------------------------------------------------------------------------------------------

    async def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """Before the upgrade, so that the agent sees a plain HTTP status."""
        if request.path != GATEWAY_PATH:
            return connection.respond(http.HTTPStatus.NOT_FOUND, "there is nothing here\n")
        tls = connection.transport.get_extra_info("ssl_object")
        der = tls.getpeercert(binary_form=True) if tls is not None else None
        if der is None:
            return connection.respond(http.HTTPStatus.FORBIDDEN, "certificate_unknown\n")
        try:
            async with self._parts.database.read() as session:
                self._admitted[connection] = await admit(session, fingerprint_of(der), now=self.now())
        except ForbiddenError as error:
            _log.warning("gateway.refused", code=error.code, address=str(connection.remote_address))
            return connection.respond(http.HTTPStatus.FORBIDDEN, f"{error.code}\n")
        except SQLAlchemyError as error:
            _log.warning("gateway.database", error=str(error))
            response = connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "unavailable\n")
            response.headers["Retry-After"] = "5"
            return response
        return None

    async def _handle_connection(self, connection: ServerConnection) -> None:
        admitted = self._admitted.get(connection)
        if admitted is None or connection.subprotocol != SUBPROTOCOL:
            await connection.close(CLOSE_TRY_AGAIN, "no subprotocol")
            return
        await NodeSession(self, connection, admitted).run()

    # --- for sessions -------------------------------------------------------------------------------------------------

    @property
    def database(self) -> Database:
        """Where everything is."""
        return self._parts.database

    @property
    def engine(self) -> JobEngine:
        """Moves the jobs along."""
        return self._parts.engine

    def now(self) -> datetime:
        """The controller's clock."""
        return self._parts.clock()

    def welcome_seconds(self) -> tuple[float, float, float]:
        """Periods of heartbeats (500 a second at most, however large the fleet is), metrics and drift checks."""
        heartbeat = max(self._options.heartbeat_seconds, len(self._sessions) / 500)
        return heartbeat, self._options.metrics_seconds, self._options.drift_check_seconds

    async def trust_bundle(self) -> tuple[int, Envelope]:
        """Version and envelope of the bundle in force."""
        return await self._parts.read_trust()

    async def enter(self, session: NodeSession, opened: OpenedSession) -> None:
        """The session is open: it counts from now on, and an older one does not."""
        old = self._sessions.get(session.node_id)
        if old is not None and old.epoch > session.epoch:
            self._loops.spawn(session.supersede())
            return
        self._sessions[session.node_id] = session
        self._beats[session.node_id] = self.now()
        if old is not None:
            self._loops.spawn(old.supersede())
        if opened.changed_jobs:
            self.engine.notify()
            await self.engine.announce(opened.changed_jobs)
        self._publish(session.node_id, "node.connected")
        _log.info("gateway.connected", node_id=session.node_id, epoch=session.epoch, new_journal=opened.is_journal_new)
        self._loops.spawn(self._reconverge(session.node_id, is_everything=opened.is_journal_new))

    async def leave(self, session: NodeSession, *, was_current: bool) -> None:
        """The session has ended."""
        if self._sessions.get(session.node_id) is session:
            del self._sessions[session.node_id]
            self._samples.drop(session.node_id)
            self._beats.pop(session.node_id, None)
        if was_current:
            self._publish(session.node_id, "node.disconnected")
            _log.info("gateway.disconnected", node_id=session.node_id, epoch=session.epoch)

    def note_heartbeat(self, node_id: str) -> None:
        """The node was heard; written with others in a moment."""
        self._beats[node_id] = self.now()

    def note_metrics(self, node_id: str, frame: Metrics) -> None:
        """The node's latest sample, in memory only."""
        sample = self._samples.put(node_id, frame)
        self.note_heartbeat(node_id)
        gauges = dict(list(sample.gauges.items())[:500])
        self._parts.publisher.publish("metrics", "node.sample", {"id": node_id, "at": frame.at, "gauges": gauges})

    async def _reconverge(self, node_id: str, *, is_everything: bool) -> None:
        try:
            await self._parts.reconverge(node_id, is_everything)
        except (FleetError, SQLAlchemyError) as error:
            _log.warning("gateway.reconverge_failed", node_id=node_id, error=str(error))

    # --- loops --------------------------------------------------------------------------------------------------------

    async def _run_poll(self) -> None:
        while await self._loops.pause(POLL_SECONDS * random.uniform(0.8, 1.2)):  # noqa: S311 - jitter
            await self._look_after_all()

    async def _look_after_all(self) -> None:
        try:
            for ids in _chunks(sorted(self._sessions)):
                await self._look_after(ids)
        except SQLAlchemyError as error:
            _log.warning("gateway.database", error=str(error))

    async def _look_after(self, ids: list[str]) -> None:
        """Hint those with work, and send away those that may not be here."""
        now = self.now()
        async with self.database.read() as session:
            busy = await offers.find_nodes_with_work(session, ids, now=now)
            outsiders = await find_outsiders(session, ids)
        for node_id in busy - outsiders:
            self.offer_soon(node_id)
        for node_id in ids:
            held = self._sessions.get(node_id)
            if held is None:
                continue
            if node_id in outsiders:
                self._loops.spawn(held.reject("revoked", "this node was revoked", is_fatal=True))
            elif held.not_after <= now:
                self._loops.spawn(held.reject("certificate_expired", "this certificate has ended"))

    async def _run_heartbeats(self) -> None:
        while await self._loops.pause(HEARTBEAT_FLUSH_SECONDS):
            try:
                await self.flush_heartbeats()
            except SQLAlchemyError as error:
                _log.warning("gateway.database", error=str(error))

    async def flush_heartbeats(self) -> None:
        """Write who was heard, and notice who was not."""
        beats, self._beats = self._beats, {}
        lease = timedelta(seconds=2 * self.welcome_seconds()[0] + OFFLINE_GRACE_SECONDS)
        async with self.database.write() as session:
            await write_heartbeats(session, beats)
            back = await mark_heard(session, beats.keys() & self._sessions.keys(), gateway_id=self.gateway_id)
            silent = await mark_silent(session, silent_since=self.now() - lease)
        for node_id in silent:
            self._publish(node_id, "node.disconnected")
        for node_id in back:
            self._publish(node_id, "node.connected")

    # --- small things -------------------------------------------------------------------------------------------------

    def _publish(self, node_id: str, event: str) -> None:
        self._parts.publisher.publish("nodes", event, {"id": node_id})


def make_server_context(certificate: ServerCertificate, ca_path: str) -> ssl.SSLContext:
    """TLS 1.3 with a client certificate of our own authority; no resumption, so every connection shows it anew."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    context.load_cert_chain(certificate.chain_path, certificate.key_path)
    context.load_verify_locations(ca_path)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def _chunks(ids: list[str]) -> Iterable[list[str]]:
    return (ids[start : start + _IDS_PER_QUERY] for start in range(0, len(ids), _IDS_PER_QUERY))


def _drain_window(count: int) -> float:
    """At 200 handshakes a second nobody waits in vain. Source: measured, about 320 per second and core."""
    return max(DRAIN_SECONDS, count / 200)
