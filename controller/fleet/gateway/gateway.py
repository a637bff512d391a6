"""The agents' listener: mutual TLS, one WebSocket per node, and the loops that keep an eye on all of them.

A listener of its own, because no ASGI server hands the client's certificate to the application.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from sqlalchemy.exc import SQLAlchemyError
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.typing import Subprotocol

from controller.db.engine import Database
from controller.fleet.gateway.door import Door
from controller.fleet.gateway.listener import drain_seconds, open_listener
from controller.fleet.gateway.presence import Presence, find_standing
from controller.fleet.gateway.session import CLOSE_TRY_AGAIN, NodeSession
from controller.fleet.gateway.sessions import OpenedSession
from controller.fleet.gateway.tls import forget_handshake, make_server_context, send_at_once, trust_authorities
from controller.fleet.gateway.traffic import Traffic
from controller.fleet.identity.authority import ServerCertificate
from controller.fleet.nodes.health_keeper import HealthKeeper
from controller.fleet.nodes.metrics import NodeSample, SampleKeeper
from controller.fleet.ports import Publisher, Reconverge
from controller.fleet.streams.streams import SessionStreams
from controller.jobs import offers
from controller.jobs.engine import JobEngine
from controller.jobs.hints import Channel, Hints
from controller.jobs.loops import Loops
from shared.errors import FleetError
from shared.protocol.envelope import Envelope
from shared.protocol.frames import MAX_FRAME_BYTES, SUBPROTOCOL, Frame, Metrics
from shared.protocol.witness import CheckpointSeen

POLL_SECONDS: Final = 1.5
"""How long a lost hint delays an offer, and how long a revoked node may stay."""
HEARTBEAT_FLUSH_SECONDS: Final = 5.0
OFFLINE_GRACE_SECONDS: Final = 10.0
DRAIN_SECONDS: Final = 5.0
"""Window over which agents spread their return after a restart; a larger fleet gets more (see drain_seconds)."""
_IDS_PER_QUERY: Final = 500

CROWD: Final = 32
"""Write transactions under way or waiting, some 4 ms each: with more of them new agents wait outside."""
_log = structlog.get_logger("controller.gateway")


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayOptions:
    """How the gateway listens and what it tells the agents."""

    host: str
    port: int
    """0 takes any free port."""
    accepts_per_second: float
    """New connections; what is more waits in the kernel. Source: measured, about 320 handshakes per second and core."""
    heartbeat_seconds: float
    dead_line_seconds: float
    """Asked after a third of it without a word, given up two thirds later."""
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
    health: HealthKeeper
    quarantine: Callable[[str, str], Awaitable[None]]
    """Stops a node (its id, why); see controller/fleet/gateway/quarantine.py."""
    clock: Callable[[], datetime]
    hints: Hints = field(default_factory=Hints)


class Gateway:
    """All sessions of this process."""

    def __init__(self, options: GatewayOptions, parts: GatewayParts) -> None:
        self._options = options
        self._parts = parts
        self.gateway_id = str(uuid.uuid4())
        self._sessions: dict[str, NodeSession] = {}
        self.door = Door(parts.database, parts.clock, self.find_streams)
        self.on_checkpoint_seen: Callable[[str, CheckpointSeen], None] = lambda _node_id, _seen: None
        self._presence = Presence(parts.database, gateway_id=self.gateway_id)
        self._trust_version = 0
        self._samples = SampleKeeper(options.metrics_seconds, parts.clock)
        self._loops = Loops()
        self.traffic = Traffic(self)
        self._server: Server | None = None
        self._context: ssl.SSLContext | None = None
        parts.hints.on(Channel.WORK, self._hint_sessions)
        parts.hints.on(Channel.CHECK, self._check_now)
        parts.hints.on(Channel.TRUST, self._refresh_soon)

    # --- life ---------------------------------------------------------------------------------------------------------

    async def start(self, certificate: ServerCertificate, ca_pem: str) -> None:
        """Listen. Agents must show a certificate of one of these authorities, and one that the database knows.

        Raises:
            OSError: The port is taken.
        """
        self._context = make_server_context(certificate, ca_pem)
        options = self._options
        rate = options.accepts_per_second
        listener = await open_listener(options.host, options.port, per_second=rate, is_crowded=self._is_crowded)
        self._server = await serve(
            self._handle_connection,
            sock=listener,
            ssl=self._context,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            process_request=self.door.admit,
            compression=None,  # 90 kB of zlib windows per agent for frames of 300 bytes
            server_header=None,
            max_size=MAX_FRAME_BYTES,
            max_queue=4,
            ping_interval=self._options.dead_line_seconds / 3,
            ping_timeout=self._options.dead_line_seconds * 2 / 3,
            open_timeout=20,
            close_timeout=5,
        )
        for loop in (self._run_poll, self._run_heartbeats):
            self._loops.spawn(loop())
        self.traffic.start(self._loops)

    async def stop(self) -> None:
        """Say goodbye to every agent, then close."""
        sessions = list(self._sessions.values())
        rate = self._options.accepts_per_second
        window = drain_seconds(len(sessions), per_second=rate, at_least=DRAIN_SECONDS)
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

    def find_streams(self, node_id: str) -> SessionStreams | None:
        """The streams of a node with a session in this process."""
        session = self._sessions.get(node_id)
        return None if session is None else session.streams

    def offer_soon(self, node_id: str) -> None:
        """There is something to send to this node, whichever process holds its session."""
        self._parts.hints.send(Channel.WORK, (node_id,))

    def check_soon(self) -> None:
        """Somebody may have been revoked, or a job cancelled: all gateways look now instead of at the next poll."""
        self._parts.hints.send(Channel.CHECK)

    def _is_crowded(self) -> bool:
        return self.database.busy_count > CROWD

    def _hint_sessions(self, node_ids: Iterable[str]) -> None:
        for node_id in node_ids:
            session = self._sessions.get(node_id)
            if session is not None:
                session.hint()

    def _refresh_soon(self, _items: Sequence[str]) -> None:
        if self._server is not None:
            self._loops.spawn(self._run_refresh())

    def _check_now(self, _items: Sequence[str]) -> None:
        if self._sessions:
            self._loops.spawn(self._look_after_all())

    # --- a connection -------------------------------------------------------------------------------------------------

    async def _handle_connection(self, connection: ServerConnection) -> None:
        if await self.door.serve_peer(connection):
            return
        admitted = self.door.take_admitted(connection)
        if admitted is None or connection.subprotocol != SUBPROTOCOL:
            await connection.close(CLOSE_TRY_AGAIN, "no subprotocol")
            return
        send_at_once(connection)
        forget_handshake(connection)
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
        self._presence.note(session.node_id, self.now())
        if old is not None:
            self._loops.spawn(old.supersede())
        if opened.changed_jobs:
            self.engine.notify()
            await self.engine.announce(opened.changed_jobs)
        self.health.note_changed(session.node_id)
        self._publish(session.node_id, "node.connected")
        _log.info("gateway.connected", node_id=session.node_id, epoch=session.epoch, new_journal=opened.is_journal_new)
        self._loops.spawn(self._reconverge(session.node_id, is_everything=opened.is_journal_new))

    async def leave(self, session: NodeSession, *, was_current: bool) -> None:
        """The session has ended."""
        if self._sessions.get(session.node_id) is session:
            del self._sessions[session.node_id]
            self._samples.drop(session.node_id)
            self._presence.forget(session.node_id)
            self.health.forget(session.node_id)
        if was_current:
            self._publish(session.node_id, "node.disconnected")
            _log.info("gateway.disconnected", node_id=session.node_id, epoch=session.epoch)

    @property
    def health(self) -> HealthKeeper:
        """Takes in how nodes say they are."""
        return self._parts.health

    def find_line(self, node_id: str) -> NodeSession | None:
        """The node's session in this process."""
        return self._sessions.get(node_id)

    async def send(self, node_id: str, frame: Frame) -> bool:
        """Send a frame that may be lost; False when the node has no session in this process."""
        session = self._sessions.get(node_id)
        return session is not None and await session.send_lossy(frame)

    def note_heartbeat(self, node_id: str) -> None:
        """The node was heard; written with others in a moment."""
        self._presence.note(node_id, self.now())

    def note_metrics(self, node_id: str, frame: Metrics) -> None:
        """The node's latest sample: in memory, and for the other processes in a moment."""
        sample = self._samples.put(node_id, frame)
        self._presence.note_sample(node_id, sample)
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
            ids = sorted(self._sessions)
            for start in range(0, len(ids), _IDS_PER_QUERY):
                await self._look_after(ids[start : start + _IDS_PER_QUERY])
        except SQLAlchemyError as error:
            _log.warning("gateway.database", error=str(error))

    async def _look_after(self, ids: list[str]) -> None:
        """Hint those with work, and send away those that may not be here."""
        now = self.now()
        epochs = {node_id: self._sessions[node_id].epoch for node_id in ids if node_id in self._sessions}
        async with self.database.read() as session:
            busy = await offers.find_nodes_with_work(session, ids, now=now)
            standing = await find_standing(session, epochs)
        self._hint_sessions(busy - standing.outsiders)
        for node_id in ids:
            held = self._sessions.get(node_id)
            if held is None or held.epoch != epochs.get(node_id):
                continue
            if node_id in standing.superseded:
                self._loops.spawn(held.supersede())
            elif node_id in standing.outsiders:
                self._loops.spawn(held.dismiss(is_quarantined=node_id in standing.quarantined))
            elif held.not_after <= now:
                self._loops.spawn(held.reject("certificate_expired", "this certificate has ended"))

    async def _run_heartbeats(self) -> None:
        while await self._loops.pause(HEARTBEAT_FLUSH_SECONDS):
            try:
                await self.flush_heartbeats()
            except SQLAlchemyError as error:
                _log.warning("gateway.database", error=str(error))
            await self._run_refresh()

    async def _run_refresh(self) -> None:
        try:
            await self.refresh_trust()
        except (SQLAlchemyError, FleetError) as error:
            _log.warning("gateway.database", error=str(error))

    async def refresh_trust(self) -> None:
        """Offer the bundle in force if another process (or this one) made a newer one since."""
        version, envelope = await self._parts.read_trust()
        if version > self._trust_version:
            trust_authorities(self._context, envelope)
            self._trust_version = version
        # By session, not by what this process saw last: one may have said hello just before.
        behind = [session for session in self._sessions.values() if session.trust_version < version]
        if behind:
            _log.info("gateway.trust", version=version, nodes=len(behind))
            offered = (session.offer_trust(version, envelope) for session in behind)
            await asyncio.gather(*offered, return_exceptions=True)  # who is gone now gets it at the next hello

    @property
    def sessions(self) -> tuple[NodeSession, ...]:
        """Those of this process."""
        return tuple(self._sessions.values())

    async def quarantine(self, node_id: str, reason: str) -> None:
        """Two machines use this identity: neither may stay."""
        await self._parts.quarantine(node_id, reason)
        self.check_soon()

    async def flush_heartbeats(self) -> None:
        """Write who was heard, and notice who was not."""
        lease = timedelta(seconds=2 * self.welcome_seconds()[0] + OFFLINE_GRACE_SECONDS)
        now = self.now()
        epochs = {node_id: session.epoch for node_id, session in self._sessions.items()}
        seen = await self._presence.flush(epochs, now=now, silent_since=now - lease)
        for node_id in seen.silent:
            self._publish(node_id, "node.disconnected")
        for node_id in seen.back:
            self._publish(node_id, "node.connected")

    # --- small things -------------------------------------------------------------------------------------------------

    def _publish(self, node_id: str, event: str) -> None:
        self._parts.publisher.publish("nodes", event, {"id": node_id})
