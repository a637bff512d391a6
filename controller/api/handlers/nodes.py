"""Nodes and their modules over HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

import msgspec
from litestar import Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, QueryParameter
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.context import Actor
from controller.core.http import (
    API_ROOT,
    DRY_RUN_RESPONSES,
    Cursor,
    DryRun,
    Limit,
    PathId,
    Search,
    answer_accepted,
    answer_done,
)
from controller.core.operations import FleetContext, Operations, Outcome
from controller.core.paging import DEFAULT_LIMIT, PageRequest, contains, fetch_page
from controller.core.plan import PlanView
from controller.fleet.fleet import Fleet
from controller.fleet.gateway.pings import PingAnswer, PingRequest
from controller.fleet.models import Node, NodeState
from controller.fleet.nodes.nodes import get_node
from controller.fleet.nodes.pages import view_nodes
from controller.fleet.nodes.views import (
    NodeDetailView,
    NodePage,
    NodeUpdate,
    NodeView,
    render_node_detail,
)
from controller.jobs.views import JobView

_TAGS = ["nodes"]


class NodeChange(msgspec.Struct, frozen=True, kw_only=True):
    """A node, and the jobs that were asked of it."""

    resource: NodeView
    jobs: tuple[JobView, ...]


async def _view(session: AsyncSession, node: Node) -> NodeView:
    return (await view_nodes(session, (node,)))[0]


def view_node(use_case: Callable[[FleetContext], Awaitable[Node]]) -> Callable[[FleetContext], Awaitable[NodeView]]:
    """The use case, with its node as the API shows it."""

    async def run(ctx: FleetContext) -> NodeView:
        return await _view(ctx.session, await use_case(ctx))

    return run


def _answer(outcome: Outcome[NodeView]) -> Response[NodeChange]:
    return answer_accepted(outcome, lambda view, jobs: NodeChange(resource=view, jobs=jobs))


@get("/nodes", operation_id="list-nodes", tags=_TAGS, summary="List nodes")
async def list_nodes(
    *,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    search: Search = None,
    wanted_state: Annotated[
        NodeState | None, QueryParameter(name="state", description="Only nodes in this state.")
    ] = None,
) -> NodePage:
    """Show the machines of the fleet, newest first; those that wait for approval are among them."""

    async def query(ctx: FleetContext) -> NodePage:
        ctx.actor.require("nodes", "read")
        statement = select(Node) if wanted_state is None else select(Node).where(Node.state == wanted_state)
        condition = contains((Node.name,), search)
        statement = statement if condition is None else statement.where(condition)
        found = await fetch_page(ctx.session, statement, PageRequest(limit=limit, cursor=cursor))
        return NodePage(items=await view_nodes(ctx.session, found.rows), next_cursor=found.next_cursor)

    return await operations.read(actor, request_id, query)


@get("/nodes/{node_id:str}", operation_id="show-node", tags=_TAGS, summary="Show a node")
async def show_node(
    *,
    node_id: PathId,
    fleet: NamedDependency[Fleet],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> NodeDetailView:
    """Show what is wanted of a node, what it said last, and how it is doing."""

    async def query(ctx: FleetContext) -> NodeDetailView:
        ctx.actor.require("nodes", "read")
        view = await _view(ctx.session, await get_node(ctx.session, node_id))
        return render_node_detail(view, await fleet.find_sample(ctx.session, view.id))

    return await operations.read(actor, request_id, query)


@patch(
    "/nodes/{node_id:str}",
    operation_id="update-node",
    tags=_TAGS,
    status_code=202,
    responses=DRY_RUN_RESPONSES,
    summary="Change a node",
)
async def update_node(
    *,
    node_id: PathId,
    data: JSONBody[NodeUpdate],
    fleet: NamedDependency[Fleet],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[NodeChange]:
    """Change roles, labels, cordon or drift policy; a new role brings its modules."""
    use_case = view_node(lambda ctx: fleet.nodes.update(ctx, node_id, data))
    return _answer(await operations.change(actor, request_id, use_case, is_dry_run=dry_run))


@delete(
    "/nodes/{node_id:str}",
    operation_id="delete-node",
    tags=_TAGS,
    status_code=204,
    responses=DRY_RUN_RESPONSES,
    summary="Delete a node",
)
async def delete_node(
    *,
    node_id: PathId,
    fleet: NamedDependency[Fleet],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[None]:
    """Forget a revoked node that has no accounts."""
    outcome = await operations.change(
        actor, request_id, lambda ctx: fleet.nodes.delete(ctx, node_id), is_dry_run=dry_run
    )
    fleet.gateway.check_soon()
    return answer_done(outcome, status=204)


@post(
    "/nodes/{node_id:str}/revoke",
    operation_id="revoke-node",
    tags=_TAGS,
    status_code=200,
    responses=DRY_RUN_RESPONSES,
    summary="Revoke a node",
)
async def revoke_node(
    *,
    node_id: PathId,
    fleet: NamedDependency[Fleet],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[NodeView]:
    """Cut a node off for good: its certificates are worthless at once. What it serves goes on."""
    use_case = view_node(lambda ctx: fleet.nodes.revoke(ctx, node_id))
    outcome = await operations.change(actor, request_id, use_case, is_dry_run=dry_run)
    fleet.gateway.check_soon()
    return answer_done(outcome, status=200)


@post(
    "/nodes/{node_id:str}/approve",
    operation_id="approve-node",
    tags=_TAGS,
    status_code=202,
    responses=DRY_RUN_RESPONSES,
    summary="Approve a node",
)
async def approve_node(
    *,
    node_id: PathId,
    fleet: NamedDependency[Fleet],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[NodeChange]:
    """Let a waiting machine become a node. Compare its six words with the ones that the machine shows first."""
    use_case = view_node(lambda ctx: fleet.enrolments.approve(ctx, node_id))
    outcome = await operations.change(actor, request_id, use_case, is_dry_run=dry_run)
    fleet.gateway.check_soon()
    return _answer(outcome)


@post(
    "/nodes/{node_id:str}/reject",
    operation_id="reject-node",
    tags=_TAGS,
    status_code=200,
    responses=DRY_RUN_RESPONSES,
    summary="Reject a node",
)
async def reject_node(
    *,
    node_id: PathId,
    fleet: NamedDependency[Fleet],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[NodeView]:
    """Send a waiting machine away."""
    use_case = view_node(lambda ctx: fleet.enrolments.reject(ctx, node_id))
    return answer_done(await operations.change(actor, request_id, use_case, is_dry_run=dry_run), status=200)


@post(
    "/nodes/{node_id:str}/release",
    operation_id="release-node",
    tags=_TAGS,
    status_code=200,
    responses=DRY_RUN_RESPONSES,
    summary="Release a node from quarantine",
)
async def release_node(
    *,
    node_id: PathId,
    fleet: NamedDependency[Fleet],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[NodeView]:
    """Let a node connect again, after the other machine with its identity was stopped."""
    use_case = view_node(lambda ctx: fleet.quarantine.release(ctx, node_id))
    return answer_done(await operations.change(actor, request_id, use_case, is_dry_run=dry_run), status=200)


@post(
    "/nodes/{node_id:str}/ping",
    operation_id="ping-node",
    tags=_TAGS,
    status_code=202,
    responses=DRY_RUN_RESPONSES,
    summary="Ping a node",
)
async def ping_node(
    *,
    node_id: PathId,
    fleet: NamedDependency[Fleet],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[NodeChange]:
    """Prove the whole way to the node's executor and back, signature included; changes nothing there."""
    use_case = view_node(lambda ctx: fleet.nodes.ping(ctx, node_id))
    return _answer(await operations.change(actor, request_id, use_case, is_dry_run=dry_run))


@post(
    "/nodes/ping",
    operation_id="bulk-ping-nodes",
    tags=_TAGS,
    status_code=202,
    responses=DRY_RUN_RESPONSES,
    summary="Ping many nodes",
)
async def ping_nodes(
    *,
    data: JSONBody[PingRequest],
    fleet: NamedDependency[Fleet],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[PingAnswer]:
    """Send a signed no-op to each of these nodes and say who answered; what has not answered in time is still asked."""
    if dry_run:
        await fleet.pings.check(actor, data)
        return Response(PlanView(changes=(), nodes=()), status_code=200)  # type: ignore[arg-type] # a dry run's answer
    answer = await fleet.pings.ping(actor, request_id, data)
    return Response(answer, status_code=202, headers={"Location": f"{API_ROOT}/jobs/{answer.items[0].job_id}"})


ROUTES = (
    list_nodes,
    show_node,
    update_node,
    delete_node,
    revoke_node,
    approve_node,
    reject_node,
    release_node,
    ping_node,
    ping_nodes,
)
