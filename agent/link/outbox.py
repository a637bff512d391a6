"""What waits to be sent on a session: answers first, progress and metrics last, and those bounded."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from typing import Final

from shared.protocol.frames import AckJob, Frame, Heartbeat, LogLine, Metrics, Progress

MAX_PROGRESS_JOBS: Final = 64
MAX_LOSSY: Final = 32


class Outbox:
    """A queue with priorities. Only what may be lost is ever dropped; events do not pass here but by the spool."""

    def __init__(self) -> None:
        self._control: deque[Frame] = deque()
        self._progress: OrderedDict[str, Progress] = OrderedDict()
        self._lossy: deque[Frame] = deque(maxlen=MAX_LOSSY)
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
        self._lossy.clear()
        self._is_open = True

    def close(self) -> None:
        """No session: frames are dropped until the next `open`."""
        self._is_open = False

    def put(self, frame: AckJob | Heartbeat | Progress | Metrics | LogLine) -> None:
        """Queue a frame, or drop it when nobody is there to take it."""
        if not self._is_open:
            return
        if isinstance(frame, Progress):
            self._put_progress(frame)
        elif isinstance(frame, (Metrics, LogLine)):
            self._lossy.append(frame)
        else:
            self._control.append(frame)
        self._wake.set()

    def _put_progress(self, frame: Progress) -> None:
        self._progress[frame.job_id] = frame  # latest wins
        while len(self._progress) > MAX_PROGRESS_JOBS:
            self._progress.popitem(last=False)

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
        if self._lossy:
            return self._lossy.popleft()
        return None
