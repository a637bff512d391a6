"""Jobs over HTTP."""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec
from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, QueryParameter
from msgspec import Meta
from sqlalchemy import select

from controller.core.audit.chain import record
from controller.core.context import Actor, Change
from controller.core.explanation import read_background
from controller.core.fields import require_text
from controller.core.http import (
    DRY_RUN_RESPONSES,
    Cursor,
    DryRun,
    Limit,
    OfAccount,
    PathId,
    answer_accepted,
    answer_done,
)
from controller.core.operations import FleetContext, Operations
from controller.core.paging import DEFAULT_LIMIT, PageRequest, fetch_page
from controller.fleet.fleet import Fleet
from controller.jobs.commands import Decision, cancel_job, decide_job, discard_job, get_job, retry_job
from controller.jobs.engine import JobEngine
from controller.jobs.explain import Explanation, explain_job
from controller.jobs.holds import release_job
from controller.jobs.models import Job, JobTransition
from controller.jobs.states import JobState
from controller.jobs.views import JobPage, JobView, render_job
from controller.jobs.waiting import find_waits
from shared.errors import ConflictError

_TAGS = ["jobs"]


class JobDetail(JobView, frozen=True, kw_only=True):
    """A job with everything that explains it."""

    explanation: Explanation


class DecisionKind(enum.Enum):
    """What a person found out."""

    DONE = "done"
    AGAIN = "again"


class JobDecision(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A person's word about a job of which nobody can say how it ended."""

    decision: Annotated[DecisionKind, Meta(description="done: it was done, close it. again: have it done again.")]
    note: Annotated[str, Meta(min_length=1, max_length=300, description="How you know.")]


class JobChange(msgspec.Struct, frozen=True, kw_only=True):
    """A job, and the new one if there is one."""

    resource: JobView
    jobs: tuple[JobView, ...]


@get("/jobs", operation_id="list-jobs", tags=_TAGS, summary="List jobs")
async def list_jobs(
    *,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    wanted_state: Annotated[
        JobState | None, QueryParameter(name="state", description="Only jobs in this state.")
    ] = None,
    node_id: Annotated[str | None, QueryParameter(description="Only those of this node.")] = None,
    account_id: OfAccount = None,
) -> JobPage:
    """Show what nodes were asked to do, newest first."""

    async def query(ctx: FleetContext) -> JobPage:
        ctx.actor.require("jobs", "read")
        statement = select(Job)
        for column, value in ((Job.state, wanted_state), (Job.node_id, node_id), (Job.account_id, account_id)):
            statement = statement if value is None else statement.where(column == value)
        found = await fetch_page(ctx.session, statement, PageRequest(limit=limit, cursor=cursor))
        waits = await find_waits(ctx.session, found.rows)
        items = tuple(render_job(row, waits.get(row.id, "")) for row in found.rows)
        return JobPage(items=items, next_cursor=found.next_cursor)

    return await operations.read(actor, request_id, query)


@get("/jobs/{job_id:str}", operation_id="show-job", tags=_TAGS, summary="Show a job")
async def show_job(
    *,
    job_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> JobDetail:
    """Show a job: who asked, which rule, which files and commands, what came of it, how to undo it."""

    async def query(ctx: FleetContext) -> JobDetail:
        ctx.actor.require("jobs", "read")
        return await _explain(ctx, job_id)

    return await operations.read(actor, request_id, query)


@get("/jobs/{job_id:str}/explain", operation_id="explain-job", tags=_TAGS, summary="Explain a job")
async def explain(
    *,
    job_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> JobDetail:
    """Tell everything about a job: who asked, why, what it waits for, what ran, what it changed, what undoes it."""

    async def query(ctx: FleetContext) -> JobDetail:
        ctx.actor.require("jobs", "read")
        return await _explain(ctx, job_id)

    return await operations.read(actor, request_id, query)


async def _explain(ctx: FleetContext, job_id: str) -> JobDetail:
    session = ctx.session
    job = await get_job(session, job_id)
    statement = select(JobTransition).where(JobTransition.job_id == job_id).order_by(JobTransition.id)
    history = (await session.execute(statement)).scalars().all()
    background = await read_background(session, job, ctx.actor.reach)
    view = render_job(job, background.waits_for)
    return JobDetail(**msgspec.structs.asdict(view), explanation=explain_job(job, history, background))


@post(
    "/jobs/{job_id:str}/cancel",
    operation_id="cancel-job",
    tags=_TAGS,
    status_code=202,
    responses=DRY_RUN_RESPONSES,
    summary="Cancel a job",
)
async def cancel(
    *,
    job_id: PathId,
    engine: NamedDependency[JobEngine],
    fleet: NamedDependency[Fleet],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[JobChange]:
    """Cancel a job. What a node has already is cancelled by the node, whose answer decides."""

    async def use_case(ctx: FleetContext) -> JobView:
        ctx.actor.require("jobs", "write")
        return _recorded(ctx, "job.cancel", await cancel_job(ctx.session, job_id, now=ctx.now))

    outcome = await operations.change(actor, request_id, use_case, is_dry_run=dry_run)
    engine.notify()
    await engine.announce([job_id])
    fleet.gateway.check_soon()
    return answer_accepted(outcome, lambda view, jobs: JobChange(resource=view, jobs=jobs))


@post(
    "/jobs/{job_id:str}/retry",
    operation_id="retry-job",
    tags=_TAGS,
    status_code=202,
    responses=DRY_RUN_RESPONSES,
    summary="Retry a job",
)
async def retry(
    *,
    job_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[JobChange]:
    """Ask for the same thing again, as a job of its own."""

    async def use_case(ctx: FleetContext) -> JobView:
        ctx.actor.require("jobs", "write")
        new_id = await retry_job(ctx.session, job_id, actor=ctx.actor.reference, request_id=ctx.request_id, now=ctx.now)
        ctx.job_ids.append(new_id)
        return _recorded(ctx, "job.retry", await get_job(ctx.session, new_id))

    outcome = await operations.change(actor, request_id, use_case, is_dry_run=dry_run)
    return answer_accepted(outcome, lambda view, jobs: JobChange(resource=view, jobs=jobs))


@post(
    "/jobs/{job_id:str}/discard",
    operation_id="discard-job",
    tags=_TAGS,
    status_code=200,
    summary="Discard a job",
)
async def discard(
    *,
    job_id: PathId,
    engine: NamedDependency[JobEngine],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[JobView]:
    """Put a failed job aside: nobody needs to look at it any more."""

    async def use_case(ctx: FleetContext) -> JobView:
        ctx.actor.require("jobs", "write")
        return _recorded(ctx, "job.discard", await discard_job(ctx.session, job_id, now=ctx.now))

    outcome = await operations.change(actor, request_id, use_case, is_dry_run=dry_run)
    await engine.announce([job_id])
    return answer_done(outcome, status=200)


@post(
    "/jobs/{job_id:str}/decide",
    operation_id="decide-job",
    tags=_TAGS,
    status_code=202,
    responses=DRY_RUN_RESPONSES,
    summary="Decide about a job that is indeterminate",
)
async def decide(
    *,
    job_id: PathId,
    data: JSONBody[JobDecision],
    engine: NamedDependency[JobEngine],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[JobChange]:
    """Say, after a look at the node, whether it was done, or have it done again: nobody but a person can know."""

    async def use_case(ctx: FleetContext) -> JobView:
        ctx.actor.require("jobs", "write")
        decision = Decision(
            is_done=data.decision is DecisionKind.DONE,
            note=require_text("note", data.note, low=1, high=300),
            actor=ctx.actor.reference,
            actor_name=ctx.actor.name,
            request_id=ctx.request_id,
        )
        new_id = await decide_job(ctx.session, job_id, decision, now=ctx.now)
        if new_id is not None:
            ctx.job_ids.append(new_id)
        return _recorded(ctx, "job.decide", await get_job(ctx.session, job_id))

    outcome = await operations.change(actor, request_id, use_case, is_dry_run=dry_run)
    await engine.announce([job_id])
    return answer_accepted(outcome, lambda view, jobs: JobChange(resource=view, jobs=jobs))


@post(
    "/jobs/{job_id:str}/release",
    operation_id="release-job",
    tags=_TAGS,
    status_code=200,
    summary="Let a job through a maintenance",
)
async def release(
    *,
    job_id: PathId,
    engine: NamedDependency[JobEngine],
    fleet: NamedDependency[Fleet],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[JobView]:
    """Send one waiting job although its node is in maintenance or being drained."""

    async def use_case(ctx: FleetContext) -> JobView:
        ctx.actor.require("jobs", "write")
        job = await get_job(ctx.session, job_id)
        if not await release_job(ctx.session, job_id, now=ctx.now):
            raise ConflictError(f"the job is {job.state.value}, and no hold of its node keeps it back")
        return _recorded(ctx, "job.release", await get_job(ctx.session, job_id))

    outcome = await operations.change(actor, request_id, use_case, is_dry_run=dry_run)
    engine.notify()
    fleet.gateway.offer_soon(outcome.resource.node_id)
    return answer_done(outcome, status=200)


def _recorded(ctx: FleetContext, action: str, job: Job) -> JobView:
    view = render_job(job)
    after = {"state": view.state.value, "label": view.label, "retry_of": view.retry_of}
    record(ctx, Change(action=action, target=f"job/{job.id}", target_name=job.label, after=after))
    return view


ROUTES = (list_jobs, show_job, explain, cancel, retry, discard, decide, release)
