"""The controller's own work and its processes, over HTTP."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import QueryParameter
from msgspec import Meta
from sqlalchemy import select

from controller.core.audit.chain import record
from controller.core.context import Actor, Change
from controller.core.http import Cursor, DryRun, Limit, PathId, answer_done
from controller.core.operations import FleetContext, Operations
from controller.core.paging import DEFAULT_LIMIT, PageRequest, fetch_page
from controller.fleet.gateway.presence import PROCESS_LEASE
from controller.fleet.gateway.presence_models import ProcessRow
from controller.fleet.gateway.processes import list_processes
from controller.jobs.task_store import get_task, retry_task
from controller.jobs.tasks import Tasks
from controller.jobs.work_models import Task, TaskState


class TaskView(msgspec.Struct, frozen=True, kw_only=True):
    """Something that the controller itself has to do once."""

    id: str
    kind: Annotated[str, Meta(examples=["package.reconverge"])]
    args: dict[str, Any]
    state: TaskState
    attempts: Annotated[int, Meta(description="Runs so far, since it was asked for or retried.")]
    run_at: Annotated[datetime, Meta(description="Not before.")]
    claimed_by: Annotated[str | None, Meta(description="The process that runs it now.")]
    message: Annotated[str, Meta(description="What its last run said, or why it failed.")]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class TaskPage(msgspec.Struct, frozen=True, kw_only=True):
    """Tasks, newest first."""

    items: tuple[TaskView, ...]
    next_cursor: str | None


class ProcessView(msgspec.Struct, frozen=True, kw_only=True):
    """One process of the controller."""

    id: str
    role: Annotated[str, Meta(description="all, api, gateway or worker.")]
    instance: str
    host: str
    pid: int
    version: str
    started_at: datetime
    seen_at: Annotated[datetime, Meta(description="When it last said that it lives.")]
    is_alive: Annotated[bool, Meta(description="It said so a moment ago.")]
    nodes_connected: int


class ProcessList(msgspec.Struct, frozen=True, kw_only=True):
    """Processes, by role."""

    items: tuple[ProcessView, ...]
    next_cursor: str | None = None


def render_task(row: Task) -> TaskView:
    """The view of a task."""
    return TaskView(**{name: getattr(row, name) for name in TaskView.__struct_fields__})


def render_process(row: ProcessRow, *, now: datetime) -> ProcessView:
    """The view of a process."""
    values = {name: getattr(row, name) for name in ProcessView.__struct_fields__ if name != "is_alive"}
    return ProcessView(**values, is_alive=row.seen_at > now - PROCESS_LEASE)


@get("/tasks", operation_id="list-tasks", tags=["tasks"], summary="List tasks")
async def list_tasks(
    *,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    in_state: Annotated[TaskState | None, QueryParameter(name="state", description="Only in this state.")] = None,
) -> TaskPage:
    """Show what the controller itself has to do, newest first; what succeeded is kept for a week."""

    async def query(ctx: FleetContext) -> TaskPage:
        ctx.actor.require("tasks", "read")
        statement = select(Task) if in_state is None else select(Task).where(Task.state == in_state)
        found = await fetch_page(ctx.session, statement, PageRequest(limit=limit, cursor=cursor))
        return TaskPage(items=tuple(render_task(row) for row in found.rows), next_cursor=found.next_cursor)

    return await operations.read(actor, request_id, query)


@get("/tasks/{task_id:str}", operation_id="show-task", tags=["tasks"], summary="Show a task")
async def show_task(
    *,
    task_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> TaskView:
    """Show one task."""

    async def query(ctx: FleetContext) -> TaskView:
        ctx.actor.require("tasks", "read")
        return render_task(await get_task(ctx.session, task_id))

    return await operations.read(actor, request_id, query)


@post("/tasks/{task_id:str}/retry", operation_id="retry-task", tags=["tasks"], status_code=200, summary="Retry a task")
async def retry(
    *,
    task_id: PathId,
    tasks: NamedDependency[Tasks],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[TaskView]:
    """Let a failed task run again, with all its attempts."""

    async def use_case(ctx: FleetContext) -> TaskView:
        ctx.actor.require("tasks", "write")
        row = await retry_task(ctx.session, task_id, now=ctx.now)
        tasks.send_after_commit(ctx.session, row.id)
        record(ctx, Change(action="task.retry", target=f"task/{row.id}", target_name=row.kind))
        return render_task(row)

    return answer_done(await operations.change(actor, request_id, use_case, is_dry_run=dry_run), status=200)


@get("/processes", operation_id="list-processes", tags=["processes"], summary="List the controller's processes")
async def list_all_processes(
    *, operations: NamedDependency[Operations], actor: NamedDependency[Actor], request_id: NamedDependency[str]
) -> ProcessList:
    """Show the controller's processes, those included that died within a day."""

    async def query(ctx: FleetContext) -> ProcessList:
        ctx.actor.require("processes", "read")
        rows = await list_processes(ctx.session)
        return ProcessList(items=tuple(render_process(row, now=ctx.now) for row in rows))

    return await operations.read(actor, request_id, query)


ROUTES = (list_tasks, show_task, retry, list_all_processes)
