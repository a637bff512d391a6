"""Resellers over HTTP."""

from __future__ import annotations

from litestar import Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from controller.core.context import Actor
from controller.core.http import DRY_RUN_RESPONSES, Cursor, DryRun, Limit, PathId, Search, answer_done
from controller.core.operations import Operations
from controller.core.paging import DEFAULT_LIMIT, PageRequest
from controller.core.plan import PlanView
from controller.core.resellers import service, suspension
from controller.core.resellers.views import (
    ResellerCreate,
    ResellerPage,
    ResellerSuspend,
    ResellerUpdate,
    ResellerView,
)

_TAGS = ["resellers"]


@get("/resellers", operation_id="list-resellers", tags=_TAGS, summary="List resellers")
async def list_resellers(
    *,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    search: Search = None,
) -> ResellerPage:
    """Show the resellers, newest first; a reseller sees itself."""
    page = PageRequest(limit=limit, cursor=cursor, search=search)
    return await operations.read(actor, request_id, lambda ctx: service.list_resellers(ctx, page))


@post(
    "/resellers",
    operation_id="create-reseller",
    tags=_TAGS,
    status_code=201,
    responses=DRY_RUN_RESPONSES,
    summary="Create a reseller",
)
async def create_reseller(
    *,
    data: JSONBody[ResellerCreate],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[ResellerView]:
    """Add somebody who sells packages to clients of their own, and say how much of what they have to hand out."""
    outcome = await operations.change(
        actor, request_id, lambda ctx: service.create_reseller(ctx, data), is_dry_run=dry_run
    )
    return answer_done(outcome, status=201)


@get("/resellers/{reseller_id:str}", operation_id="show-reseller", tags=_TAGS, summary="Show a reseller")
async def show_reseller(
    *,
    reseller_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> ResellerView:
    """Show one reseller, and which of its caps are below what was promised already."""
    return await operations.read(actor, request_id, lambda ctx: service.show_reseller(ctx, reseller_id))


@patch(
    "/resellers/{reseller_id:str}",
    operation_id="update-reseller",
    tags=_TAGS,
    status_code=200,
    summary="Change a reseller",
)
async def update_reseller(
    *,
    reseller_id: PathId,
    data: JSONBody[ResellerUpdate],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[ResellerView | PlanView]:
    """Change a reseller; with dry_run=true the answer is the plan, and `over` in it says which caps would be passed."""
    outcome = await operations.change(
        actor, request_id, lambda ctx: service.update_reseller(ctx, reseller_id, data), is_dry_run=dry_run
    )
    return answer_done(outcome, status=200)


@delete(
    "/resellers/{reseller_id:str}",
    operation_id="delete-reseller",
    tags=_TAGS,
    status_code=204,
    responses=DRY_RUN_RESPONSES,
    summary="Delete a reseller",
)
async def delete_reseller(
    *,
    reseller_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[None]:
    """Remove a reseller without clients; its packages go with it, and its people cannot sign in any more."""
    outcome = await operations.change(
        actor, request_id, lambda ctx: service.delete_reseller(ctx, reseller_id), is_dry_run=dry_run
    )
    return answer_done(outcome, status=204)


@post(
    "/resellers/{reseller_id:str}/suspend",
    operation_id="suspend-reseller",
    tags=_TAGS,
    status_code=200,
    summary="Suspend a reseller",
)
async def suspend_reseller(
    *,
    reseller_id: PathId,
    data: JSONBody[ResellerSuspend],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[ResellerView | PlanView]:
    """Let nothing new be made for a reseller; with `with_accounts` its accounts stop serving, one by one."""
    outcome = await operations.change(
        actor, request_id, lambda ctx: suspension.suspend_reseller(ctx, reseller_id, data), is_dry_run=dry_run
    )
    return answer_done(outcome, status=200)


@post(
    "/resellers/{reseller_id:str}/unsuspend",
    operation_id="unsuspend-reseller",
    tags=_TAGS,
    status_code=200,
    summary="Unsuspend a reseller",
)
async def unsuspend_reseller(
    *,
    reseller_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[ResellerView | PlanView]:
    """Let a reseller sell again; the accounts that its suspension suspended come back, and no others."""
    outcome = await operations.change(
        actor, request_id, lambda ctx: suspension.unsuspend_reseller(ctx, reseller_id), is_dry_run=dry_run
    )
    return answer_done(outcome, status=200)


ROUTES = (
    list_resellers,
    create_reseller,
    show_reseller,
    update_reseller,
    delete_reseller,
    suspend_reseller,
    unsuspend_reseller,
)
