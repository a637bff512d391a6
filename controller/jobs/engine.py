"""The engine: relay and sweeper as tasks, and what the rest of the controller asks of them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import math
import random
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from typing import Final

import msgspec
import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from controller import faults
from controller.db.base import utc_now
from controller.db.engine import Database
from controller.jobs import offers, relay, results, signatures, sweeper
from controller.jobs.commands import cancel_job, get_job
from controller.jobs.hints import Channel, Hints
from controller.jobs.loops import Loops
from controller.jobs.models import Job
from controller.jobs.ports import (
    Courier,
    DriftObserver,
    NodeDirectory,
    NullPublisher,
    Publisher,
    RefusalObserver,
    ResultObserver,
    Signer,
    UpdateObserver,
)
from controller.jobs.queue import JobRequest, request_job
from controller.jobs.rows import ROWS_BY_ID, JobRow, notice_of
from controller.jobs.states import FINAL, NEEDS_ATTENTION, JobState
from controller.jobs.waiters import Waiters
from shared.errors import AgentOfflineError, ConflictError, FleetError
from shared.protocol.frames import Event, Progress
from shared.protocol.job import ErrorBody, JobMode, JobResult
from shared.protocol.job import JobState as NodeJobState

POLL_SECONDS: Final = 2.0
"""A lost hint costs at most this."""
PROGRESS_FLUSH_SECONDS: Final = 0.5
_log = structlog.get_logger("controller.jobs")
_levels = logging.getLogger("controller.jobs")


class JobEngine:
    """Moves jobs along. Everything it knows is in the database, so it may be stopped at any moment."""

    def __init__(
        self,
        database: Database,
        signer: Signer,
        *,
        publisher: Publisher | None = None,
        hints: Hints | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._signer = signer
        self._publisher: Publisher = publisher or NullPublisher()
        self._clock = clock
        self._nodes: NodeDirectory | None = None
        self._courier: Courier | None = None
        self._observers = results.Observers()
        self._waiters = Waiters()
        self._wake = asyncio.Event()
        self._progress: dict[tuple[str, str], tuple[int, Progress]] = {}
        self._loops = Loops()
        self._hints = hints or Hints()
        self._hints.on(Channel.REQUESTED, lambda _: self._wake.set())
        self._hints.on(Channel.CHANGED, self._waiters.wake)

    # --- wiring, before start -----------------------------------------------------------------------------------------

    def attach_nodes(self, nodes: NodeDirectory) -> None:
        """Name the one who knows the nodes (controller.fleet)."""
        self._nodes = nodes

    def attach_courier(self, courier: Courier) -> None:
        """Name the gateway of this process."""
        self._courier = courier

    def on_result(self, observer: ResultObserver) -> None:
        """Call this in the transaction of each final result of mode apply."""
        self._observers.results.append(observer)

    def on_update(self, observer: UpdateObserver) -> None:
        """Call this in the transaction of each report about an update."""
        self._observers.updates.append(observer)

    def on_refusal(self, observer: RefusalObserver) -> None:
        """Call this in the transaction of each refusal."""
        self._observers.refusals.append(observer)

    def on_drift(self, observer: DriftObserver) -> None:
        """Call this in the transaction of each drift report."""
        self._observers.drifts.append(observer)

    # --- life ---------------------------------------------------------------------------------------------------------

    async def start(self, *, works: bool = True, serves_agents: bool = True) -> None:
        """Begin to sign and to sweep, if it works; begin to write progress, if it serves agents.

        Raises:
            ConflictError: Nobody attached the nodes.
        """
        if self._nodes is None:
            raise ConflictError("the job engine needs to know the nodes before it starts")
        loops = (
            *((self._run_relay, self._run_sweeper) if works else ()),
            *((self._run_progress,) if serves_agents else ()),
        )
        for loop in loops:
            self._loops.spawn(loop(), name=f"jobs{loop.__name__}")

    async def stop(self) -> None:
        """End the tasks; what they had not done yet is done after the next start."""
        await self._loops.stop()

    # --- for use cases ------------------------------------------------------------------------------------------------

    def notify(self) -> None:
        """Hint, after a commit: there may be new jobs. May be lost."""
        self._hints.send(Channel.REQUESTED)

    async def wait(self, job_id: str, timeout_seconds: float) -> Job | None:
        """The job once it has ended; None when it has not in this time.

        Raises:
            NotFoundError: There is no such job.
        """
        with self._waiters.watch(job_id) as news:
            try:
                async with asyncio.timeout(timeout_seconds):
                    return await self._wait(job_id, news)
            except TimeoutError:
                return None

    async def _wait(self, job_id: str, news: asyncio.Event) -> Job:
        while True:
            news.clear()
            async with self._database.read() as session:
                job = await get_job(session, job_id)
            if job.state in FINAL:
                return job
            with contextlib.suppress(TimeoutError):
                # Another process may have moved it, so news is not the only reason to look.
                await asyncio.wait_for(news.wait(), timeout=1.0)

    async def wait_new(self, job_ids: Sequence[str], timeout_seconds: float) -> list[JobRow]:
        """Jobs that were requested a moment ago, once all have ended, or as they are when the time is over."""
        rows: dict[str, JobRow] = {}
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        with self._waiters.watch_all(job_ids) as news:
            while True:
                # Another process may move them, so news is not the only reason to look; but none has ended already.
                seconds = min(1.0, deadline - asyncio.get_running_loop().time())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(seconds, 0)):
                        await news.wait()
                news.clear()
                open_ids = [job_id for job_id in job_ids if job_id not in rows or rows[job_id].state not in FINAL]
                rows |= {row.id: row for row in await self._database.glance(ROWS_BY_ID, ids=open_ids)}
                if seconds <= 0 or all(job_id in rows and rows[job_id].state in FINAL for job_id in job_ids):
                    return [rows[job_id] for job_id in job_ids if job_id in rows]

    async def run_plan(self, request: JobRequest, timeout_seconds: float) -> JobResult:
        """Let the node plan what is asked, now; it touches nothing.

        Raises:
            AgentOfflineError: The node is not connected, or did not answer in time.
        """
        async with self._database.write() as session:
            if self._nodes is not None and not await self._nodes.is_connected(session, request.node_id):
                raise AgentOfflineError("the node is not connected", hint="See wcp360 nodes list.")
            plan = dataclasses.replace(request, mode=JobMode.PLAN, ttl_seconds=math.ceil(timeout_seconds) + 1)
            job_id = await request_job(session, plan, now=self._clock())
        self.notify()
        job = await self.wait(job_id, timeout_seconds)
        if job is not None:
            return require_result(job)
        with contextlib.suppress(ConflictError):  # it ended just now; nobody waits for it any more
            async with self._database.write() as session:
                await cancel_job(session, job_id, now=self._clock())
        self.notify()
        raise AgentOfflineError("the node did not answer in time", hint="It may be busy; try again.")

    async def announce(self, job_ids: Collection[str]) -> None:
        """Tell everybody, after a commit, that these jobs have changed."""
        if not job_ids:
            return
        self._hints.send(Channel.CHANGED, job_ids)
        self._tell(await self._database.glance(ROWS_BY_ID, ids=list(job_ids)))

    def announce_rows(self, rows: Sequence[JobRow]) -> None:
        """The same, by those who have just written these rows and know what is in them."""
        ended = [row.id for row in rows if row.state in FINAL]
        if ended:  # who waits for a job waits for its end
            self._hints.send(Channel.CHANGED, ended)
        self._tell(rows)

    def _tell(self, rows: Iterable[JobRow]) -> None:
        is_heard = self._publisher.is_heard("jobs")
        is_all_logged = _levels.isEnabledFor(logging.INFO)  # structlog would build each line before it asked
        for row in rows:
            if is_heard:
                self._publisher.publish("jobs", f"job.{row.state.value}", notice_of(row))
            if is_all_logged or row.state in NEEDS_ATTENTION:
                _log_change(row)

    # --- for the gateway ----------------------------------------------------------------------------------------------

    async def record_event(self, session: AsyncSession, node_id: str, event: Event) -> results.Recorded:
        """Store an event of a node in this transaction; call `settle` after the commit."""
        return await results.record_event(session, node_id, event, observers=self._observers, now=self._clock())

    async def note_refusal(self, session: AsyncSession, job: Job, error: ErrorBody | None) -> None:
        """Tell the observers that a node refused the job, in this transaction."""
        for observer in self._observers.refusals:
            await observer(session, job, error, self._clock())

    async def sign_again(self, session: AsyncSession, node_id: str, delivery_id: str) -> None:
        """Give a job whose signature its node does not believe those of the keys that sign now, in this transaction."""
        job = await offers.find_by_delivery(session, node_id, delivery_id)
        if job is not None:
            await signatures.sign_again(session, job, signer=self._signer)

    async def settle(self, recorded: results.Recorded) -> None:
        """After the commit of `record_event`: wake those who wait, and the next job of the lane."""
        self.notify()
        await self.announce(recorded.job_ids)

    def note_progress(self, node_id: str, session_epoch: int, frame: Progress) -> None:
        """Keep the latest progress of a job; it is written a moment later, if the session still counts then."""
        self._progress[node_id, frame.job_id] = (session_epoch, frame)

    # --- tasks --------------------------------------------------------------------------------------------------------

    async def _run_relay(self) -> None:
        is_going_on = True
        while is_going_on:
            try:
                await self.relay_once()
                is_going_on = await self._loops.pause_until(self._wake, _jittered(POLL_SECONDS))
            except (SQLAlchemyError, FleetError, OSError) as error:
                _log.warning("jobs.relay_failed", error=str(error))
                is_going_on = await self._loops.pause(1.0)

    async def relay_once(self) -> int:
        """Sign everything whose lane is free; returns how many."""
        if self._nodes is None:
            return 0
        signed = 0
        self._wake.clear()
        while True:
            if not await self._database.glance(relay.HAS_REQUESTS):
                return signed
            async with self._database.hot() as driver:
                now = self._clock()
                ready, claimed = await relay.sign_batch(
                    driver, signer=self._signer, nodes=self._nodes, now=now, courier=self._courier
                )
                faults.at("sign.before_commit")
            faults.at("sign.after_commit")
            signed += len(ready)
            if self._courier is not None:
                self._courier.send(claimed)
            elsewhere = dict.fromkeys(node_id for node_id in ready if node_id not in claimed.claims)
            if elsewhere:
                self._hints.send(Channel.WORK, elsewhere)
            if len(ready) < relay.BATCH:
                return signed

    async def _run_sweeper(self) -> None:
        while await self._loops.pause(_jittered(POLL_SECONDS)):
            try:
                await self.sweep_once()
            except (SQLAlchemyError, FleetError, OSError) as error:
                _log.warning("jobs.sweep_failed", error=str(error))

    async def sweep_once(self) -> list[str]:
        """Do what time asks for; returns the ids of the jobs that it ended."""
        now = self._clock()
        async with self._database.read() as session:
            if not await sweeper.has_late_jobs(session, now=now):
                return []
        async with self._database.write() as session:
            connected = await self._nodes.connected_since(session) if self._nodes is not None else {}
            ended = await sweeper.expire_jobs(session, now=now)
            ended += await sweeper.give_up_overdue(session, connected, now=now)
            faults.at("sweep.before_commit")
        faults.at("sweep.after_commit")
        if ended:
            self.notify()
            await self.announce(ended)
        return ended

    async def _run_progress(self) -> None:
        while await self._loops.pause(PROGRESS_FLUSH_SECONDS):
            try:
                await self.flush_progress()
            except (SQLAlchemyError, OSError) as error:
                _log.warning("jobs.progress_failed", error=str(error))

    async def flush_progress(self) -> None:
        """Write what `note_progress` kept."""
        if not self._progress:
            return
        latest, self._progress = self._progress, {}
        async with self._database.write() as session:
            epochs = {node_id: epoch for (node_id, _), (epoch, _) in latest.items()}
            current = await self._nodes.find_current(session, epochs) if self._nodes is not None else set()
            found = [
                await offers.record_progress(session, node_id, frame, now=self._clock())
                for (node_id, _), (epoch, frame) in latest.items()
                if node_id in current and epoch == epochs[node_id]
            ]
            faults.at("progress.before_commit")
        faults.at("progress.after_commit")
        await self.announce([job_id for job_id in found if job_id is not None])


def _log_change(job: JobRow) -> None:
    """One line for each step of a job's life, with the ids that join it to the request and to the node's log."""
    if job.state is JobState.RUNNING:
        return  # progress: said many times
    ids = {"job_id": job.id, "request_id": job.request_id, "node_id": job.node_id}
    write = _log.warning if job.state in NEEDS_ATTENTION else _log.info
    write(f"job.{job.state.value}", label=job.label, code=job.error_code, reason=job.error_message, **ids)


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(0.8, 1.2)  # noqa: S311 - jitter


def require_result(job: Job) -> JobResult:
    """What the node said; for a job that ended without its word, a result that says so."""
    if job.result is not None:
        return msgspec.msgpack.decode(job.result, type=JobResult)
    error = ErrorBody(
        code=job.error_code or job.state.value,
        message=job.error_message or f"the job is {job.state.value}",
        hint=job.error_hint,
    )
    return JobResult(job_id=job.id, state=NodeJobState.REFUSED, generation=job.generation, error=error)
