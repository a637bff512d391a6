"""Drift over HTTP."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import QueryParameter
from sqlalchemy import select

from controller.api.handlers.nodes import NodeChange, view_node
from controller.core.accounts.service import converge_again
from controller.core.accounts.store import find_live_named
from controller.core.context import Actor
from controller.core.http import DRY_RUN_RESPONSES, Cursor, DryRun, Limit, PathId, answer_accepted
from controller.core.operations import FleetContext, Operations
from controller.core.paging import DEFAULT_LIMIT, PageRequest, fetch_page
from controller.fleet.fleet import Fleet
from controller.fleet.models import DriftFindingRow
from controller.fleet.views import DriftFindingView, DriftPage, render_finding
from controller.jobs.views import JobView
from shared.errors import ConflictError, NotFoundError
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
) -> DriftPage:
    """Show what on the nodes is not as it was applied, newest first."""

    async def query(ctx: FleetContext) -> DriftPage:
        ctx.actor.require("drift", "read")
        statement = select(DriftFindingRow)
        if node_id is not None:
            statement = statement.where(DriftFindingRow.node_id == node_id)
        found = await fetch_page(ctx.session, statement, PageRequest(limit=limit, cursor=cursor))
        return DriftPage(items=tuple(render_finding(row) for row in found.rows), next_cursor=found.next_cursor)

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
        row = await ctx.session.get(DriftFindingRow, finding_id)
        if row is None:
            raise NotFoundError(f"there is no finding {finding_id[:80]!r}", hint="A later check may have cleared it.")
        await _repair(ctx, fleet, row)
        return render_finding(row)

    outcome = await operations.change(actor, request_id, use_case, is_dry_run=dry_run)
    return answer_accepted(outcome, lambda view, jobs: DriftChange(resource=view, jobs=jobs))


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


ROUTES = (list_drift, repair_drift, check_node_drift)
