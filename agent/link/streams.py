"""The streams of one session on the node's side: a worker's bytes go out as far as the controller has room."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from typing import Final, NoReturn

from agent.link.outbox import Outbox
from agent.link.workers import WorkerConnection, Workers
from shared.errors import FleetError, ProtocolError, UnavailableError
from shared.protocol.credit import SendWindow
from shared.protocol.streams import (
    LIST_SECONDS,
    MAX_CHUNK_BYTES,
    MAX_STREAMS,
    CloseStream,
    ListStreams,
    OpenStream,
    StreamCredit,
    StreamData,
    StreamOpened,
)
from shared.protocol.worker import WorkerData, WorkerEnd, WorkerReady

_MESSAGE_CHARACTERS: Final = 400

_log = logging.getLogger(__name__)


class OutgoingStream:
    """One stream that a worker fills."""

    def __init__(self, frame: OpenStream, outbox: Outbox, workers: Workers) -> None:
        self._sid = frame.sid
        self._grant = frame.grant
        self._outbox = outbox
        self._workers = workers
        self._window = SendWindow(frame.credit)
        self._has_credit = asyncio.Event()
        self._digest = hashlib.sha256()

    def raise_credit(self, upto: int) -> None:
        """The controller has room for more."""
        self._window.raise_to(upto)
        self._has_credit.set()

    async def run(self) -> None:
        """Until the worker ends; the last frame says how. Cancelled when the controller closes the stream."""
        connection: WorkerConnection | None = None
        closing = CloseStream(sid=self._sid, code="bug", message="the stream ended without a reason")
        try:
            connection = await self._workers.open(self._grant)
            closing = await self._carry(connection)
        except FleetError as error:
            closing = CloseStream(sid=self._sid, code=error.code, message=error.message[:_MESSAGE_CHARACTERS])
        finally:
            if connection is not None:
                connection.close()
        await self._outbox.put_chunk(closing)

    async def _carry(self, connection: WorkerConnection) -> CloseStream:
        while True:
            frame = await connection.read()
            match frame:
                case WorkerReady():
                    await self._outbox.put_chunk(StreamOpened(sid=self._sid))
                case WorkerData():
                    await self._send(frame.data)
                case WorkerEnd(code="", message=""):
                    total, digest = self._window.sent, self._digest.digest()
                    return CloseStream(sid=self._sid, total=total, sha256=digest)
                case WorkerEnd():
                    return CloseStream(sid=self._sid, code=frame.code or "worker_failed", message=frame.message)

    async def _send(self, data: bytes) -> None:
        """All of it, as the credit allows; meanwhile nothing more is read, so the worker waits, too."""
        start = 0
        while start < len(data):
            await self._wait_for_credit()
            chunk = data[start : start + min(self._window.available, MAX_CHUNK_BYTES)]
            frame = StreamData(sid=self._sid, offset=self._window.sent, data=chunk)
            self._window.note_sent(len(chunk))
            self._digest.update(chunk)
            start += len(chunk)
            await self._outbox.put_chunk(frame)

    async def _wait_for_credit(self) -> None:
        while self._window.available <= 0:
            self._has_credit.clear()
            await self._has_credit.wait()


class Streams:
    """All streams of one session; with the session they end, and their workers with them."""

    def __init__(self, outbox: Outbox, workers: Workers) -> None:
        self._outbox = outbox
        self._workers = workers
        self._open: dict[int, OutgoingStream] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._newest = 0

    @property
    def open_ids(self) -> tuple[int, ...]:
        """Streams that have not ended."""
        return tuple(sorted(self._open))

    async def take_open(self, frame: OpenStream) -> None:
        """Begin a stream.

        Raises:
            ProtocolError: Its id was used before.
        """
        if frame.sid <= self._newest:
            raise ProtocolError(f"the stream {frame.sid} was opened before", code="unexpected_frame")
        self._newest = frame.sid
        if len(self._open) >= MAX_STREAMS:
            error = UnavailableError(f"this node has {MAX_STREAMS} open streams", code="too_many_streams")
            self._outbox.put(CloseStream(sid=frame.sid, code=error.code, message=error.message))
            return
        stream = self._open[frame.sid] = OutgoingStream(frame, self._outbox, self._workers)
        task = self._tasks[frame.sid] = asyncio.create_task(stream.run(), name=f"stream-{frame.sid}")
        task.add_done_callback(lambda ended: self._forget(frame.sid, ended))

    async def take_credit(self, frame: StreamCredit) -> None:
        """More may be sent; for a stream that has ended meanwhile it means nothing."""
        stream = self._open.get(frame.sid)
        if stream is not None:
            stream.raise_credit(frame.upto)

    async def take_data(self, frame: StreamData) -> None:
        """No kind of stream takes data yet, and none was ever given credit for it.

        Raises:
            ProtocolError: Always.
        """
        raise ProtocolError(f"the stream {frame.sid} takes no data", code="credit_exceeded")

    async def take_close(self, frame: CloseStream) -> None:
        """The controller wants no more of it."""
        self._end(frame.sid)

    async def take_list(self, frame: ListStreams) -> None:
        """Free what the controller has not: its word about a closed stream was lost."""
        for sid in self.open_ids:
            if sid not in frame.sids and sid <= frame.newest:
                _log.warning("stream %d is unknown to the controller: ended", sid)
                self._end(sid)

    async def list_for_ever(self) -> NoReturn:
        """Say now and then which streams there are; a session that never had one says nothing."""
        while True:
            await asyncio.sleep(LIST_SECONDS)
            if self._newest:
                self._outbox.put(ListStreams(sids=self.open_ids, newest=self._newest))

    async def close(self) -> None:
        """The session is over."""
        tasks = list(self._tasks.values())
        for sid in self.open_ids:
            self._end(sid)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _end(self, sid: int) -> None:
        self._open.pop(sid, None)
        task = self._tasks.pop(sid, None)
        if task is not None:
            task.cancel()

    def _forget(self, sid: int, task: asyncio.Task[None]) -> None:
        self._open.pop(sid, None)
        self._tasks.pop(sid, None)
        with contextlib.suppress(asyncio.CancelledError):
            error = task.exception()
            if error is not None:
                _log.error("a stream ended with a mistake of ours", exc_info=error)
