"""The executor as the link sees it: a unix socket on a node, an object in the same process in the simulator."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from shared.protocol.local import (
    DriftFound,
    ExecutorStatus,
    FromExecutor,
    JobAccepted,
    JobFinished,
    RequestDrift,
    SubmitJob,
    ToExecutor,
)

Listener = Callable[[FromExecutor], Awaitable[None]]


class ExecutorPort(Protocol):
    """Sends frames to the executor and hands its frames to one listener, in order."""

    def listen(self, listener: Listener) -> None:
        """Name the one who gets every frame of the executor, ExecutorStatus included. Call it before anything else."""
        ...

    async def request_status(self) -> ExecutorStatus:
        """Ask the executor who it is.

        Raises:
            UnavailableError: It does not answer.
        """
        ...

    async def send(self, frame: ToExecutor) -> None:
        """Hand a frame over; the answer comes to the listener.

        Raises:
            UnavailableError: It cannot be reached.
        """
        ...

    @property
    def open_jobs(self) -> frozenset[str]:
        """Jobs that the executor has and that have no result yet, as far as the link knows."""
        ...

    async def close(self) -> None:
        """Let go of the executor."""
        ...


class OpenWork:
    """What the executor still owes an answer for; while there is some, the connection stays."""

    def __init__(self) -> None:
        self._accepted: set[str] = set()
        self._submitted_count = 0
        self._drift_count = 0
        self._unknown_count = 0

    @property
    def jobs(self) -> frozenset[str]:
        """Ids of the jobs that were accepted and have no result."""
        return frozenset(self._accepted)

    @property
    def is_idle(self) -> bool:
        """Nothing is owed."""
        return not (self._submitted_count or self._accepted or self._drift_count or self._unknown_count)

    def note_sent(self, frame: ToExecutor) -> None:
        """Remember what a frame to the executor will be answered with."""
        if isinstance(frame, SubmitJob):
            self._submitted_count += 1
        elif isinstance(frame, RequestDrift):
            self._drift_count += 1

    def note_received(self, frame: FromExecutor) -> None:
        """Take an answer off the list."""
        if isinstance(frame, JobAccepted):
            self._submitted_count = max(0, self._submitted_count - 1)
            if frame.error is None and not frame.state.is_final:
                self._accepted.add(frame.job_id)
        elif isinstance(frame, JobFinished):
            if frame.result.job_id not in self._accepted:
                self._unknown_count = max(0, self._unknown_count - 1)
            self._accepted.discard(frame.result.job_id)
        elif isinstance(frame, DriftFound):
            self._drift_count = max(0, self._drift_count - 1)
        elif isinstance(frame, ExecutorStatus):
            # The executor's word ends every doubt: results come before a status that no longer counts their jobs.
            if frame.running_jobs == 0:
                self._accepted.clear()
            # Jobs that an earlier life of this process handed over: their ids are unknown here, their number is not.
            self._unknown_count = max(0, frame.running_jobs - len(self._accepted))

    def forget(self) -> None:
        """Start over: after the executor went away only it knows what it still has, and it says so by itself."""
        self._accepted.clear()
        self._submitted_count = self._drift_count = self._unknown_count = 0
