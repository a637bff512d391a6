"""One session with the gateway: hello, welcome, and then frames both ways until one side ends it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import sqlite3
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from agent.link import faults
from agent.link.backoff import spread_interval_seconds
from agent.link.ending import EndKind, SessionEnd, end_of_close
from agent.link.relay import Relay
from agent.link.streams import Streams
from shared.errors import FleetError, ProtocolError, UnavailableError
from shared.protocol.frames import (
    AckEvents,
    CancelJob,
    CheckDrift,
    Drain,
    Frame,
    Heartbeat,
    Hello,
    Metrics,
    OfferJob,
    OfferTrust,
    OfferUpdate,
    Reject,
    ToAgent,
    Welcome,
    decode_to_agent,
    encode_frame,
)
from shared.protocol.health import CheckHealth, Quiet
from shared.protocol.local import CancelLocal, SubmitTrust
from shared.protocol.renewal import RenewCertificate
from shared.protocol.streams import CloseStream, ListStreams, OpenStream, StreamCredit, StreamData
from shared.protocol.witness import CheckpointSeen, ShowCheckpoint

WELCOME_SECONDS: Final = 30.0
MAX_EVENTS_IN_FLIGHT: Final = 64
EVENT_BATCH: Final = 16
CLOSE_SECONDS: Final = 2.0
"""How long a goodbye may take: a peer that is gone or floods us does not answer it."""
MAX_CLOCK_SKEW_SECONDS: Final = 120.0
"""Beyond it the executor refuses jobs by their times. Source: docs/architecture.md, acceptance on the node."""
CLOSE_PROTOCOL_ERROR: Final = 1002
"""Source: RFC 6455 section 7.4.1."""

_log = logging.getLogger(__name__)


async def renew_nothing(_within_seconds: float) -> None:
    """For sessions without a certificate of their own to renew."""


class SessionHooks(msgspec.Struct, frozen=True, kw_only=True):
    """What a session asks of the service around it."""

    on_welcome: Callable[[Welcome], None]
    on_beat: Callable[[float], None]
    """Called with the seconds until the next heartbeat: proof of life for the watchdog."""
    sample: Callable[[], dict[str, float]]
    on_update: Callable[[OfferUpdate], None] = lambda _offer: None
    """Called with a release for this node; it must not wait."""
    renew: Callable[[float], Awaitable[None]] = renew_nothing
    """Gets another certificate within so many seconds; raises FleetError or OSError."""
    witness: Callable[[ShowCheckpoint], CheckpointSeen] | None = None
    """Judges an end of the audit log; blocks, so it runs in a thread; raises FleetError or OSError."""


class Session:
    """Runs over one open connection, once."""

    def __init__(self, connection: ClientConnection, relay: Relay, hooks: SessionHooks) -> None:
        self._connection = connection
        self._relay = relay
        self._hooks = hooks
        self._welcomed_at: float | None = None
        self._in_flight: deque[int] = deque()
        self._has_room = asyncio.Event()
        self._skipped_count = 0
        self._renewal: asyncio.Task[None] | None = None
        self._has_new_certificate = False
        self._witnessing: asyncio.Task[None] | None = None
        self._streams = Streams(relay.outbox, relay.workers)
        self._reactions: dict[type[Frame], Callable[[Any], Awaitable[SessionEnd | None]]] = {
            OfferJob: self._take_job,
            CancelJob: self._take_cancel,
            OfferTrust: self._take_trust,
            OfferUpdate: self._take_update,
            RenewCertificate: self._take_renewal,
            ShowCheckpoint: self._take_checkpoint,
            AckEvents: self._take_ack,
            CheckDrift: self._take_drift_check,
            CheckHealth: self._take_health_check,
            Quiet: self._take_quiet,
            Drain: self._take_drain,
            Reject: self._take_reject,
            Welcome: self._take_late_welcome,
            OpenStream: self._streams.take_open,
            StreamData: self._streams.take_data,
            StreamCredit: self._streams.take_credit,
            CloseStream: self._streams.take_close,
            ListStreams: self._streams.take_list,
        }

    @property
    def skipped_count(self) -> int:
        """Frames of a later release that were passed over."""
        return self._skipped_count

    async def run(self, hello: Hello) -> SessionEnd:
        """Say hello and stay until the session ends."""
        try:
            first = await self._greet(hello)
            if not isinstance(first, Welcome):
                return await self._take_reject(first)
            await self._begin(first)
            return await self._converse(first)
        except ConnectionClosed as error:
            if self._has_new_certificate:
                return SessionEnd(EndKind.DRAINED, "another certificate is in use now", 1.0, self._healthy_seconds)
            closing = error.rcvd or error.sent
            code, reason = (closing.code, closing.reason) if closing else (1006, "")
            return end_of_close(code, reason, self._healthy_seconds)
        except ProtocolError as error:
            await self._connection.close(CLOSE_PROTOCOL_ERROR, error.code)
            return SessionEnd(EndKind.LOST, f"the controller sent {error.message}", None, self._healthy_seconds)
        except (OSError, sqlite3.Error) as error:
            return SessionEnd(EndKind.LOST, str(error), None, self._healthy_seconds)
        finally:
            self._relay.outbox.close()
            for task in (self._renewal, self._witnessing):
                if task is not None:
                    task.cancel()
            await self._streams.close()

    @property
    def _healthy_seconds(self) -> float:
        return 0.0 if self._welcomed_at is None else time.monotonic() - self._welcomed_at

    async def _greet(self, hello: Hello) -> Welcome | Reject:
        await self._connection.send(encode_frame(hello))
        try:
            async with asyncio.timeout(WELCOME_SECONDS):
                frame = await self._receive()
        except TimeoutError as error:
            raise ProtocolError("no welcome in time", code="no_welcome") from error
        if not isinstance(frame, (Welcome, Reject)):
            raise ProtocolError(f"{type(frame).__name__} before the welcome", code="no_welcome")
        return frame

    async def _begin(self, welcome: Welcome) -> None:
        self._welcomed_at = time.monotonic()
        await asyncio.to_thread(self._relay.spool.continue_after, welcome.events_acked)
        await asyncio.to_thread(self._relay.spool.ack, welcome.events_acked)
        self._relay.outbox.open()
        skew_seconds = time.time() - welcome.server_time
        if abs(skew_seconds) > MAX_CLOCK_SKEW_SECONDS:
            self._relay.report("warning", f"this node's clock is {skew_seconds:+.0f} s off the controller's")
        if self._relay.quarantine:
            self._relay.report("error", f"the executor takes no jobs: {self._relay.quarantine}")
        self._relay.health.say_again()
        self._hooks.on_welcome(welcome)

    async def _converse(self, welcome: Welcome) -> SessionEnd:
        loops: tuple[Coroutine[Any, Any, SessionEnd], ...] = (
            self._receive_frames(),
            self._send_outbox(),
            self._send_events(),
            self._send_heartbeats(welcome.heartbeat_seconds),
            self._send_metrics(welcome.metrics_seconds),
            self._streams.list_for_ever(),
        )
        tasks = [asyncio.create_task(loop) for loop in loops]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return await done.pop()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # --- from the controller ---------------------------------------------------------------------------------------

    async def _receive(self) -> ToAgent:
        """The next frame that this release knows."""
        while True:
            raw = await self._connection.recv(decode=False)
            frame = decode_to_agent(raw)
            if frame is not None:
                return frame
            self._skipped_count += 1

    async def _receive_frames(self) -> SessionEnd:
        while True:
            frame = await self._receive()
            try:
                end = await self._reactions[type(frame)](frame)
            except UnavailableError as error:
                # Nothing was acknowledged, so the controller offers it again.
                self._relay.report("error", error.message)
                continue
            if end is not None:
                return end

    async def _take_job(self, frame: OfferJob) -> None:
        faults.at("job.before_submit")
        await self._relay.executor.submit(frame)
        faults.at("job.after_submit")

    async def _take_cancel(self, frame: CancelJob) -> None:
        await self._relay.executor.send(CancelLocal(job_id=frame.job_id))

    async def _take_trust(self, frame: OfferTrust) -> None:
        await self._relay.executor.send(SubmitTrust(envelope=frame.envelope))

    async def _take_renewal(self, frame: RenewCertificate) -> None:
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._renew(frame.within_seconds), name="renewal-wish")

    async def _renew(self, within_seconds: float) -> None:
        """Renew, then end the session: the controller learns only from the next one that the certificate is in use."""
        try:
            await self._hooks.renew(within_seconds)
        except (FleetError, OSError) as error:
            self._relay.report("warning", f"the controller asked for another certificate, and there is none: {error}")
            return
        self._has_new_certificate = True
        await self._connection.close()

    async def _take_checkpoint(self, frame: ShowCheckpoint) -> None:
        # One at a time: what is not answered is shown again with the next one, or in the next session.
        witness = self._hooks.witness
        if witness is not None and (self._witnessing is None or self._witnessing.done()):
            self._witnessing = asyncio.create_task(self._witness(witness, frame), name="witness")

    async def _witness(self, witness: Callable[[ShowCheckpoint], CheckpointSeen], frame: ShowCheckpoint) -> None:
        try:
            seen = await asyncio.to_thread(witness, frame)
        except (FleetError, OSError) as error:
            self._relay.report("warning", f"an end of the audit log is not witnessed: {error}")
            return
        if seen.refusal:
            self._relay.report("error", f"the audit log contradicts what this node was shown: {seen.refusal}")
        self._relay.outbox.put(seen)

    async def _take_update(self, frame: OfferUpdate) -> None:
        self._hooks.on_update(frame)

    async def _take_drift_check(self, frame: CheckDrift) -> None:
        await self._relay.request_drift(frame.subjects, is_asked=True)

    async def _take_health_check(self, _frame: CheckHealth) -> None:
        await self._relay.health.look(is_asked=True)
        await self._relay.usage.ask()  # whoever looks at the node wants all of it as it is now

    async def _take_quiet(self, frame: Quiet) -> None:
        self._relay.be_quiet(frame)

    async def _take_ack(self, frame: AckEvents) -> None:
        await asyncio.to_thread(self._relay.spool.ack, frame.events_upto)
        while self._in_flight and self._in_flight[0] <= frame.events_upto:
            self._in_flight.popleft()
        self._has_room.set()

    async def _take_drain(self, frame: Drain) -> SessionEnd:
        await self._connection.close()
        return SessionEnd(
            EndKind.DRAINED, "the controller is going away for a moment", frame.window_seconds, self._healthy_seconds
        )

    async def _take_reject(self, frame: Reject) -> SessionEnd:
        await self._connection.close()
        kind = EndKind.REFUSED
        if frame.is_fatal:
            kind = EndKind.FATAL
        elif frame.code in ("revoked", "duplicate_identity"):
            kind = EndKind.REVOKED
        return SessionEnd(
            kind, f"the controller refuses this node: {frame.message} ({frame.code})", frame.retry_after_seconds
        )

    async def _take_late_welcome(self, _frame: Welcome) -> None:
        raise ProtocolError("a second welcome", code="unexpected_frame")

    # --- to the controller -----------------------------------------------------------------------------------------

    async def _send_outbox(self) -> SessionEnd:
        while True:
            await self._connection.send(encode_frame(await self._relay.outbox.take()))

    async def _send_events(self) -> SessionEnd:
        sent = self._relay.spool.acked
        while True:
            self._relay.has_news.clear()
            events = await asyncio.to_thread(self._relay.spool.list_after, sent, limit=EVENT_BATCH)
            for event in events:
                await self._wait_for_room()
                await self._connection.send(encode_frame(event))
                self._in_flight.append(event.number)
                sent = event.number
            if len(events) < EVENT_BATCH:  # those were all; what came since has set it again
                await self._relay.has_news.wait()

    async def _wait_for_room(self) -> None:
        while len(self._in_flight) >= MAX_EVENTS_IN_FLIGHT:
            self._has_room.clear()
            await self._has_room.wait()

    async def _send_heartbeats(self, interval_seconds: float) -> SessionEnd:
        while True:
            wait_seconds = _jittered(interval_seconds)
            self._hooks.on_beat(wait_seconds)
            await asyncio.sleep(wait_seconds)
            gaps = await self._relay.find_seq_gaps()
            beat = Heartbeat(clock=time.time(), running_jobs=len(self._relay.executor.open_jobs), seq_gaps=gaps)
            self._relay.outbox.put(beat)

    async def _send_metrics(self, interval_seconds: float) -> SessionEnd:
        while True:
            gauges = await asyncio.to_thread(self._hooks.sample) | self._relay.usage.gauges()
            self._relay.outbox.put(Metrics(at=time.time(), gauges=gauges))
            await asyncio.sleep(_jittered(interval_seconds))


def _jittered(interval_seconds: float) -> float:
    return spread_interval_seconds(interval_seconds, random.random())  # noqa: S311 - spreads load, keeps no secret


async def close_quietly(connection: ClientConnection) -> None:
    """Close a connection that may be dead already."""
    with contextlib.suppress(OSError, TimeoutError, ConnectionClosed):
        async with asyncio.timeout(CLOSE_SECONDS):
            await connection.close()
