"""The one path of every change: one transaction holds the rows, the audit entries and the jobs, or none of them.

Changes are serialised: SQLite has one writer anyway, and on PostgreSQL each change first takes an advisory lock. So a
use case may check a limit or a name and then write, without a second thought about what others do in between; a change
takes milliseconds, and whatever takes longer is a job.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Generic, NoReturn, Protocol, TypeVar

from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from controller import faults
from controller.core.audit.chain import append_changes
from controller.core.audit.duty import require_entries
from controller.core.audit.refusals import Refusals
from controller.core.audit.tenants import Tenant
from controller.core.context import Actor, OpContext
from controller.core.maintenance.gate import require_change_allowed
from controller.core.manifest import ManifestRegistry
from controller.core.plan import NodePlan, PlanProblem, PlanView, view_change, view_result
from controller.core.tenancy.criteria import criteria_of
from controller.db.base import utc_now
from controller.db.criteria import narrow, widened
from controller.db.engine import Database
from controller.jobs.models import Job
from controller.jobs.queue import JobRequest, request_job
from controller.jobs.tasks import TaskKind, Tasks
from controller.jobs.views import JobView, render_jobs
from shared.errors import AgentOfflineError, BugError, ConflictError, FleetError
from shared.protocol.job import JobMode, JobResult
from shared.specs.account import ResourceLimits
from shared.specs.manifest import DriftPolicy

T = TypeVar("T")

PLAN_TIMEOUT_SECONDS: Final = 15.0
_PLANS_AT_ONCE: Final = 32
_CHANGE_LOCK: Final = 0x77637033_36300001
"""Key of the advisory lock: "wcp360" and a number, so that another program in the same database is not in its way."""
_SERIALIZATION_STATES: Final = frozenset({"40001", "40P01"})
"""serialization_failure and deadlock_detected. Source: PostgreSQL manual, appendix A."""


class JobEngine(Protocol):
    """What changes need of the job engine (controller.jobs.engine)."""

    def notify(self) -> None:
        """Hint: there are new jobs."""
        ...

    async def run_plan(self, request: JobRequest, timeout_seconds: float) -> JobResult:
        """Let the node plan now.

        Raises:
            AgentOfflineError: It is not connected, or did not answer in time.
        """
        ...


class Fleet(Protocol):
    """What changes need to know of the nodes (controller.fleet)."""

    async def choose_node(self, session: AsyncSession, *, roles: frozenset[str], limits: ResourceLimits) -> str:
        """Id of the node with the most room.

        Raises:
            ConflictError: No node can take it.
        """
        ...

    async def require_placeable(self, session: AsyncSession, node_id: str) -> None:
        """Pass when the node exists and takes new accounts.

        Raises:
            NotFoundError, ConflictError
        """
        ...

    async def allocate_uid(self, session: AsyncSession, node_id: str) -> int:
        """A unix id that was never used on this node."""
        ...

    async def drift_policy(self, session: AsyncSession, node_id: str) -> DriftPolicy: ...

    async def php_versions(self, session: AsyncSession, node_id: str) -> frozenset[str] | None:
        """What the node said it can run; None when it has not said."""
        ...


class EventPublisher(Protocol):
    """Tells whoever watches that something changed."""

    def publish(self, topic: str, event: str, data: Mapping[str, Any]) -> None: ...


@dataclass(slots=True)
class FleetContext(OpContext):
    """An OpContext that can also reach the nodes: compile manifests, place accounts, ask for jobs."""

    registry: ManifestRegistry = field(kw_only=True)
    fleet: Fleet = field(kw_only=True)
    tasks: Tasks | None = field(default=None, kw_only=True)
    unplanned: int = field(default=0, kw_only=True)
    """Accounts that have their turn after this change is committed: a dry run cannot ask their nodes, but says so."""

    async def later(self, kind: str, args: dict[str, Any], *, dedup_key: str | None = None) -> None:
        """Let the controller itself do something after this change is committed (controller.jobs.tasks).

        Raises:
            BugError: Nobody can run this kind.
        """
        if self.tasks is None:
            raise BugError(f"nobody runs tasks here, and {kind} was asked for")
        with widened(self.session):
            await self.tasks.add(self.session, kind, args, dedup_key=dedup_key)

    async def ask(self, request: JobRequest) -> str:
        """Ask a node for something; the id of the job."""
        with widened(self.session):
            job_id = await request_job(self.session, request, now=self.now)
        self.job_ids.append(job_id)
        return job_id


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """What came of a change."""

    resource: T
    jobs: tuple[JobView, ...] = ()
    """Requested in the same transaction, in order."""
    plan: PlanView | None = None
    """Set for a dry run, and then nothing was written."""


class _RolledBack(Exception):  # noqa: N818 - no error: the way out of a dry run's transaction
    """Ends a dry run's transaction without a commit."""


def _roll_back() -> NoReturn:
    raise _RolledBack


class Operations:
    """Runs use cases. Bootstrap builds one."""

    def __init__(
        self,
        database: Database,
        *,
        registry: ManifestRegistry,
        fleet: Fleet,
        engine: JobEngine,
        publisher: EventPublisher,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._registry = registry
        self._fleet = fleet
        self._engine = engine
        self._publisher = publisher
        self._tasks: Tasks | None = None
        self._watchers: list[Callable[[FleetContext], Awaitable[None]]] = []
        self._clock = clock
        self.refusals = Refusals(database, clock=clock)
        """Writes down who was refused what; for what is refused before it comes here."""

    @property
    def database(self) -> Database:
        """Where it all is."""
        return self._database

    def now(self) -> datetime:
        """What the time is for changes (aware, UTC)."""
        return self._clock()

    def attach_tasks(self, tasks: Tasks, kinds: Iterable[TaskKind]) -> None:
        """Before the first change: who runs tasks, and the kinds that use cases ask for."""
        self._tasks = tasks
        for kind in kinds:
            tasks.register(kind)

    def on_change(self, watcher: Callable[[FleetContext], Awaitable[None]]) -> None:
        """Call this at the end of each change, in its transaction; never for a dry run."""
        self._watchers.append(watcher)

    async def change(
        self,
        actor: Actor,
        request_id: str,
        use_case: Callable[[FleetContext], Awaitable[T]],
        *,
        is_dry_run: bool = False,
        is_for_maintenance: bool = False,
    ) -> Outcome[T]:
        """Run the use case in a write transaction; it may be called twice, each time in a new one.

        `is_for_maintenance`: it begins or ends the controller's maintenance, so it may change something during it.

        Raises:
            MaintenanceError: The controller is in maintenance, and this is a change of a person.
            ConflictError: Somebody else changed the same thing at the same moment, twice in a row.
            AgentOfflineError: A dry run, and no node that has to plan is connected.
            FleetError: Whatever the use case raises; nothing was written then.
        """
        if not is_dry_run and not is_for_maintenance:
            use_case = _unless_in_maintenance(use_case)
        try:
            return await self._attempt(actor, request_id, use_case, is_dry_run=is_dry_run)
        except DBAPIError as error:
            if not _is_race(error):
                raise
        try:
            # The other one is committed now, so the use case's own checks name the conflict better than a constraint.
            return await self._attempt(actor, request_id, use_case, is_dry_run=is_dry_run)
        except DBAPIError as error:
            if not _is_race(error):
                raise
            raise ConflictError(
                "somebody else changed the same thing at the same moment", hint="Look at it again, then try again."
            ) from error

    async def read(self, actor: Actor, request_id: str, query: Callable[[FleetContext], Awaitable[T]]) -> T:
        """Run a query; whatever it writes is thrown away."""
        try:
            async with self._database.read() as session:
                narrow(session, criteria_of(actor.reach))
                return await query(self._context(session, actor, request_id, is_dry_run=False))
        except FleetError as error:
            await self.refusals.note(actor, request_id, error)
            raise

    async def _attempt(
        self, actor: Actor, request_id: str, use_case: Callable[[FleetContext], Awaitable[T]], *, is_dry_run: bool
    ) -> Outcome[T]:
        done: list[tuple[T, FleetContext]] = []
        requests: list[JobRequest] = []
        jobs: tuple[JobView, ...] = ()
        try:
            async with self._database.write() as session:
                await self._serialise(session)
                ctx = self._context(session, actor, request_id, is_dry_run=is_dry_run)
                narrow(session, criteria_of(actor.reach))
                done.append((await use_case(ctx), ctx))
                narrow(session, ())
                if not is_dry_run:
                    await require_entries(ctx)
                tenants = await append_changes(ctx)
                jobs = await render_jobs(session, ctx.job_ids)
                if is_dry_run:
                    requests = await _plan_requests(session, ctx.job_ids)
                    _roll_back()
                for watcher in self._watchers:
                    await watcher(ctx)
                faults.at("change.before_commit")
        except FleetError as error:
            await self.refusals.note(actor, request_id, error)
            raise
        except _RolledBack:
            resource, ctx = done[0]
            return Outcome(resource=resource, plan=await self._plan(ctx, requests))
        faults.at("change.after_commit")
        resource, ctx = done[0]
        self._announce(ctx, tenants)
        return Outcome(resource=resource, jobs=jobs)

    async def _serialise(self, session: AsyncSession) -> None:
        await take_turn(self._database, session)

    def _context(self, session: AsyncSession, actor: Actor, request_id: str, *, is_dry_run: bool) -> FleetContext:
        return FleetContext(
            actor=actor,
            session=session,
            request_id=request_id,
            now=self._clock(),
            is_dry_run=is_dry_run,
            registry=self._registry,
            fleet=self._fleet,
            tasks=self._tasks,
        )

    def _announce(self, ctx: FleetContext, tenants: Sequence[Tenant]) -> None:
        """After the commit: hints only, so a crash right here loses nothing."""
        if ctx.job_ids:
            self._engine.notify()
        for change, tenant in zip(ctx.changes, tenants, strict=True):
            noun, _, row_id = change.target.partition("/")
            whose = {key: value for key, value in tenant._asdict().items() if value is not None}
            self._publisher.publish(f"{noun}s", change.action, {"id": row_id, "name": change.target_name, **whose})

    async def _plan(self, ctx: FleetContext, requests: Sequence[JobRequest]) -> PlanView:
        room = asyncio.Semaphore(_PLANS_AT_ONCE)
        answers = await asyncio.gather(*(self._plan_one(request, room) for request in requests))
        offline = [answer for answer in answers if isinstance(answer, AgentOfflineError)]
        if offline and len(offline) == len(answers):
            raise offline[0]
        return PlanView(
            changes=tuple(view_change(change) for change in ctx.changes),
            nodes=tuple(_view_answer(request, answer) for request, answer in zip(requests, answers, strict=True)),
            unplanned=ctx.unplanned,
        )

    async def _plan_one(self, request: JobRequest, room: asyncio.Semaphore) -> JobResult | FleetError:
        async with room:
            try:
                return await self._engine.run_plan(request, PLAN_TIMEOUT_SECONDS)
            except FleetError as error:
                return error


async def take_turn(database: Database, session: AsyncSession) -> None:
    """Wait until no other change is under way; the turn lasts as long as the transaction."""
    if not database.is_sqlite:
        await session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _CHANGE_LOCK})


def _unless_in_maintenance(use_case: Callable[[FleetContext], Awaitable[T]]) -> Callable[[FleetContext], Awaitable[T]]:
    """The use case, after a look at the controller's maintenance in the same transaction."""

    async def run(ctx: FleetContext) -> T:
        await require_change_allowed(ctx.session, ctx.actor, now=ctx.now)
        return await use_case(ctx)

    return run


async def _plan_requests(session: AsyncSession, job_ids: Sequence[str]) -> list[JobRequest]:
    """The jobs of this transaction as requests for plans, in order; read back, because the rows will not exist."""
    rows = {row.id: row for row in await session.scalars(select(Job).where(Job.id.in_(job_ids)))}
    return [
        JobRequest(
            node_id=row.node_id,
            action=row.action,
            args=row.args,
            resource_key=row.resource_key,
            generation=row.generation,
            mode=JobMode.PLAN,
            semantics=row.semantics,
            actor=row.actor,
            request_id=row.request_id,
            label=row.label,
            account_id=row.account_id,
            max_runtime_seconds=row.max_runtime_seconds,
        )
        for row in (rows[job_id] for job_id in job_ids)
    ]


def _view_answer(request: JobRequest, answer: JobResult | FleetError) -> NodePlan:
    if isinstance(answer, JobResult):
        return view_result(request.node_id, request.resource_key, answer)
    error = PlanProblem(code=answer.code, message=answer.message, hint=answer.hint)
    return NodePlan(node=request.node_id, subject=request.resource_key, error=error)


def _is_race(error: DBAPIError) -> bool:
    """Whether the same statements may well succeed in a new transaction."""
    return isinstance(error, IntegrityError) or getattr(error.orig, "sqlstate", None) in _SERIALIZATION_STATES
