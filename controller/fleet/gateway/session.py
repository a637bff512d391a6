"""One session with one agent: hello, welcome, then frames both ways until one side ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, Final, Protocol

import structlog
from sqlalchemy.exc import SQLAlchemyError
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from controller import faults
from controller.db.engine import Database
from controller.fleet.gateway.sessions import (
    Admitted,
    OpenedSession,
    close_session,
    is_current,
    note_bundle,
    note_first_use,
    open_session,
)
from controller.fleet.gateway.traffic import Traffic
from controller.fleet.nodes.health_keeper import HealthKeeper
from controller.fleet.streams.streams import SessionStreams
from controller.jobs.engine import JobEngine
from controller.jobs.gaps import GapWatch, reopen_gaps
from controller.jobs.loops import finish
from shared.errors import FleetError, ProtocolError
from shared.protocol.capability import CAPABILITY_VERSION, OLDEST_CAPABILITY
from shared.protocol.envelope import Envelope
from shared.protocol.frames import (
    AckJob,
    Drain,
    Event,
    Frame,
    Heartbeat,
    Hello,
    LogLine,
    Metrics,
    OfferTrust,
    Progress,
    Reject,
    ToController,
    Welcome,
    decode_to_controller,
    encode_frame,
)
from shared.protocol.health import NodeHealth
from shared.protocol.renewal import RenewCertificate, TrustReport
from shared.protocol.streams import CloseStream, ListStreams, StreamCredit, StreamData, StreamOpened, StreamToController
from shared.protocol.witness import CheckpointSeen

HELLO_SECONDS: Final = 15.0
CLOSE_SUPERSEDED: Final = 4001
CLOSE_REVOKED: Final = 4403
CLOSE_PROTOCOL_ERROR: Final = 4400
CLOSE_TRY_AGAIN: Final = 1013
"""Source: IANA WebSocket close code registry, "Try Again Later"."""

_log = structlog.get_logger("controller.gateway")


class Hub(Protocol):
    """What a session needs of its gateway."""

    @property
    def gateway_id(self) -> str: ...

    @property
    def database(self) -> Database: ...

    @property
    def engine(self) -> JobEngine: ...

    @property
    def health(self) -> HealthKeeper: ...

    @property
    def traffic(self) -> Traffic: ...

    def now(self) -> datetime: ...

    def welcome_seconds(self) -> tuple[float, float, float]:
        """Periods of heartbeats, metrics and drift checks."""
        ...

    async def trust_bundle(self) -> tuple[int, Envelope]:
        """Version and envelope of the bundle in force."""
        ...

    async def enter(self, session: NodeSession, opened: OpenedSession) -> None: ...

    async def quarantine(self, node_id: str, reason: str) -> None:
        """Stop a node whose identity is used by two machines, and send both away."""
        ...

    async def leave(self, session: NodeSession, *, was_current: bool) -> None: ...

    def note_heartbeat(self, node_id: str) -> None: ...

    def note_metrics(self, node_id: str, frame: Metrics) -> None: ...

    on_checkpoint_seen: Callable[[str, CheckpointSeen], None]


class NodeSession:
    """Runs over one admitted connection, once."""

    def __init__(self, hub: Hub, connection: ServerConnection, admitted: Admitted) -> None:
        self._hub = hub
        self._connection = connection
        self._admitted = admitted
        self.issuer = admitted.issuer
        self.capability = 0
        self.can_witness = False
        self.shown_checkpoint = 0
        self.renewal_asked_at: datetime | None = None
        self.trust_version = 0
        """Of the bundle that the node has, or was offered last."""
        self.node_id = admitted.node_id
        self.not_after = admitted.not_after
        self.epoch = 0
        self.opened_at = hub.now()
        self._outgoing: list[Frame] = []
        self._posting: asyncio.Task[None] | None = None
        self._gaps = GapWatch()
        self._streams: SessionStreams | None = None

    @property
    def streams(self) -> SessionStreams:
        """Made when somebody asks for the first time: most sessions end without a stream."""
        if self._streams is None:
            self._streams = SessionStreams(self.node_id, self._send)
        return self._streams

    def hint(self) -> None:
        """There may be something to send."""
        self._hub.traffic.want(self.node_id)

    async def run(self) -> None:
        """Stay until the connection ends. Never raises: what goes wrong is logged and ends the session."""
        try:
            opened = await self._greet()
        except FleetError as error:
            await self.reject(error.code, error.message, close_code=CLOSE_PROTOCOL_ERROR)
            return
        except (ConnectionClosed, TimeoutError):
            return
        except SQLAlchemyError as error:
            _log.warning("gateway.database", node_id=self.node_id, error=str(error))
            await self._close(CLOSE_TRY_AGAIN, "the database does not answer")
            return
        try:
            await self._hub.enter(self, opened)
            self.hint()
            await self._receive_frames()
        except ConnectionClosed:
            pass
        except ProtocolError as error:
            await self.reject(error.code, error.message, close_code=CLOSE_PROTOCOL_ERROR)
        except SQLAlchemyError as error:
            await self.give_up(error)
        finally:
            self.streams.end_all()  # also if there was none: whoever asks from now on hears that it is over
            if self._posting is not None:
                await finish((self._posting,))
            await self._leave()

    # --- ways to end it -----------------------------------------------------------------------------------------------

    async def supersede(self) -> None:
        """A newer session of the same node has begun."""
        await self._close(CLOSE_SUPERSEDED, "superseded")

    async def reject(self, code: str, message: str, *, is_fatal: bool = False, close_code: int = CLOSE_REVOKED) -> None:
        """Say why, then close."""
        try:
            async with asyncio.timeout(5.0):
                await self._send(Reject(code=code, message=message, is_fatal=is_fatal))
        except (ConnectionClosed, TimeoutError):
            return
        await self._close(close_code, code)

    async def dismiss(self, *, is_quarantined: bool) -> None:
        """This node may not be connected any more; in quarantine it may ask again, rarely."""
        if is_quarantined:
            await self.reject("duplicate_identity", "two machines use this node's identity")
        else:
            await self.reject("revoked", "this node was revoked", is_fatal=True)

    async def ask_to_renew(self, within_seconds: float) -> None:
        """The authority is being replaced: the node shall come back with a certificate of the other one."""
        await self.send_lossy(RenewCertificate(within_seconds=within_seconds))

    async def drain(self, window_seconds: float) -> None:
        """The controller goes away for a moment."""
        try:
            async with asyncio.timeout(2.0):
                await self._send(Drain(window_seconds=window_seconds))
        except (ConnectionClosed, TimeoutError):
            return

    async def send_lossy(self, frame: Frame) -> bool:
        """Send what may be lost; False when it was."""
        try:
            async with asyncio.timeout(5.0):
                await self._send(frame)
        except (ConnectionClosed, TimeoutError):
            return False
        return True

    async def _close(self, code: int, reason: str) -> None:
        try:
            async with asyncio.timeout(5.0):
                await self._connection.close(code, reason[:100])
        except TimeoutError:
            self._connection.transport.abort()

    async def _leave(self) -> None:
        was_current = False
        try:
            async with self._hub.database.write() as session:
                was_current = await close_session(session, self.node_id, self.epoch, now=self._hub.now())
                faults.at("leave.before_commit")
        except SQLAlchemyError as error:
            _log.warning("gateway.database", node_id=self.node_id, error=str(error))  # mark_silent finds it later
        await self._hub.leave(self, was_current=was_current)

    # --- the beginning ------------------------------------------------------------------------------------------------

    async def _greet(self) -> OpenedSession:
        async with asyncio.timeout(HELLO_SECONDS):
            frame = decode_to_controller(_require_binary(await self._connection.recv()))
        if not isinstance(frame, Hello):
            raise ProtocolError("the first frame must be a hello", code="no_hello")
        if frame.node_id != self.node_id:
            raise ProtocolError("this certificate belongs to another node", code="wrong_node")
        if frame.capability < OLDEST_CAPABILITY or frame.oldest_capability > CAPABILITY_VERSION:
            raise FleetError("agent and controller are of releases that do not fit", code="unsupported_agent")
        async with self._hub.database.write() as session:
            opened = await open_session(session, frame, gateway_id=self._hub.gateway_id, now=self._hub.now())
            await note_first_use(session, self._admitted, now=self._hub.now())
            faults.at("hello.before_commit")
        faults.at("hello.after_commit")
        self.epoch = opened.epoch
        self.capability, self.can_witness = frame.capability, frame.can_witness
        if opened.suspicion:
            await self._hub.quarantine(self.node_id, opened.suspicion)
            raise FleetError(opened.suspicion, code="duplicate_identity", hint="wcp360 nodes release")
        self._gaps = GapWatch(frame.seq_gaps)
        version, envelope = await self._hub.trust_bundle()
        self.trust_version = version
        heartbeat, metrics, drift = self._hub.welcome_seconds()
        welcome = Welcome(
            capability=min(frame.capability, CAPABILITY_VERSION),
            session_epoch=opened.epoch,
            events_acked=opened.events_acked,
            heartbeat_seconds=heartbeat,
            metrics_seconds=metrics,
            drift_check_seconds=drift,
            server_time=self._hub.now().timestamp(),
            bundle_version=version,
        )
        await self._send(welcome)
        faults.at("hello.after_welcome")
        if frame.bundle_version < version:
            # Before any job: it may carry the key that signed them.
            await self._send(OfferTrust(envelope=envelope))
        return opened

    # --- to the agent -------------------------------------------------------------------------------------------------

    async def _send(self, frame: Frame) -> None:
        await self._connection.send(encode_frame(frame))

    async def offer_trust(self, version: int, envelope: Envelope) -> None:
        """Give the node a newer trust bundle."""
        self.trust_version = version
        await self._send(OfferTrust(envelope=envelope))

    def post(self, frames: Sequence[Frame]) -> None:
        """Send these in order, without waiting for it; what cannot be sent is offered or said again later."""
        self._outgoing.extend(frames)
        if self._posting is None and self._outgoing:
            self._posting = asyncio.create_task(self._post_all(), name=f"post-{self.node_id}")

    async def _post_all(self) -> None:
        try:
            while self._outgoing:
                frames, self._outgoing = self._outgoing, []
                for frame in frames:
                    await self._send(frame)
        except ConnectionClosed:
            self._outgoing.clear()
        finally:
            self._posting = None

    async def give_up(self, error: SQLAlchemyError) -> None:
        """End it: nothing was acknowledged that is not committed, so the agent says it again in its next session."""
        _log.warning("gateway.database", node_id=self.node_id, error=str(error))
        await self._close(CLOSE_TRY_AGAIN, "the database does not answer")

    # --- from the agent -----------------------------------------------------------------------------------------------

    async def _receive_frames(self) -> None:
        async for raw in self._connection:
            frame: ToController | None = decode_to_controller(_require_binary(raw))
            if frame is not None:
                await self._REACTIONS[type(frame)](self, frame)

    async def _take_heartbeat(self, frame: Heartbeat) -> None:
        self._hub.note_heartbeat(self.node_id)
        seqs, confirmed = self._gaps.take(frame.seq_gaps)
        if not seqs:
            self._hub.health.note_heartbeat(self.node_id, clock=frame.clock, seq_gaps=0)
            return
        async with self._hub.database.write() as session:
            if not await is_current(session, self.node_id, self.epoch):
                return
            now = self._hub.now()
            reopened = await reopen_gaps(session, self.node_id, seqs, confirmed=confirmed, now=now)
        self._gaps.note_settled(reopened.settled)
        self._hub.health.note_heartbeat(self.node_id, clock=frame.clock, seq_gaps=len(seqs - reopened.settled))
        if reopened.job_ids:
            self.hint()
            self._hub.engine.notify()
            await self._hub.engine.announce(reopened.job_ids)

    async def _take_ack(self, frame: AckJob) -> None:
        await self._hub.traffic.say(self, frame)

    async def _take_progress(self, frame: Progress) -> None:
        self._hub.engine.note_progress(self.node_id, self.epoch, frame)

    async def _take_event(self, frame: Event) -> None:
        faults.at("event.received")
        await self._hub.traffic.say(self, frame)

    async def _take_health(self, frame: NodeHealth) -> None:
        await self._hub.health.take_report(self.node_id, frame.report)

    async def _take_metrics(self, frame: Metrics) -> None:
        self._hub.note_metrics(self.node_id, frame)

    async def _take_trust_report(self, frame: TrustReport) -> None:
        async with self._hub.database.write() as session:
            await note_bundle(session, self.node_id, self.epoch, frame.bundle_version)

    async def _take_checkpoint_seen(self, frame: CheckpointSeen) -> None:
        self._hub.on_checkpoint_seen(self.node_id, frame)

    async def _take_log_line(self, frame: LogLine) -> None:
        message = frame.message[:2000]
        _log.info("agent.log", node_id=self.node_id, level_of_agent=frame.level, job_id=frame.job_id, message=message)

    async def _take_of_stream(self, frame: StreamToController) -> None:
        await self.streams.take(frame)

    async def _take_second_hello(self, _frame: Hello) -> None:
        raise ProtocolError("a second hello", code="unexpected_frame")

    _REACTIONS: ClassVar[Mapping[type[Frame], Callable[[NodeSession, Any], Awaitable[None]]]] = {
        Heartbeat: _take_heartbeat,
        AckJob: _take_ack,
        Progress: _take_progress,
        Event: _take_event,
        Metrics: _take_metrics,
        NodeHealth: _take_health,
        TrustReport: _take_trust_report,
        LogLine: _take_log_line,
        CheckpointSeen: _take_checkpoint_seen,
        Hello: _take_second_hello,
        StreamOpened: _take_of_stream,
        StreamData: _take_of_stream,
        StreamCredit: _take_of_stream,
        CloseStream: _take_of_stream,
        ListStreams: _take_of_stream,
    }
    """One table for all sessions: with one each, bound to it, every idle node cost 1.5 KiB more."""


def _require_binary(raw: str | bytes) -> bytes:
    if isinstance(raw, str):
        raise ProtocolError("frames are binary messages", code="bad_frame")
    return raw
