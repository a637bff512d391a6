"""Takes signed jobs, runs them in their lanes, and keeps each result until the agent has stored it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from agent.core.acceptance import JobArguments, decode_arguments, effective_now, require_generation, require_time
from agent.core.boundary import error_body
from agent.core.context import NodeContext
from agent.core.database import JournalBrokenError
from agent.core.drift import DriftCheck
from agent.core.identity import Identity, TrustStore
from agent.core.intake import Intake
from agent.core.lanes import Lanes
from agent.core.looks import Looks
from agent.core.planning import plan_targets
from agent.core.progress import make_reporter
from agent.core.reconciler import Convergence, Reconciler
from agent.core.records import Applied, JobRow
from agent.core.recovery import quarantine, recover
from agent.core.streams import WorkerGate
from agent.core.watch import CancelledByRequestError, Watch
from shared.errors import FleetError, RefusedError, RollbackError, UnavailableError
from shared.protocol.job import (
    DriftRequest,
    ErrorBody,
    Job,
    JobMode,
    JobResult,
    JobState,
    decode_job,
)
from shared.protocol.local import (
    CancelLocal,
    DriftFound,
    ExecutorStatus,
    FromExecutor,
    JobFinished,
    OpenWorker,
    RequestDrift,
    RequestHealth,
    RequestStatus,
    RequestUsage,
    ResultStored,
    SubmitJob,
    SubmitTrust,
    ToExecutor,
    TrustTaken,
)
from shared.specs.manifest import NODE_SUBJECT, Manifest, manifest_digest

PRUNE_EVERY: Final = 100
"""Stored results; what is old goes at the start too, but a busy executor may not start again for days."""

_log = logging.getLogger(__name__)

Listener = Callable[[FromExecutor], None]


class Executor:
    """The root side as one object; `server` puts it behind a socket, the simulator talks to it directly."""

    def __init__(self, node: NodeContext, *, identity: Identity | None, trust: TrustStore) -> None:
        self._node = node
        self._journal = node.journal
        self._identity = identity
        self._trust = trust
        self._lanes = Lanes()
        self._reconciler = Reconciler(node)
        self._drift = DriftCheck(node, self._reconciler, self._lanes)
        self._intake = Intake(node.journal, identity, trust)
        self._gate = WorkerGate(node=node, identity=identity, trust=trust)
        self._looks = Looks(node, self._drift, self._tell, self._spawn)
        self.on_broken: Callable[[FleetError], None] = lambda _error: None
        """Told when the journal can take nothing more: the process must end, and the next one recover."""
        self._listeners: set[Listener] = set()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._watches: dict[str, Watch] = {}
        self._other_tasks: set[asyncio.Task[None]] = set()
        self._stored_count = 0

    # --- life -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Recover from a crash, then go on with the jobs that wait."""
        await recover(self._node)
        self._journal.prune(now=self._effective_now())
        self._schedule_waiting()

    async def stop(self, *, grace_seconds: float) -> None:
        """Let running jobs end; one that does not is undone at the next start."""
        tasks = [*self._tasks.values(), *self._other_tasks]
        if tasks:
            await asyncio.wait(tasks, timeout=grace_seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def is_idle(self) -> bool:
        """Nothing runs; results that were not stored yet wait on disk."""
        return not self._tasks and not self._other_tasks

    def listen(self, listener: Listener) -> tuple[list[str], Callable[[], None]]:
        """Hand the listener every coming frame; returns the jobs whose results nobody has stored, and the way out."""
        self._listeners.add(listener)
        return self._journal.list_unstored_ids(), lambda: self._listeners.discard(listener)

    def find_result(self, job_id: str) -> JobFinished | None:
        """The result of a job, as long as it is remembered."""
        row = self._journal.find_job(job_id)
        return None if row is None or row.result is None else JobFinished(result=row.result)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Hand the listener the results that nobody has stored yet, then every coming frame; returns the way out."""
        self._listeners.add(listener)
        for row in self._journal.list_unstored():
            if row.result is not None:
                listener(JobFinished(result=row.result))
        return lambda: self._listeners.discard(listener)

    # --- frames ---------------------------------------------------------------------------------------------------

    def answer(self, frame: ToExecutor) -> tuple[FromExecutor, ...]:
        """Take one frame; what is answered at once. Results, progress and drift reports go to the listeners.

        Raises:
            JournalBrokenError: Nothing more can be answered; the process ends.
        """
        try:
            return self._react(frame)
        except UnavailableError as error:
            # A full disk: what was not remembered comes again.
            _log.warning("%s could not be taken in: %s", type(frame).__name__, error)
            return ()
        except JournalBrokenError as error:
            self._give_up(error)
            raise

    def _react(self, frame: ToExecutor) -> tuple[FromExecutor, ...]:  # noqa: PLR0911 - one for each kind of frame
        match frame:
            case SubmitJob():
                return self._submit(frame)
            case SubmitTrust():
                return (self._take_trust(frame),)
            case CancelLocal():
                return self._cancel(frame.job_id)
            case ResultStored():
                self._journal.mark_stored(frame.job_id)
                self._prune_now_and_then()
                return ()
            case RequestDrift() | RequestHealth() | RequestUsage():
                self._looks.ask(frame)
                return ()
            case RequestStatus():
                return (self._status(),)
            case OpenWorker():
                self._spawn(self._open_worker(frame))
                return ()

    def _submit(self, frame: SubmitJob) -> tuple[FromExecutor, ...]:
        accepted, result = self._intake.take(frame.envelope, now=self._effective_now(), floor=self._floor())
        self._schedule_waiting()
        return (accepted,) if result is None else (accepted, JobFinished(result=result))

    def _take_trust(self, frame: SubmitTrust) -> TrustTaken:
        version = 0 if self._trust.bundle is None else self._trust.bundle.version
        try:
            bundle = self._trust.take(frame.envelope, now=self._effective_now())
        except FleetError as error:
            return TrustTaken(version=version, ca_certificates=self._trust.ca_certificates, error=error_body(error))
        return TrustTaken(version=bundle.version, ca_certificates=bundle.ca_certificates)

    def _cancel(self, job_id: str) -> tuple[FromExecutor, ...]:
        row = self._journal.find_job(job_id)
        if row is None:
            _log.warning("asked to cancel the unknown job %s", job_id[:80])
            return ()
        if row.state.is_final:
            return () if row.result is None else (JobFinished(result=row.result),)
        self._journal.request_cancel(job_id)
        watch = self._watches.get(job_id)
        if watch is not None:
            watch.cancel()
            return ()
        task = self._tasks.pop(job_id, None)
        if task is not None:
            task.cancel()
        result = self._failed(row, "cancelled", "the job was cancelled before it began", state=JobState.CANCELLED)
        self._journal.finish_job(result)
        self._tell(JobFinished(result=result))
        return ()

    def _status(self) -> ExecutorStatus:
        bundle = self._trust.bundle
        identity = self._identity
        return ExecutorStatus(
            journal_epoch=self._journal.epoch,
            last_seq=self._journal.last_seq,
            bundle_version=0 if bundle is None else bundle.version,
            node_id="" if identity is None else identity.node_id,
            node_gen=0 if identity is None else identity.node_gen,
            cluster_id="" if identity is None else identity.cluster_id,
            running_jobs=len(self._journal.list_unfinished()),
            quarantine=self._journal.quarantine,
            has_room=self._journal.database.room.has_room(),
            modules=self._node.registry.versions,
            ca_certificates=self._trust.ca_certificates,
            seq_gaps=self._journal.seq_gaps(),
        )

    async def _open_worker(self, frame: OpenWorker) -> None:
        self._tell(await self._gate.open(frame, now=self._effective_now()))

    # --- jobs -----------------------------------------------------------------------------------------------------

    def _schedule_waiting(self) -> None:
        """Give every waiting job its task; the lanes decide when it runs."""
        if self._journal.quarantine:
            return
        for row in self._journal.list_unfinished():
            if row.job_id not in self._tasks:
                task = asyncio.create_task(self._run(row), name=f"job-{row.job_id}")
                self._tasks[row.job_id] = task
                task.add_done_callback(self._forget_task)

    def _forget_task(self, task: asyncio.Task[None]) -> None:
        self._tasks = {job_id: other for job_id, other in self._tasks.items() if other is not task}

    async def _run(self, row: JobRow) -> None:
        """Run one job to its end; whatever happens, it has a result, from this process or from the next."""
        try:
            result = await self._run_to_its_end(row)
        except (JournalBrokenError, UnavailableError) as error:
            self._give_up(error)
            return
        if result is not None:
            _log.info("job ended: %s%s", result.state.value, _reason_of(result), extra=_ids_of(row))
            self._tell(JobFinished(result=result))

    async def _run_to_its_end(self, row: JobRow) -> JobResult | None:
        try:
            return await self._run_in_lane(row)
        except JournalBrokenError:
            raise
        except RollbackError as error:
            return quarantine(self._node, error, job_id=row.job_id)
        except Exception as error:  # noqa: BLE001 - the executor's boundary: a job always ends in a result
            return self._end_with(row, error)

    def _give_up(self, error: FleetError) -> None:
        """The journal takes nothing more, so nothing more may be done: what is half done the next process undoes."""
        _log.error("the executor cannot go on: %s", error, exc_info=error)
        self.on_broken(error)

    def _end_with(self, row: JobRow, error: Exception) -> JobResult | None:
        """The result of a job that ended in an error of its own; one that left a transaction open is a broken node."""
        if any(open_one.job_id == row.job_id for open_one in self._journal.ledger.list_transactions()):
            message = f"the executor failed in the middle of a change: {error}"
            return quarantine(self._node, RollbackError(message), job_id=row.job_id)
        body = error_body(error)
        if isinstance(error, CancelledByRequestError):
            state = JobState.CANCELLED
        else:
            state = JobState.REFUSED if isinstance(error, RefusedError) else JobState.FAILED
        result = self._failed(row, body.code, body.message, state=state)
        self._journal.finish_job(result)
        return result

    async def _run_in_lane(self, row: JobRow) -> JobResult | None:
        """Wait for the lane and run there; a drift check takes the lanes of its subjects itself."""
        job = decode_job(row.payload)
        arguments = decode_arguments(job)
        if isinstance(arguments, DriftRequest):
            return await self._execute(job, arguments)
        is_exclusive = isinstance(arguments, Manifest) and row.subject == NODE_SUBJECT and job.mode is JobMode.APPLY
        async with self._lanes.hold(row.subject, order=job.seq, is_exclusive=is_exclusive):
            return None if self._journal.quarantine else await self._execute(job, arguments)

    async def _execute(self, job: Job, arguments: JobArguments) -> JobResult:
        watch = self._watches[job.job_id] = Watch(make_reporter(job.job_id, self._tell))
        try:
            (self._journal.start_noop if arguments is None else self._journal.start_job)(job.job_id)
            _log.info("job started: %s %s", job.action, job.resource_key, extra=_ids_of(job))
            return await self._execute_started(job, arguments, watch)
        finally:
            self._watches.pop(job.job_id, None)

    async def _execute_started(self, job: Job, arguments: JobArguments, watch: Watch) -> JobResult:
        require_time(job, now=self._effective_now())
        if isinstance(arguments, Manifest):
            return await self._converge(job, arguments, watch)
        if isinstance(arguments, DriftRequest):
            return await self._drift_job(job, arguments)
        now = self._node.now()
        result = JobResult(job_id=job.job_id, state=JobState.SUCCEEDED, started_at=now, finished_at=now)
        self._journal.finish_job(result)
        return result

    async def _converge(self, job: Job, manifest: Manifest, watch: Watch) -> JobResult:
        ledger = self._journal.ledger
        require_generation(job, manifest, applied=ledger.find_applied(manifest.subject), newest_queued=0)
        targets = plan_targets(manifest, ledger.holdings(manifest.subject))
        request = Convergence(
            subject=manifest.subject,
            targets=targets,
            job_id=job.job_id,
            held=tuple(key for key in manifest.held if key not in {target.key for target in targets}),
            applied=Applied(
                subject=manifest.subject,
                generation=manifest.generation,
                digest=manifest_digest(manifest),
                presence=manifest.presence,
                drift_policy=manifest.drift_policy,
                seq=job.seq,
            ),
            generation=manifest.generation,
            max_runtime_seconds=job.max_runtime_seconds,
        )
        if job.mode is JobMode.APPLY:
            return await self._reconciler.converge(request, watch=watch)
        result = await self._reconciler.preview(request, watch=watch)
        self._journal.finish_job(result)
        return result

    async def _drift_job(self, job: Job, request: DriftRequest) -> JobResult:
        started_at = self._node.now()
        async with asyncio.timeout(job.max_runtime_seconds):
            report, previews = await self._drift.check(request.subjects, may_repair=job.mode is JobMode.APPLY)
        self._tell(DriftFound(report=report))
        result = JobResult(
            job_id=job.job_id,
            state=JobState.SUCCEEDED,
            changes=tuple(change for preview in previews for change in preview.changes),
            resources=tuple(resource for preview in previews for resource in preview.resources),
            started_at=started_at,
            finished_at=self._node.now(),
        )
        self._journal.finish_job(result)
        return result

    def _prune_now_and_then(self) -> None:
        self._stored_count += 1
        if self._stored_count % PRUNE_EVERY == 0:
            self._journal.prune(now=self._effective_now())

    # --- small things ---------------------------------------------------------------------------------------------

    def _effective_now(self) -> float:
        return effective_now(self._floor(), self._journal.controller_time)

    def _floor(self) -> float:
        """Not earlier than the newest trust bundle, whatever the clock here says."""
        bundle = self._trust.bundle
        return effective_now(self._node.now(), 0.0 if bundle is None else bundle.issued_at)

    def _tell(self, frame: FromExecutor) -> None:
        for listener in tuple(self._listeners):
            listener(frame)

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._other_tasks.add(task)
        task.add_done_callback(self._other_tasks.discard)

    def _failed(self, row: JobRow, code: str, message: str, *, state: JobState) -> JobResult:
        return JobResult(
            job_id=row.job_id,
            state=state,
            generation=decode_job(row.payload).generation,
            error=ErrorBody(code=code, message=message),
            is_rolled_back=True,
            finished_at=self._node.now(),
        )


def _ids_of(job: Job | JobRow) -> dict[str, str]:
    """What joins a line of this log with those of the controller's."""
    request_id = job.request_id if isinstance(job, Job) else decode_job(job.payload).request_id
    return {"job_id": job.job_id, "request_id": request_id}


def _reason_of(result: JobResult) -> str:
    return f" ({result.error.code}: {result.error.message})" if result.error is not None else ""
