"""Carries what the executor says to where it belongs: results and drift into the spool, the rest to the session."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable

from agent.link.outbox import Outbox
from agent.link.port import ExecutorPort
from agent.link.spool import Spool
from shared.errors import UnavailableError
from shared.protocol.frames import AckJob, DriftReport, LogLine, Progress
from shared.protocol.local import (
    Complaint,
    DriftFound,
    ExecutorStatus,
    FromExecutor,
    JobAccepted,
    JobFinished,
    JobProgress,
    RequestDrift,
    ResultStored,
    TrustTaken,
)

_log = logging.getLogger(__name__)


class Relay:
    """Lives as long as the agent: a result that arrives while nobody is connected is kept all the same."""

    def __init__(
        self, executor: ExecutorPort, spool: Spool, outbox: Outbox, clock: Callable[[], float] = time.time
    ) -> None:
        self.executor = executor
        self.spool = spool
        self.outbox = outbox
        self.has_news = asyncio.Event()
        """Set when the spool got an event."""
        self.quarantine = ""
        self._clock = clock
        self._asked_drifts = 0
        # Subjects that the controller knows to be in order. Empty after a start, so the first report always goes out:
        # it clears what an earlier life of this process reported.
        self._clean_subjects: set[str] = set()
        executor.listen(self.take)

    async def request_drift(self, subjects: tuple[str, ...], *, is_asked: bool) -> None:
        """Let the executor compare. An asked-for report is always passed on, a periodic one only if it says something.

        Raises:
            UnavailableError: The executor cannot be reached.
        """
        await self.executor.send(RequestDrift(subjects=subjects))
        if is_asked:
            self._asked_drifts += 1

    async def take(self, frame: FromExecutor) -> None:
        """Take one frame of the executor."""
        match frame:
            case JobFinished():
                await self._take_result(frame)
            case DriftFound():
                await self._take_drift(frame.report)
            case JobAccepted():
                self.outbox.put(AckJob(job_id=frame.job_id, seq=frame.seq, state=frame.state, error=frame.error))
            case JobProgress():
                self.outbox.put(
                    Progress(
                        job_id=frame.job_id,
                        number=frame.number,
                        done=frame.done,
                        total=frame.total,
                        message=frame.message,
                    )
                )
            case ExecutorStatus():
                self.note_status(frame)
            case TrustTaken():
                self._note_trust(frame)
            case Complaint():
                self.report("error", f"the executor did not understand us: {frame.error.message}")

    def report(self, level: str, message: str, *, job_id: str = "") -> None:
        """Log a line here and show it to the operator at the controller."""
        _log.log(logging.getLevelNamesMapping()[level.upper()], "%s", message)
        self.outbox.put(LogLine(at=self._clock(), level=level, message=message, job_id=job_id))

    def note_status(self, status: ExecutorStatus) -> None:
        """Remember why the executor takes no jobs, and say it when that changes."""
        if status.quarantine and status.quarantine != self.quarantine:
            self.report("error", f"the executor takes no jobs: {status.quarantine}")
        self.quarantine = status.quarantine

    def _note_trust(self, frame: TrustTaken) -> None:
        if frame.error is None:
            _log.info("the executor took trust bundle %d", frame.version)
        else:
            self.report("warning", f"the executor refused a trust bundle: {frame.error.message}")

    async def _take_result(self, frame: JobFinished) -> None:
        job_id = frame.result.job_id
        try:
            await asyncio.to_thread(self.spool.append_result, frame.result)
        except sqlite3.Error as error:
            # Not on disk, so the executor must keep it; it sends it again at the next connection.
            self.report("error", f"the result of a job cannot be kept: {error}", job_id=job_id)
            return
        self.has_news.set()
        try:
            await self.executor.send(ResultStored(job_id=job_id))
        except UnavailableError as error:
            # It will deliver the result once more, and the spool knows it already.
            _log.warning("the executor was not told that a result is kept: %s", error)

    async def _take_drift(self, report: DriftReport) -> None:
        is_asked = self._asked_drifts > 0
        self._asked_drifts = max(0, self._asked_drifts - 1)
        is_news = bool(report.findings) or not self._clean_subjects.issuperset(report.subjects)
        if not (is_asked or is_news):
            return
        try:
            await asyncio.to_thread(self.spool.append_drift, report)
        except sqlite3.Error as error:
            self.report("error", f"a drift report cannot be kept: {error}")
            return
        self._clean_subjects.update(report.subjects)
        self._clean_subjects.difference_update(finding.subject for finding in report.findings)
        self.has_news.set()
