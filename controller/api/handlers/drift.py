"""Drift over HTTP."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, QueryParameter
from sqlalchemy import or_, select

from controller.api.handlers.nodes import NodeChange, view_node
from controller.core.accounts.service import converge_again
from controller.core.accounts.store import find_live_named
from controller.core.context import Actor
from controller.core.drift import DriftAdopters
from controller.core.http import DRY_RUN_RESPONSES, Cursor, DryRun, Limit, PathId, answer_accepted, answer_done
from controller.core.operations import FleetContext, Operations
from controller.core.paging import DEFAULT_LIMIT, PageRequest, fetch_page
from controller.fleet.fleet import Fleet
from controller.fleet.models import DriftFindingRow
from controller.fleet.nodes.drift_decisions import get_finding
from controller.fleet.nodes.views import DriftFindingView, DriftIgnore, DriftPage, render_finding
from controller.jobs.views import JobView
from shared.errors import ConflictError
from shared.specs.manifest import NODE_SUBJECT

_TAGS = ["drift"]


class DriftChange(msgspec.Struct, frozen=True, kw_only=True):
    """A finding, and the job that puts it right."""

    resource: DriftFindingView
    jobs: tuple[JobView, ...]


@get("/drift", operation_id="list-drift", tags=_TAGS, summary="List drift")
async def list_drift(
    *,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    node_id: Annotated[str | None, QueryParameter(description="Only on this node.")] = None,
    is_ignored: Annotated[
        bool | None, QueryParameter(description="true: only those that are ignored now; false: only open ones.")
    ] = None,
) -> DriftPage:
    """Show what on the nodes is not as it was applied, newest first."""

    async def query(ctx: FleetContext) -> DriftPage:
        ctx.actor.require("drift", "read")
        statement = select(DriftFindingRow)
        if node_id is not None:
            statement = statement.where(DriftFindingRow.node_id == node_id)
        if is_ignored is not None:
            until = DriftFindingRow.ignored_until
            statement = statement.where(until > ctx.now if is_ignored else or_(until.is_(None), until <= ctx.now))
        found = await fetch_page(ctx.session, statement, PageRequest(limit=limit, cursor=cursor))
        items = tuple(render_finding(row, now=ctx.now) for row in found.rows)
        return DriftPage(items=items, next_cursor=found.next_cursor)

    return await operations.read(actor, request_id, query)


@post(
    "/drift/{finding_id:str}/repair",
    operation_id="repair-drift",
    tags=_TAGS,
    status_code=202,
    responses=DRY_RUN_RESPONSES,
    summary="Repair drift",
)
async def repair_drift(
    *,
    finding_id: PathId,
    fleet: NamedDependency[Fleet],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[DriftChange]:
    """Bring the finding's whole subject back to what is wanted."""

    async def use_case(ctx: FleetContext) -> DriftFindingView:
        ctx.actor.require("drift", "write")
        row = await get_finding(ctx.session, finding_id)
        await _repair(ctx, fleet, row)
        return render_finding(row, now=ctx.now)

    outcome = await operations.change(actor, request_id, use_case, is_dry_run=dry_run)
    return answer_accepted(outcome, lambda view, jobs: DriftChange(resource=view, jobs=jobs))


@post(
    "/drift/{finding_id:str}/adopt",
    operation_id="adopt-drift",
    tags=_TAGS,
    status_code=202,
    responses=DRY_RUN_RESPONSES,
    summary="Adopt drift",
)
async def adopt_drift(
    *,
    finding_id: PathId,
    adopters: NamedDependency[DriftAdopters],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[DriftChange]:
    """Make lines that somebody added to a site's server block part of the site's extra directives."""

    async def use_case(ctx: FleetContext) -> DriftFindingView:
        ctx.actor.require("drift", "write")
        row = await get_finding(ctx.session, finding_id)
        await adopters.adopt(ctx, row)
        return render_finding(row, now=ctx.now)

    outcome = await operations.change(actor, request_id, use_case, is_dry_run=dry_run)
    return answer_accepted(outcome, lambda view, jobs: DriftChange(resource=view, jobs=jobs))


@post(
    "/drift/{finding_id:str}/ignore",
    operation_id="ignore-drift",
    tags=_TAGS,
    status_code=200,
    summary="Ignore drift for a while",
)
async def ignore_drift(
    *,
    finding_id: PathId,
    data: JSONBody[DriftIgnore],
    fleet: NamedDependency[Fleet],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[DriftFindingView]:
    """Do not count a finding as open until then, or until the difference is another one."""

    async def use_case(ctx: FleetContext) -> DriftFindingView:
        return render_finding(await fleet.drift.ignore(ctx, finding_id, data), now=ctx.now)

    outcome = await operations.change(actor, request_id, use_case, is_dry_run=dry_run)
    return answer_done(outcome, status=200)


@post(
    "/drift/{finding_id:str}/unignore",
    operation_id="unignore-drift",
    tags=_TAGS,
    status_code=200,
    summary="Ignore drift no more",
)
async def unignore_drift(
    *,
    finding_id: PathId,
    fleet: NamedDependency[Fleet],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[DriftFindingView]:
    """Count a finding as open again."""

    async def use_case(ctx: FleetContext) -> DriftFindingView:
        return render_finding(await fleet.drift.unignore(ctx, finding_id), now=ctx.now)

    outcome = await operations.change(actor, request_id, use_case, is_dry_run=dry_run)
    return answer_done(outcome, status=200)


@post(
    "/nodes/{node_id:str}/drift-check",
    operation_id="check-node-drift",
    tags=_TAGS,
    status_code=202,
    responses=DRY_RUN_RESPONSES,
    summary="Check a node for drift",
)
async def check_node_drift(
    *,
    node_id: PathId,
    fleet: NamedDependency[Fleet],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[NodeChange]:
    """Let a node compare everything it has with what was applied; findings follow."""
    use_case = view_node(lambda ctx: fleet.nodes.check_drift(ctx, node_id))
    outcome = await operations.change(actor, request_id, use_case, is_dry_run=dry_run)
    return answer_accepted(outcome, lambda view, jobs: NodeChange(resource=view, jobs=jobs))


async def _repair(ctx: FleetContext, fleet: Fleet, row: DriftFindingRow) -> None:
    if row.subject == NODE_SUBJECT:
        await fleet.nodes.repair(ctx, row.node_id)
        return
    account = await find_live_named(ctx.session, row.subject.partition("/")[2])
    if account is None or account.node_id != row.node_id:
        raise ConflictError(f"{row.subject} does not belong to this node any more")
    await converge_again(ctx, account.id)


ROUTES = (list_drift, repair_drift, adopt_drift, ignore_drift, unignore_drift, check_node_drift)
