"""Jobs over HTTP."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import QueryParameter
from sqlalchemy import select

from controller.core.audit.chain import record
from controller.core.context import Actor, Change
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
from controller.jobs.commands import cancel_job, discard_job, get_job, retry_job
from controller.jobs.engine import JobEngine
from controller.jobs.explain import Explanation, explain_job
from controller.jobs.models import Job, JobTransition
from controller.jobs.states import JobState
from controller.jobs.views import JobPage, JobView, render_job

_TAGS = ["jobs"]


class JobDetail(JobView, frozen=True, kw_only=True):
    """A job with everything that explains it."""

    explanation: Explanation


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
        return JobPage(items=tuple(render_job(row) for row in found.rows), next_cursor=found.next_cursor)

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
        job = await get_job(ctx.session, job_id)
        statement = select(JobTransition).where(JobTransition.job_id == job_id).order_by(JobTransition.id)
        history = (await ctx.session.execute(statement)).scalars().all()
        return JobDetail(**msgspec.structs.asdict(render_job(job)), explanation=explain_job(job, history))

    return await operations.read(actor, request_id, query)


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


def _recorded(ctx: FleetContext, action: str, job: Job) -> JobView:
    view = render_job(job)
    after = {"state": view.state.value, "label": view.label, "retry_of": view.retry_of}
    record(ctx, Change(action=action, target=f"job/{job.id}", target_name=job.label, after=after))
    return view


ROUTES = (list_jobs, show_job, cancel, retry, discard)
