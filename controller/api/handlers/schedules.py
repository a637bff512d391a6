"""What comes back by itself, over HTTP."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import PathParameter
from msgspec import Meta

from controller.core.audit.chain import record
from controller.core.context import Actor, Change
from controller.core.http import DryRun, answer_done
from controller.core.operations import FleetContext, Operations
from controller.jobs.schedules import Schedules, list_schedules, make_due
from controller.jobs.work_models import ScheduleRow

_TAGS = ["schedules"]

ScheduleName = Annotated[str, PathParameter(description="Its name, for example certificates.renew.")]


class ScheduleView(msgspec.Struct, frozen=True, kw_only=True):
    """Something that the controller does again and again, in one of its processes at a time."""

    name: str
    every_seconds: float
    next_at: datetime
    runs: Annotated[int, Meta(description="Ticks so far, the present one included.")]
    failures: Annotated[int, Meta(description="Failed ticks in a row, up to the last one.")]
    last_started_at: datetime | None
    last_finished_at: datetime | None
    last_outcome: Annotated[str, Meta(description="never, running, ok, failed or interrupted.")]
    last_message: str
    last_run_by: Annotated[str, Meta(description="Process: host, process id and a mark of its own.")]
    claimed_until: Annotated[datetime | None, Meta(description="End of the lease of the process that runs it now.")]


class ScheduleList(msgspec.Struct, frozen=True, kw_only=True):
    """Schedules, by name."""

    items: tuple[ScheduleView, ...]
    next_cursor: str | None = None


def render_schedule(row: ScheduleRow) -> ScheduleView:
    """The view of a schedule."""
    return ScheduleView(**{name: getattr(row, name) for name in ScheduleView.__struct_fields__})


@get("/schedules", operation_id="list-schedules", tags=_TAGS, summary="List schedules")
async def list_all(
    *, operations: NamedDependency[Operations], actor: NamedDependency[Actor], request_id: NamedDependency[str]
) -> ScheduleList:
    """Show what the controller does again and again, when, and how it went last."""

    async def query(ctx: FleetContext) -> ScheduleList:
        ctx.actor.require("schedules", "read")
        return ScheduleList(items=tuple(render_schedule(row) for row in await list_schedules(ctx.session)))

    return await operations.read(actor, request_id, query)


@post(
    "/schedules/{schedule_name:str}/run",
    operation_id="run-schedule",
    tags=_TAGS,
    status_code=200,
    summary="Let a schedule come back now",
)
async def run_now(
    *,
    schedule_name: ScheduleName,
    schedules: NamedDependency[Schedules],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[ScheduleView]:
    """Make a schedule due now; one of the controller's processes runs it within seconds."""

    async def use_case(ctx: FleetContext) -> ScheduleView:
        ctx.actor.require("schedules", "write")
        row = await make_due(ctx.session, schedule_name, now=ctx.now)
        record(ctx, Change(action="schedule.run", target=f"schedule/{row.id}", target_name=row.name))
        return render_schedule(row)

    outcome = await operations.change(actor, request_id, use_case, is_dry_run=dry_run)
    schedules.look_soon()
    return answer_done(outcome, status=200)


ROUTES = (list_all, run_now)
