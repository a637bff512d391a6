"""From a signed grant to the socket of its worker: the executor judges and starts, the link only asks and connects."""

from __future__ import annotations

import asyncio
import uuid
from typing import Final, NamedTuple

from agent.link.port import ExecutorPort
from shared.errors import RefusedError, UnavailableError
from shared.protocol.envelope import Envelope
from shared.protocol.local import OpenWorker, WorkerOpened
from shared.protocol.streams import MAX_CHUNK_BYTES
from shared.protocol.worker import LENGTH_BYTES, FromWorker, decode_worker, decode_worker_length

OPEN_SECONDS: Final = 45.0
"""An executor that has to start first, and a unit that systemd starts under load, fit well within."""
CONNECT_SECONDS: Final = 5.0
BODY_SECONDS: Final = 30.0

_UNAVAILABLE: Final = frozenset({"worker_failed", "host_error", "systemd_unavailable", "unavailable", "no_workers"})


class WorkerConnection(NamedTuple):
    """A worker's socket. What is not read stays there, and the worker waits."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def read(self) -> FromWorker:
        """The next frame.

        Raises:
            UnavailableError: The worker ended without a word (`worker_failed`).
            ProtocolError: What came is no frame.
        """
        try:
            length = decode_worker_length(await self.reader.readexactly(LENGTH_BYTES))
            async with asyncio.timeout(BODY_SECONDS):
                return decode_worker(await self.reader.readexactly(length))
        except (asyncio.IncompleteReadError, OSError, TimeoutError) as error:
            raise UnavailableError("the account's worker ended without a word", code="worker_failed") from error

    def close(self) -> None:
        """The worker sees it and ends."""
        self.writer.close()


class Workers:
    """Questions to the executor that are open, and their answers."""

    def __init__(self, executor: ExecutorPort) -> None:
        self._executor = executor
        self._waiting: dict[str, asyncio.Future[WorkerOpened]] = {}

    def note(self, frame: WorkerOpened) -> None:
        """The executor has answered; an answer that nobody waits for any more ends its worker by itself."""
        future = self._waiting.get(frame.ref)
        if future is not None and not future.done():
            future.set_result(frame)

    async def open(self, grant: Envelope) -> WorkerConnection:
        """Have a worker started and connect to it.

        Raises:
            RefusedError: The executor refused the grant.
            UnavailableError: There is no worker, for a reason that may pass.
        """
        opened = await self._ask(OpenWorker(ref=uuid.uuid4().hex, envelope=grant))
        if opened.error is not None:
            kind = UnavailableError if opened.error.code in _UNAVAILABLE else RefusedError
            raise kind(opened.error.message, code=opened.error.code, hint=opened.error.hint)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                # The reader holds twice its limit at most; beyond that the worker waits.
                reader, writer = await asyncio.open_unix_connection(opened.socket_path, limit=MAX_CHUNK_BYTES)
        except (OSError, TimeoutError) as error:
            raise UnavailableError("the account's worker does not answer", code="worker_failed") from error
        return WorkerConnection(reader, writer)

    async def _ask(self, frame: OpenWorker) -> WorkerOpened:
        future: asyncio.Future[WorkerOpened] = asyncio.get_running_loop().create_future()
        self._waiting[frame.ref] = future
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                await self._executor.send(frame)
                return await future
        except TimeoutError as error:
            raise UnavailableError("the executor did not answer in time", code="executor_unavailable") from error
        finally:
            del self._waiting[frame.ref]
