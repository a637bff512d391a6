"""What waits to be sent on a session: answers first, then progress, logs and metrics, the chunks of streams last."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from typing import Final

from shared.protocol.frames import AckJob, Frame, Heartbeat, LogLine, Metrics, Progress
from shared.protocol.health import NodeHealth
from shared.protocol.renewal import TrustReport
from shared.protocol.streams import CloseStream, ListStreams, StreamCredit, StreamData, StreamOpened
from shared.protocol.witness import CheckpointSeen

MAX_PROGRESS_JOBS: Final = 64
MAX_LOSSY: Final = 32


Urgent = AckJob | Heartbeat | NodeHealth | TrustReport | CloseStream | StreamCredit | ListStreams | CheckpointSeen
"""Small, and never dropped while a session is open."""


class Outbox:
    """A queue with priorities. Only what may be lost is ever dropped; events do not pass here but by the spool."""

    def __init__(self) -> None:
        self._control: deque[Frame] = deque()
        self._progress: OrderedDict[str, Progress] = OrderedDict()
        self._logs: deque[Frame] = deque(maxlen=MAX_LOSSY)
        self._metrics: deque[Frame] = deque(maxlen=MAX_LOSSY)
        self._chunks: deque[tuple[Frame, asyncio.Event]] = deque()
        self._is_open = False
        self._wake = asyncio.Event()

    @property
    def is_open(self) -> bool:
        """Whether a session takes frames now."""
        return self._is_open

    def open(self) -> None:
        """A session is up. What was left of an earlier one is gone: the controller asks again for what it misses."""
        self._control.clear()
        self._progress.clear()
        self._logs.clear()
        self._metrics.clear()
        self._chunks.clear()
        self._is_open = True

    def close(self) -> None:
        """No session: frames are dropped until the next `open`."""
        self._is_open = False

    def put(self, frame: Urgent | Progress | Metrics | LogLine) -> None:
        """Queue a frame, or drop it when nobody is there to take it."""
        if not self._is_open:
            return
        if isinstance(frame, Progress):
            self._put_progress(frame)
        elif isinstance(frame, Metrics):
            self._metrics.append(frame)
        elif isinstance(frame, LogLine):
            self._logs.append(frame)
        else:
            self._control.append(frame)
        self._wake.set()

    def _put_progress(self, frame: Progress) -> None:
        self._progress[frame.job_id] = frame  # latest wins
        while len(self._progress) > MAX_PROGRESS_JOBS:
            self._progress.popitem(last=False)

    async def put_chunk(self, frame: StreamOpened | StreamData | CloseStream) -> None:
        """Queue a stream's next frame and wait until it is on its way: one waits for each stream, and they take turns.

        Without a session this never returns; the stream has ended then, and whoever runs it is cancelled.
        """
        is_taken = asyncio.Event()
        entry = (frame, is_taken)
        self._chunks.append(entry)
        self._wake.set()
        try:
            await is_taken.wait()
        finally:
            if entry in self._chunks:
                self._chunks.remove(entry)

    async def take(self) -> Frame:
        """The most urgent frame, as soon as there is one."""
        while True:
            frame = self._pop()
            if frame is not None:
                return frame
            self._wake.clear()
            await self._wake.wait()

    def _pop(self) -> Frame | None:
        if self._control:
            return self._control.popleft()
        if self._progress:
            return self._progress.popitem(last=False)[1]
        if self._logs:
            return self._logs.popleft()
        if self._metrics:
            return self._metrics.popleft()
        if self._chunks:
            frame, is_taken = self._chunks.popleft()
            is_taken.set()
            return frame
        return None
