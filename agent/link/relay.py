"""Carries what the executor says to where it belongs: results and drift into the spool, the rest to the session."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable
from typing import Final

from agent.link import faults
from agent.link.health import HealthWatch, UnitStates
from agent.link.outbox import Outbox
from agent.link.port import ExecutorPort
from agent.link.room import RoomWatch
from agent.link.spool import Spool
from agent.link.usage import UsageWatch
from agent.link.workers import Workers
from shared.errors import UnavailableError
from shared.protocol.frames import AckJob, DriftReport, LogLine, Progress
from shared.protocol.health import Quiet
from shared.protocol.local import (
    Complaint,
    DriftFound,
    ExecutorStatus,
    FromExecutor,
    HealthFound,
    JobAccepted,
    JobFinished,
    JobProgress,
    RequestDrift,
    ResultStored,
    TrustTaken,
    UsageFound,
    WorkerOpened,
)
from shared.protocol.renewal import TrustReport
from shared.protocol.update import UpdateReport

STATUS_SECONDS: Final = 2.0
"""How long a heartbeat waits for the executor's word."""

_log = logging.getLogger(__name__)


class Relay:
    """Lives as long as the agent: a result that arrives while nobody is connected is kept all the same."""

    def __init__(
        self,
        executor: ExecutorPort,
        spool: Spool,
        outbox: Outbox,
        clock: Callable[[], float] = time.time,
        *,
        unit_states: UnitStates | None = None,
    ) -> None:
        self.executor = executor
        self.spool = spool
        self.outbox = outbox
        self.workers = Workers(executor)
        self.has_news = asyncio.Event()
        """Set when the spool got an event."""
        self.quarantine = ""
        self.on_trust: Callable[[tuple[bytes, ...]], None] = lambda _certificates: None
        """Told which authorities the executor believes (DER), whenever it took a bundle."""
        self._seq_gaps: tuple[int, ...] = ()
        self._has_taken_jobs = False
        """Whether the executor took a job since it was last asked about gaps."""
        self._clock = clock
        self.room = RoomWatch(executor, self._take_result)
        self.health = HealthWatch(executor, outbox, unit_states)
        self.usage = UsageWatch(executor)
        self._quiet_until = 0.0
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
        await self.executor.send(RequestDrift(subjects=subjects, may_repair=self._clock() >= self._quiet_until))
        if is_asked:
            self._asked_drifts += 1

    def be_quiet(self, frame: Quiet) -> None:
        """The controller wants nothing repaired by itself until then, because somebody works on this node."""
        self._quiet_until = frame.until
        _log.info("drift is %s", f"only reported: {frame.reason}" if frame.until else "treated by its policy again")

    async def take(self, frame: FromExecutor) -> None:
        """Take one frame of the executor."""
        match frame:
            case JobFinished():
                await self._take_result(frame)
            case DriftFound():
                await self._take_drift(frame.report)
            case JobAccepted():
                self._has_taken_jobs = True
                self.room.note_answer(frame)
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
            case HealthFound() | UsageFound():
                self._take_look(frame)
            case WorkerOpened():
                self.workers.note(frame)
            case Complaint():
                self.report("error", f"the executor did not understand us: {frame.error.message}")

    def _take_look(self, frame: HealthFound | UsageFound) -> None:
        if isinstance(frame, HealthFound):
            self.health.take(frame.report)
        else:
            self.usage.take(frame)

    def report(self, level: str, message: str, *, job_id: str = "") -> None:
        """Log a line here and show it to the operator at the controller."""
        _log.log(logging.getLevelNamesMapping()[level.upper()], "%s", message)
        self.outbox.put(LogLine(at=self._clock(), level=level, message=message, job_id=job_id))

    def note_status(self, status: ExecutorStatus) -> None:
        """Remember why the executor takes no jobs, and say it when that changes."""
        if status.quarantine and status.quarantine != self.quarantine:
            self.report("error", f"the executor takes no jobs: {status.quarantine}")
        self.quarantine = status.quarantine
        self._seq_gaps = status.seq_gaps

    async def find_seq_gaps(self) -> tuple[int, ...]:
        """Job numbers that the executor misses.

        Asked only after it took a job, since nothing else changes them: an executor that is asked at each heartbeat
        would never come to rest.
        """
        if self._has_taken_jobs:
            self._has_taken_jobs = False
            try:
                async with asyncio.timeout(STATUS_SECONDS):
                    self._seq_gaps = (await self.executor.request_status()).seq_gaps
            except (TimeoutError, UnavailableError):
                self._has_taken_jobs = True  # the next heartbeat asks again
        return self._seq_gaps

    async def keep_update(self, report: UpdateReport) -> bool:
        """Keep how an update ended until the controller has it; False when the disk does not take it."""
        try:
            await asyncio.to_thread(self.spool.append_update, report)
        except sqlite3.Error as error:
            self.report("error", f"the outcome of an update cannot be kept: {error}")
            return False
        self.has_news.set()
        return True

    def _note_trust(self, frame: TrustTaken) -> None:
        if frame.error is None:
            _log.info("the executor took trust bundle %d", frame.version)
            self.on_trust(frame.ca_certificates)
            self.outbox.put(TrustReport(bundle_version=frame.version))
        else:
            self.report("warning", f"the executor refused a trust bundle: {frame.error.message}")

    async def _take_result(self, frame: JobFinished) -> None:
        job_id = frame.result.job_id
        try:
            await asyncio.to_thread(self.spool.append_result, frame.result)
        except sqlite3.Error as error:
            # Not on disk, so the executor must keep it; it sends it again at the next connection.
            self.report("error", f"the result of a job cannot be kept: {error}", job_id=job_id)
            self.room.note_unkept(frame)
            return
        self.has_news.set()
        try:
            await self.executor.send(ResultStored(job_id=job_id))
            faults.at("result.after_stored")
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
