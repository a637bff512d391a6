"""One session with one agent: hello, welcome, then frames both ways until one side ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Final, Protocol

import structlog
from sqlalchemy.exc import SQLAlchemyError
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from controller.db.engine import Database
from controller.fleet.sessions import Admitted, OpenedSession, close_session, is_current, open_session
from controller.jobs import offers
from controller.jobs.engine import JobEngine
from controller.jobs.loops import finish
from shared.errors import FleetError, ProtocolError
from shared.protocol.capability import CAPABILITY_VERSION, OLDEST_CAPABILITY
from shared.protocol.envelope import Envelope
from shared.protocol.frames import (
    AckEvents,
    AckJob,
    CancelJob,
    Drain,
    Event,
    Frame,
    Heartbeat,
    Hello,
    LogLine,
    Metrics,
    OfferJob,
    OfferTrust,
    Progress,
    Reject,
    ToController,
    Welcome,
    decode_to_controller,
    encode_frame,
)

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

    def now(self) -> datetime: ...

    def welcome_seconds(self) -> tuple[float, float, float]:
        """Periods of heartbeats, metrics and drift checks."""
        ...

    async def trust_bundle(self) -> tuple[int, Envelope]:
        """Version and envelope of the bundle in force."""
        ...

    async def enter(self, session: NodeSession, opened: OpenedSession) -> None: ...

    async def leave(self, session: NodeSession, *, was_current: bool) -> None: ...

    def note_heartbeat(self, node_id: str) -> None: ...

    def note_metrics(self, node_id: str, frame: Metrics) -> None: ...


class NodeSession:
    """Runs over one admitted connection, once."""

    def __init__(self, hub: Hub, connection: ServerConnection, admitted: Admitted) -> None:
        self._hub = hub
        self._connection = connection
        self.node_id = admitted.node_id
        self.not_after = admitted.not_after
        self.epoch = 0
        self.opened_at = hub.now()
        self._has_work = asyncio.Event()
        self._is_over = False
        self._reactions: dict[type[Frame], Callable[[Any], Awaitable[None]]] = {
            Heartbeat: self._take_heartbeat,
            AckJob: self._take_ack,
            Progress: self._take_progress,
            Event: self._take_event,
            Metrics: self._take_metrics,
            LogLine: self._take_log_line,
            Hello: self._take_second_hello,
        }

    def hint(self) -> None:
        """There may be something to send."""
        self._has_work.set()

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
        sender = asyncio.create_task(self._send_work(), name=f"offers-{self.node_id}")
        try:
            await self._hub.enter(self, opened)
            await self._receive_frames()
        except ConnectionClosed:
            pass
        except ProtocolError as error:
            await self.reject(error.code, error.message, close_code=CLOSE_PROTOCOL_ERROR)
        except SQLAlchemyError as error:
            # Nothing was acknowledged that is not committed, so the agent says it again in its next session.
            _log.warning("gateway.database", node_id=self.node_id, error=str(error))
            await self._close(CLOSE_TRY_AGAIN, "the database does not answer")
        finally:
            self._is_over = True
            self.hint()
            await finish((sender,))
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

    async def drain(self, window_seconds: float) -> None:
        """The controller goes away for a moment."""
        try:
            async with asyncio.timeout(2.0):
                await self._send(Drain(window_seconds=window_seconds))
        except (ConnectionClosed, TimeoutError):
            return

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
        self.epoch = opened.epoch
        version, envelope = await self._hub.trust_bundle()
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
        if frame.bundle_version < version:
            # Before any job: it may carry the key that signed them.
            await self._send(OfferTrust(envelope=envelope))
        return opened

    # --- to the agent -------------------------------------------------------------------------------------------------

    async def _send(self, frame: Frame) -> None:
        await self._connection.send(encode_frame(frame))

    async def offer_trust(self, envelope: Envelope) -> None:
        """Give the node a newer trust bundle."""
        await self._send(OfferTrust(envelope=envelope))

    async def _send_work(self) -> None:
        self.hint()
        while not self._is_over:
            await self._has_work.wait()
            self._has_work.clear()
            try:
                await self._send_once()
            except ConnectionClosed:
                return
            except SQLAlchemyError as error:
                _log.warning("gateway.database", node_id=self.node_id, error=str(error))

    async def _send_once(self) -> None:
        """Claim in one transaction, send after its commit: what is lost in between is offered again later."""
        async with self._hub.database.read() as session:
            nodes = await offers.find_nodes_with_work(session, [self.node_id], now=self._hub.now())
            has_old = await offers.has_unacked_of_others(session, self.node_id, self.epoch)
        if self._is_over or not (nodes or has_old):
            return
        async with self._hub.database.write() as session:
            if not await is_current(session, self.node_id, self.epoch):
                return
            claimed = await offers.claim_offers(
                session, node_id=self.node_id, session_epoch=self.epoch, now=self._hub.now()
            )
            cancels = await offers.claim_cancels(session, node_id=self.node_id, session_epoch=self.epoch)
        for offer in claimed:
            await self._send(OfferJob(envelope=offer.envelope, job_id=offer.delivery_id, seq=offer.seq))
        for delivery_id in cancels:
            await self._send(CancelJob(job_id=delivery_id))
        await self._hub.engine.announce([offer.job_id for offer in claimed])

    # --- from the agent -----------------------------------------------------------------------------------------------

    async def _receive_frames(self) -> None:
        async for raw in self._connection:
            frame: ToController | None = decode_to_controller(_require_binary(raw))
            if frame is not None:
                await self._reactions[type(frame)](frame)

    async def _take_heartbeat(self, _frame: Heartbeat) -> None:
        self._hub.note_heartbeat(self.node_id)

    async def _take_ack(self, frame: AckJob) -> None:
        async with self._hub.database.write() as session:
            if not await is_current(session, self.node_id, self.epoch):
                return
            job = await offers.record_ack(session, self.node_id, frame, now=self._hub.now())
        if job is not None:
            self.hint()
            self._hub.engine.notify()
            await self._hub.engine.announce([job.id])

    async def _take_progress(self, frame: Progress) -> None:
        self._hub.engine.note_progress(self.node_id, frame)

    async def _take_event(self, frame: Event) -> None:
        async with self._hub.database.write() as session:
            if not await is_current(session, self.node_id, self.epoch):
                return
            recorded = await self._hub.engine.record_event(session, self.node_id, frame)
        await self._send(AckEvents(events_upto=frame.number))
        await self._hub.engine.settle(recorded)

    async def _take_metrics(self, frame: Metrics) -> None:
        self._hub.note_metrics(self.node_id, frame)

    async def _take_log_line(self, frame: LogLine) -> None:
        message = frame.message[:2000]
        _log.info("agent.log", node_id=self.node_id, level_of_agent=frame.level, job_id=frame.job_id, message=message)

    async def _take_second_hello(self, _frame: Hello) -> None:
        raise ProtocolError("a second hello", code="unexpected_frame")


def _require_binary(raw: str | bytes) -> bytes:
    if isinstance(raw, str):
        raise ProtocolError("frames are binary messages", code="bad_frame")
    return raw
