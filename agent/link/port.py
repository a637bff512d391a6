"""The executor as the link sees it: a unix socket on a node, an object in the same process in the simulator."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from shared.protocol.frames import OfferJob
from shared.protocol.local import (
    DriftFound,
    ExecutorStatus,
    FromExecutor,
    HealthFound,
    JobAccepted,
    JobFinished,
    OpenWorker,
    RequestDrift,
    RequestHealth,
    RequestUsage,
    ToExecutor,
    UsageFound,
    WorkerOpened,
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

    async def submit(self, offer: OfferJob) -> None:
        """Hand a job over. Its JobAccepted names the job, also where the executor could not tell which one it was.

        Raises:
            UnavailableError: It cannot be reached.
        """
        ...

    async def send(self, frame: ToExecutor) -> None:
        """Hand any other frame over; the answer comes to the listener.

        Raises:
            UnavailableError: It cannot be reached.
        """
        ...

    @property
    def is_connected(self) -> bool:
        """Whether a question reaches it without starting it."""
        ...

    @property
    def open_jobs(self) -> frozenset[str]:
        """Jobs that the executor has and that have no result yet, as far as the link knows."""
        ...

    async def close(self) -> None:
        """Let go of the executor."""
        ...


class OpenWork:
    """What the executor still owes an answer for; while there is some, the connection stays.

    Invariant: the executor answers the submissions of one connection in their order, so the first of them that is open
    is the one that the next JobAccepted is about.
    """

    def __init__(self) -> None:
        self._accepted: set[str] = set()
        self._submitted: deque[OfferJob] = deque()
        self._look_count = 0
        self._unknown_count = 0
        self._worker_refs: set[str] = set()

    @property
    def jobs(self) -> frozenset[str]:
        """Ids of the jobs that were accepted and have no result."""
        return frozenset(self._accepted)

    @property
    def is_idle(self) -> bool:
        """Nothing is owed."""
        return not (self._submitted or self._accepted or self._look_count or self._unknown_count or self._worker_refs)

    def note_submitted(self, offer: OfferJob) -> None:
        """Remember a job that goes to the executor."""
        self._submitted.append(offer)

    def note_sent(self, frame: ToExecutor) -> None:
        """Remember what a frame to the executor will be answered with."""
        if isinstance(frame, (RequestDrift, RequestHealth, RequestUsage)):
            self._look_count += 1
        elif isinstance(frame, OpenWorker):
            self._worker_refs.add(frame.ref)

    def note_received(self, frame: FromExecutor) -> FromExecutor:
        """Take an answer off the list; returns it, with the job's name if the executor could not know that."""
        if isinstance(frame, JobAccepted):
            frame = self._name_job(frame)
            if frame.error is None and not frame.state.is_final:
                self._accepted.add(frame.job_id)
        elif isinstance(frame, JobFinished):
            if frame.result.job_id not in self._accepted:
                self._unknown_count = max(0, self._unknown_count - 1)
            self._accepted.discard(frame.result.job_id)
        elif isinstance(frame, (DriftFound, HealthFound, UsageFound)):
            self._look_count = max(0, self._look_count - 1)
        elif isinstance(frame, WorkerOpened):
            self._worker_refs.discard(frame.ref)
        elif isinstance(frame, ExecutorStatus):
            # The executor's word ends every doubt: results come before a status that no longer counts their jobs.
            if frame.running_jobs == 0:
                self._accepted.clear()
            # Jobs that an earlier life of this process handed over: their ids are unknown here, their number is not.
            self._unknown_count = max(0, frame.running_jobs - len(self._accepted))
        return frame

    def _name_job(self, frame: JobAccepted) -> JobAccepted:
        """The executor reads nothing of what it cannot verify; the controller must learn of that refusal, too."""
        offer = self._submitted.popleft() if self._submitted else None
        if offer is None or frame.job_id:
            return frame
        return msgspec.structs.replace(frame, job_id=offer.job_id, seq=offer.seq)

    def forget(self) -> None:
        """Start over: after the executor went away only it knows what it still has, and it says so by itself."""
        self._accepted.clear()
        self._submitted.clear()
        self._worker_refs.clear()
        self._look_count = self._unknown_count = 0
