"""The executor's unix socket: opened on demand, closed when nothing is owed.

systemd holds the listening socket, so connecting starts the executor and closing lets it end: a node at rest spends no
memory on it. While an answer is owed the connection is kept and, if the executor dies, made again: that starts it anew,
it recovers its journal and sends what it still has to say.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final

from agent.link.backoff import Backoff
from agent.link.port import Listener, OpenWork
from shared.errors import BugError, ProtocolError, UnavailableError
from shared.protocol.frames import OfferJob
from shared.protocol.local import (
    EXECUTOR_SOCKET,
    LENGTH_BYTES,
    ExecutorStatus,
    FromExecutor,
    RequestStatus,
    SubmitJob,
    ToExecutor,
    decode_from_executor,
    decode_length,
    encode_local,
)

IDLE_SECONDS: Final = 5.0
CONNECT_SECONDS: Final = 30.0
"""A socket-activated start of the executor with a recovery of its journal fits well within."""
STATUS_SECONDS: Final = 60.0

_log = logging.getLogger(__name__)


class UnixExecutorPort:
    """ExecutorPort over shared/protocol/local.py."""

    def __init__(self, path: str = EXECUTOR_SOCKET, *, idle_seconds: float = IDLE_SECONDS) -> None:
        self._path = path
        self._idle_seconds = idle_seconds
        self._listener: Listener | None = None
        self._work = OpenWork()
        self._writer: asyncio.StreamWriter | None = None
        self._reader_task: asyncio.Task[None] | None = None
        self._revive_task: asyncio.Task[None] | None = None
        self._status_waiters: list[asyncio.Future[ExecutorStatus]] = []
        self._lock = asyncio.Lock()
        self._is_confirmed_idle = False
        self._is_closing = False

    @property
    def open_jobs(self) -> frozenset[str]:
        return self._work.jobs

    @property
    def is_connected(self) -> bool:
        """Whether the socket is open at this moment."""
        return self._writer is not None

    def listen(self, listener: Listener) -> None:
        self._listener = listener

    async def request_status(self) -> ExecutorStatus:
        waiter: asyncio.Future[ExecutorStatus] = asyncio.get_running_loop().create_future()
        self._status_waiters.append(waiter)
        try:
            await self.send(RequestStatus())
            async with asyncio.timeout(STATUS_SECONDS):
                return await waiter
        except TimeoutError as error:
            raise UnavailableError("the executor does not answer", code="executor_unavailable") from error
        finally:
            if waiter in self._status_waiters:
                self._status_waiters.remove(waiter)

    async def submit(self, offer: OfferJob) -> None:
        raw = encode_local(SubmitJob(envelope=offer.envelope))
        await self._write(raw, lambda: self._work.note_submitted(offer))

    async def send(self, frame: ToExecutor) -> None:
        await self._write(encode_local(frame), lambda: self._work.note_sent(frame))

    async def _write(self, raw: bytes, note: Callable[[], None]) -> None:
        async with self._lock:
            writer = self._writer or await self._connect()
            # Nothing is awaited between this and the write: what is noted and what is sent have the same order.
            note()
            self._is_confirmed_idle = False
            try:
                writer.write(raw)
                await writer.drain()
            except OSError as error:
                raise UnavailableError("the executor went away", code="executor_unavailable") from error

    async def close(self) -> None:
        self._is_closing = True
        if self._revive_task is not None:
            self._revive_task.cancel()
        reader_task = self._reader_task
        self._drop_connection()
        if reader_task is not None:
            reader_task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reader_task

    async def _connect(self) -> asyncio.StreamWriter:
        if self._listener is None:
            raise BugError("listen() was not called")
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                reader, writer = await asyncio.open_unix_connection(self._path)
        except (OSError, TimeoutError) as error:
            raise UnavailableError(
                "the executor cannot be reached",
                code="executor_unavailable",
                hint="systemctl status wcp-executor.socket wcp-executor.service",
            ) from error
        self._writer = writer
        self._reader_task = asyncio.create_task(self._read_frames(reader, self._listener), name="executor-reader")
        return writer

    async def _read_frames(self, reader: asyncio.StreamReader, listener: Listener) -> None:
        try:
            while True:
                frame = await self._read_frame(reader)
                if frame is None:
                    _log.debug("nothing is owed: closing the executor's socket")
                    self._drop_connection()
                    return
                frame = self._work.note_received(frame)
                self._note_status(frame)
                await listener(frame)
        except (OSError, asyncio.IncompleteReadError, ProtocolError, UnavailableError) as error:
            self._note_lost(error)

    async def _read_frame(self, reader: asyncio.StreamReader) -> FromExecutor | None:
        """The next frame, or None when nothing is owed and the executor says so itself."""
        while True:
            try:
                async with asyncio.timeout(self._idle_seconds):
                    prefix = await reader.readexactly(LENGTH_BYTES)
                break
            except TimeoutError:
                if self._is_confirmed_idle and self._work.is_idle and not self._lock.locked():
                    return None
                await self.send(RequestStatus())
        return decode_from_executor(await reader.readexactly(decode_length(prefix)))

    def _note_status(self, frame: FromExecutor) -> None:
        if not isinstance(frame, ExecutorStatus):
            return
        self._is_confirmed_idle = frame.running_jobs == 0
        waiters, self._status_waiters = self._status_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(frame)

    def _note_lost(self, error: Exception) -> None:
        was_owed = not self._work.is_idle
        self._drop_connection()
        for waiter in self._status_waiters:
            if not waiter.done():
                waiter.set_exception(UnavailableError("the executor went away", code="executor_unavailable"))
        if was_owed and not self._is_closing:
            _log.warning("the executor went away while it owed an answer (%s); asking again", error)
            self._revive_task = asyncio.create_task(self._revive(), name="executor-revive")

    async def _revive(self) -> None:
        """Connect until it works: that starts the executor, which then sends the results it still has."""
        backoff = Backoff()
        while True:
            await asyncio.sleep(backoff.ceiling_seconds)
            try:
                await self.request_status()
            except UnavailableError as error:
                backoff = backoff.after_session(0.0)
                _log.warning("%s; next try in %.0f s", error, backoff.ceiling_seconds)
            else:
                return

    def _drop_connection(self) -> None:
        writer, self._writer = self._writer, None
        self._reader_task = None
        self._work.forget()
        if writer is not None:
            writer.close()
