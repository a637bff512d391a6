"""Nodes and their modules over HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated

import msgspec
from litestar import Response, delete, get, patch, post, put
from litestar.di import NamedDependency
from litestar.params import JSONBody, PathParameter, QueryParameter
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.context import Actor
from controller.core.http import DRY_RUN_RESPONSES, Cursor, DryRun, Limit, PathId, Search, answer_accepted, answer_done
from controller.core.operations import FleetContext, Operations, Outcome
from controller.core.paging import DEFAULT_LIMIT, PageRequest, contains, fetch_page
from controller.fleet.enrolment import find_pending
from controller.fleet.fleet import Fleet
from controller.fleet.manifest import list_node_modules
from controller.fleet.models import Node, NodeCertificate, NodeModule, NodeState
from controller.fleet.nodes import VERBS, find_module, get_node
from controller.fleet.views import (
    NodeModuleList,
    NodeModuleSet,
    NodeModuleView,
    NodePage,
    NodeUpdate,
    NodeView,
    render_module,
    render_node,
)
from controller.jobs.views import JobView
from shared.errors import NotFoundError
from shared.specs.base import Presence

_TAGS = ["nodes"]

ModuleName = Annotated[str, PathParameter(description="Name of the module, for example web.")]


class NodeChange(msgspec.Struct, frozen=True, kw_only=True):
    """A node, and the jobs that were asked of it."""

    resource: NodeView
    jobs: tuple[JobView, ...]


class NodeModuleChange(msgspec.Struct, frozen=True, kw_only=True):
    """A node's module, and the job that brings it about."""

    resource: NodeModuleView
    jobs: tuple[JobView, ...]


async def _view(session: AsyncSession, node: Node) -> NodeView:
    newest = select(func.max(NodeCertificate.not_after)).where(
        NodeCertificate.node_id == node.id, NodeCertificate.revoked_at.is_(None)
    )
    not_after: datetime | None = (await session.execute(newest)).scalar_one_or_none()
    pending = await find_pending(session, node.id)
    words = pending.fingerprint_words if pending is not None else None
    return render_node(node, not_after=not_after, words=words)


def view_node(use_case: Callable[[FleetContext], Awaitable[Node]]) -> Callable[[FleetContext], Awaitable[NodeView]]:
    """The use case, with its node as the API shows it."""

    async def run(ctx: FleetContext) -> NodeView:
        return await _view(ctx.session, await use_case(ctx))

    return run


def _answer(outcome: Outcome[NodeView]) -> Response[NodeChange]:
    return answer_accepted(outcome, lambda view, jobs: NodeChange(resource=view, jobs=jobs))


def _answer_module(outcome: Outcome[NodeModuleView]) -> Response[NodeModuleChange]:
    return answer_accepted(outcome, lambda view, jobs: NodeModuleChange(resource=view, jobs=jobs))


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
        return NodePage(
            items=tuple([await _view(ctx.session, row) for row in found.rows]), next_cursor=found.next_cursor
        )

    return await operations.read(actor, request_id, query)


@get("/nodes/{node_id:str}", operation_id="show-node", tags=_TAGS, summary="Show a node")
async def show_node(
    *,
    node_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> NodeView:
    """Show what is wanted of a node, and what it said last."""

    async def query(ctx: FleetContext) -> NodeView:
        ctx.actor.require("nodes", "read")
        return await _view(ctx.session, await get_node(ctx.session, node_id))

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


# --- modules --------------------------------------------------------------------------------------------------------


@get("/nodes/{node_id:str}/modules", operation_id="list-node-modules", tags=_TAGS, summary="List a node's modules")
async def list_modules_of_node(
    *,
    node_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> NodeModuleList:
    """Show how much of each module the node shall have, and what it said about it."""

    async def query(ctx: FleetContext) -> NodeModuleList:
        ctx.actor.require("nodes", "read")
        await get_node(ctx.session, node_id)
        return NodeModuleList(items=tuple(render_module(row) for row in await list_node_modules(ctx.session, node_id)))

    return await operations.read(actor, request_id, query)


@get(
    "/nodes/{node_id:str}/modules/{name:str}/status",
    operation_id="show-node-module",
    tags=_TAGS,
    summary="Show a node's module",
)
async def show_node_module(
    *,
    node_id: PathId,
    name: ModuleName,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> NodeModuleView:
    """Show one module: the verb status of its life."""

    async def query(ctx: FleetContext) -> NodeModuleView:
        ctx.actor.require("nodes", "read")
        await get_node(ctx.session, node_id)
        row = await find_module(ctx.session, node_id, name)
        if row is None:
            raise NotFoundError(f"this node has no module {name[:40]!r}")
        return render_module(row)

    return await operations.read(actor, request_id, query)


@put(
    "/nodes/{node_id:str}/modules/{name:str}",
    operation_id="set-node-module",
    tags=_TAGS,
    status_code=202,
    responses=DRY_RUN_RESPONSES,
    summary="Set a node's module",
)
async def set_node_module(
    *,
    node_id: PathId,
    name: ModuleName,
    data: JSONBody[NodeModuleSet],
    fleet: NamedDependency[Fleet],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[NodeModuleChange]:
    """Decide how much of a module the node shall have, and with which settings."""

    async def use_case(ctx: FleetContext) -> NodeModuleView:
        return render_module(await fleet.nodes.set_module(ctx, node_id, name, data.presence, data.settings))

    return _answer_module(await operations.change(actor, request_id, use_case, is_dry_run=dry_run))


def _verb(verb: str, presence: Presence, sentence: str) -> object:
    """The handler of one verb; they differ in nothing but the presence they pick."""

    @post(
        f"/nodes/{{node_id:str}}/modules/{{name:str}}/{verb}",
        operation_id=f"{verb}-node-module",
        tags=_TAGS,
        status_code=202,
        responses=DRY_RUN_RESPONSES,
        summary=f"{verb.capitalize()} a module on a node",
        description=sentence,
        name=f"{verb}-node-module",
    )
    async def handler(
        *,
        node_id: PathId,
        name: ModuleName,
        fleet: NamedDependency[Fleet],
        operations: NamedDependency[Operations],
        actor: NamedDependency[Actor],
        request_id: NamedDependency[str],
        dry_run: DryRun = False,
    ) -> Response[NodeModuleChange]:
        async def use_case(ctx: FleetContext) -> NodeModuleView:
            row: NodeModule = await fleet.nodes.set_module(ctx, node_id, name, presence)
            return render_module(row)

        return _answer_module(await operations.change(actor, request_id, use_case, is_dry_run=dry_run))

    return handler


_SENTENCES = {
    "install": "Install a module's packages and configuration without letting it serve.",
    "enable": "Install a module and let it serve.",
    "disable": "Stop a module; everything it needs stays installed.",
    "remove": "Remove a module with its packages and configuration.",
}

ROUTES = (
    list_nodes,
    show_node,
    update_node,
    delete_node,
    revoke_node,
    approve_node,
    reject_node,
    ping_node,
    list_modules_of_node,
    show_node_module,
    set_node_module,
    *(_verb(verb, presence, _SENTENCES[verb]) for verb, presence in VERBS.items()),
)
