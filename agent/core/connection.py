"""One connection of the agent: frames in, answers and results out, garbage ends it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Final

import msgspec

from agent.core.boundary import error_body
from agent.core.executor import Executor
from shared.errors import ProtocolError
from shared.protocol.job import ErrorBody
from shared.protocol.local import (
    LENGTH_BYTES,
    Complaint,
    FromExecutor,
    JobFinished,
    JobProgress,
    ToExecutor,
    decode_length,
    decode_to_executor,
    encode_local,
)

BODY_SECONDS: Final = 30.0
"""A frame that was begun is finished within."""
COMPLAINT_SECONDS: Final = 5.0
MAX_WAITING_PROGRESS: Final = 64
MAX_WAITING: Final = 4096
"""An agent that does not read is cut off; its results stay on disk."""


class Connection:
    """Reads frames one after the other; writes in its own task, so that a slow reader stops nobody."""

    def __init__(self, executor: Executor, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._executor = executor
        self._reader = reader
        self._writer = writer
        self._waiting: deque[FromExecutor] = deque()
        self._has_waiting = asyncio.Event()

    async def serve(self) -> None:
        """Answer until the agent closes or talks nonsense."""
        unstored, unsubscribe = self._executor.listen(self._put)
        sender = asyncio.create_task(self._send_all(unstored))
        try:
            while (frame := await self._read_frame()) is not None:
                for answer in self._executor.answer(frame):
                    self._put(answer)
                # What is in the buffer already is read without waiting: the others have a turn now.
                await asyncio.sleep(0)
        except ProtocolError as error:
            sender.cancel()
            await self.complain(error.code, error.message)
        finally:
            unsubscribe()
            sender.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await sender

    async def complain(self, code: str, message: str) -> None:
        """Say what is wrong as the last word; whether it is read is not our concern."""
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(COMPLAINT_SECONDS):
                self._writer.write(encode_local(Complaint(error=ErrorBody(code=code, message=message))))
                await self._writer.drain()

    async def _read_frame(self) -> ToExecutor | None:
        """The next frame; None when the agent closed between two frames.

        Raises:
            ProtocolError: It is too large, no frame, or was cut or stalled in the middle.
        """
        first = await self._reader.read(1)
        if not first:
            return None
        try:
            async with asyncio.timeout(BODY_SECONDS):
                length = decode_length(first + await self._reader.readexactly(LENGTH_BYTES - 1))
                body = await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, TimeoutError) as error:
            raise ProtocolError("the frame was cut", code="bad_frame") from error
        return decode_to_executor(body)

    def _put(self, frame: FromExecutor) -> None:
        if isinstance(frame, JobProgress) and len(self._waiting) >= MAX_WAITING_PROGRESS:
            return
        if len(self._waiting) >= MAX_WAITING:
            self._writer.transport.abort()
            return
        self._waiting.append(frame)
        self._has_waiting.set()

    async def _send_all(self, unstored: list[str]) -> None:
        """First what nobody has stored yet, one result at a time: together they may be larger than our memory."""
        for job_id in unstored:
            finished = self._executor.find_result(job_id)
            if finished is not None:
                self._writer.write(encode_fitting(finished))
                await self._writer.drain()
        while True:
            await self._has_waiting.wait()
            self._has_waiting.clear()
            while self._waiting:
                self._writer.write(encode_fitting(self._waiting.popleft()))
                await self._writer.drain()


def encode_fitting(frame: FromExecutor) -> bytes:
    """Encode; a result that is too large for a frame goes without its explanation rather than not at all."""
    try:
        return encode_local(frame)
    except ProtocolError as error:
        if not isinstance(frame, JobFinished):
            return encode_local(Complaint(error=error_body(error)))
        short = msgspec.structs.replace(
            frame.result, changes=(), resources=(), commands=msgspec.UNSET, risks=("the explanation was too large",)
        )
        return encode_local(JobFinished(result=short))
