"""Clients over HTTP."""

from __future__ import annotations

from litestar import Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from controller.core.clients import service
from controller.core.clients.views import ClientCreate, ClientPage, ClientUpdate, ClientView
from controller.core.context import Actor
from controller.core.http import DRY_RUN_RESPONSES, Cursor, DryRun, Limit, PathId, Search, answer_done
from controller.core.operations import Operations
from controller.core.paging import DEFAULT_LIMIT, PageRequest
from controller.core.plan import PlanView

_TAGS = ["clients"]


@get("/clients", operation_id="list-clients", tags=_TAGS, summary="List clients")
async def list_clients(
    *,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    search: Search = None,
) -> ClientPage:
    """Show the clients, newest first; the search looks into names and e-mail addresses."""
    page = PageRequest(limit=limit, cursor=cursor, search=search)
    return await operations.read(actor, request_id, lambda ctx: service.list_clients(ctx, page))


@post(
    "/clients",
    operation_id="create-client",
    tags=_TAGS,
    status_code=201,
    responses=DRY_RUN_RESPONSES,
    summary="Create a client",
)
async def create_client(
    *,
    data: JSONBody[ClientCreate],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[ClientView]:
    """Add a person or company that accounts can belong to."""
    outcome = await operations.change(
        actor, request_id, lambda ctx: service.create_client(ctx, data), is_dry_run=dry_run
    )
    return answer_done(outcome, status=201)


@get("/clients/{client_id:str}", operation_id="show-client", tags=_TAGS, summary="Show a client")
async def show_client(
    *,
    client_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> ClientView:
    """Show one client."""
    return await operations.read(actor, request_id, lambda ctx: service.show_client(ctx, client_id))


@patch(
    "/clients/{client_id:str}",
    operation_id="update-client",
    tags=_TAGS,
    status_code=200,
    summary="Change a client",
)
async def update_client(
    *,
    client_id: PathId,
    data: JSONBody[ClientUpdate],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[ClientView | PlanView]:
    """Change a client's name or e-mail address; with dry_run=true the answer is the plan."""
    outcome = await operations.change(
        actor, request_id, lambda ctx: service.update_client(ctx, client_id, data), is_dry_run=dry_run
    )
    return answer_done(outcome, status=200)


@delete(
    "/clients/{client_id:str}",
    operation_id="delete-client",
    tags=_TAGS,
    status_code=204,
    responses=DRY_RUN_RESPONSES,
    summary="Delete a client",
)
async def delete_client(
    *,
    client_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[None]:
    """Remove a client that owns no account."""
    outcome = await operations.change(
        actor, request_id, lambda ctx: service.delete_client(ctx, client_id), is_dry_run=dry_run
    )
    return answer_done(outcome, status=204)


ROUTES = (list_clients, create_client, show_client, update_client, delete_client)
