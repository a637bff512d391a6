"""Rollouts over HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.context import Actor
from controller.core.http import DRY_RUN_RESPONSES, Cursor, DryRun, Limit, PathId, answer_done
from controller.core.operations import FleetContext, Operations
from controller.core.paging import DEFAULT_LIMIT, PageRequest, fetch_page
from controller.fleet.fleet import Fleet
from controller.fleet.models import Node
from controller.fleet.rollouts.counts import count_members
from controller.fleet.rollouts.models import Rollout, RolloutNode
from controller.fleet.rollouts.rollouts import get_rollout
from controller.fleet.rollouts.views import (
    RolloutCreate,
    RolloutNodePage,
    RolloutPage,
    RolloutResume,
    RolloutView,
    render_rollout,
    render_rollout_node,
)

_TAGS = ["rollouts"]


async def _view(session: AsyncSession, row: Rollout) -> RolloutView:
    counts = await count_members(session, RolloutNode, [row.id])
    return render_rollout(row, counts[row.id])


def _view_of(
    use_case: Callable[[FleetContext], Awaitable[Rollout]],
) -> Callable[[FleetContext], Awaitable[RolloutView]]:
    async def run(ctx: FleetContext) -> RolloutView:
        row = await use_case(ctx)
        await ctx.session.flush()
        return await _view(ctx.session, row)

    return run


@get("/rollouts", operation_id="list-rollouts", tags=_TAGS, summary="List rollouts")
async def list_rollouts(
    *,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> RolloutPage:
    """Show changes that went over the fleet, newest first."""

    async def query(ctx: FleetContext) -> RolloutPage:
        ctx.actor.require("rollouts", "read")
        found = await fetch_page(ctx.session, select(Rollout), PageRequest(limit=limit, cursor=cursor))
        counts = await count_members(ctx.session, RolloutNode, [row.id for row in found.rows])
        items = tuple(render_rollout(row, counts[row.id]) for row in found.rows)
        return RolloutPage(items=items, next_cursor=found.next_cursor)

    return await operations.read(actor, request_id, query)


@get("/rollouts/{rollout_id:str}", operation_id="show-rollout", tags=_TAGS, summary="Show a rollout")
async def show_rollout(
    *,
    rollout_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> RolloutView:
    """Show its waves, and what it waits for."""

    async def query(ctx: FleetContext) -> RolloutView:
        ctx.actor.require("rollouts", "read")
        return await _view(ctx.session, await get_rollout(ctx.session, rollout_id))

    return await operations.read(actor, request_id, query)


@get(
    "/rollouts/{rollout_id:str}/nodes",
    operation_id="list-rollout-nodes",
    tags=_TAGS,
    summary="List the nodes of a rollout",
)
async def list_nodes_of_rollout(
    *,
    rollout_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> RolloutNodePage:
    """Show what became of each node, and why."""

    async def query(ctx: FleetContext) -> RolloutNodePage:
        ctx.actor.require("rollouts", "read")
        await get_rollout(ctx.session, rollout_id)
        statement = select(RolloutNode).where(RolloutNode.rollout_id == rollout_id)
        found = await fetch_page(ctx.session, statement, PageRequest(limit=limit, cursor=cursor))
        named = select(Node.id, Node.name).where(Node.id.in_([row.node_id for row in found.rows]))
        names = dict((await ctx.session.execute(named)).all())
        items = tuple(render_rollout_node(row, names.get(row.node_id, "")) for row in found.rows)
        return RolloutNodePage(items=items, next_cursor=found.next_cursor)

    return await operations.read(actor, request_id, query)


@post(
    "/rollouts",
    operation_id="create-rollout",
    tags=_TAGS,
    status_code=201,
    responses=DRY_RUN_RESPONSES,
    summary="Begin a rollout",
)
async def create_rollout(
    *,
    data: JSONBody[RolloutCreate],
    fleet: NamedDependency[Fleet],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[RolloutView]:
    """Update agents, or set a module, on many nodes: one node first, then more, and none after too many failures."""
    use_case = _view_of(lambda ctx: fleet.rollouts.create(ctx, data))
    return answer_done(await operations.change(actor, request_id, use_case, is_dry_run=dry_run), status=201)


@post(
    "/rollouts/{rollout_id:str}/pause",
    operation_id="pause-rollout",
    tags=_TAGS,
    status_code=200,
    responses=DRY_RUN_RESPONSES,
    summary="Pause a rollout",
)
async def pause_rollout(
    *,
    rollout_id: PathId,
    fleet: NamedDependency[Fleet],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[RolloutView]:
    """Begin no more nodes for now; what was begun on a node ends there."""
    use_case = _view_of(lambda ctx: fleet.rollouts.pause(ctx, rollout_id))
    return answer_done(await operations.change(actor, request_id, use_case, is_dry_run=dry_run), status=200)


@post(
    "/rollouts/{rollout_id:str}/resume",
    operation_id="resume-rollout",
    tags=_TAGS,
    status_code=200,
    responses=DRY_RUN_RESPONSES,
    summary="Resume a rollout",
)
async def resume_rollout(
    *,
    rollout_id: PathId,
    data: JSONBody[RolloutResume],
    fleet: NamedDependency[Fleet],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[RolloutView]:
    """Go on with a paused or halted rollout; failures so far no longer count, or their nodes are tried again."""
    use_case = _view_of(lambda ctx: fleet.rollouts.resume(ctx, rollout_id, is_retrying=data.is_retrying))
    return answer_done(await operations.change(actor, request_id, use_case, is_dry_run=dry_run), status=200)


@post(
    "/rollouts/{rollout_id:str}/abort",
    operation_id="abort-rollout",
    tags=_TAGS,
    status_code=200,
    responses=DRY_RUN_RESPONSES,
    summary="Abort a rollout",
)
async def abort_rollout(
    *,
    rollout_id: PathId,
    fleet: NamedDependency[Fleet],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[RolloutView]:
    """End it for good; nodes that have the change keep it."""
    use_case = _view_of(lambda ctx: fleet.rollouts.abort(ctx, rollout_id))
    return answer_done(await operations.change(actor, request_id, use_case, is_dry_run=dry_run), status=200)


ROUTES = (
    list_rollouts,
    show_rollout,
    list_nodes_of_rollout,
    create_rollout,
    pause_rollout,
    resume_rollout,
    abort_rollout,
)
"""Below /api/v1."""
