"""Custom roles, and the permissions that they are made of."""

from __future__ import annotations

from litestar import Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from controller.core.context import Actor
from controller.core.http import DRY_RUN_RESPONSES, Cursor, DryRun, Limit, PathId, Search, answer_done
from controller.core.operations import Operations
from controller.core.paging import DEFAULT_LIMIT, PageRequest
from controller.core.plan import PlanView
from controller.core.tenancy import catalogue
from controller.core.tenancy import roles as use_cases
from controller.core.tenancy.views import PermissionList, RoleCreate, RolePage, RoleUpdate, RoleView

_TAGS = ["roles"]


@get("/permissions", operation_id="list-permissions", tags=["permissions"], summary="List permissions")
async def list_permissions(
    operations: NamedDependency[Operations], actor: NamedDependency[Actor], request_id: NamedDependency[str]
) -> PermissionList:
    """Show every permission there is, and who can have it."""
    return await operations.read(actor, request_id, catalogue.list_permissions)


@get("/roles", operation_id="list-roles", tags=_TAGS, summary="List custom roles")
async def list_roles(
    *,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    search: Search = None,
) -> RolePage:
    """Show one's own custom roles and those that the platform has for everybody, newest first."""
    page = PageRequest(limit=limit, cursor=cursor, search=search)
    return await operations.read(actor, request_id, lambda ctx: use_cases.list_roles(ctx, page))


@post(
    "/roles",
    operation_id="create-role",
    tags=_TAGS,
    status_code=201,
    responses=DRY_RUN_RESPONSES,
    summary="Create a custom role",
)
async def create_role(
    *,
    data: JSONBody[RoleCreate],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[RoleView]:
    """Add a set of permissions for people below oneself; it can hold what one has, and no more."""
    outcome = await operations.change(
        actor, request_id, lambda ctx: use_cases.create_role(ctx, data), is_dry_run=dry_run
    )
    return answer_done(outcome, status=201)


@get("/roles/{role_id:str}", operation_id="show-role", tags=_TAGS, summary="Show a custom role")
async def show_role(
    *,
    role_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> RoleView:
    """Show one custom role."""
    return await operations.read(actor, request_id, lambda ctx: use_cases.show_role(ctx, role_id))


@patch("/roles/{role_id:str}", operation_id="update-role", tags=_TAGS, status_code=200, summary="Change a custom role")
async def update_role(
    *,
    role_id: PathId,
    data: JSONBody[RoleUpdate],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[RoleView | PlanView]:
    """Change it for everybody who has it, from their next request on; with dry_run=true the answer is the plan."""
    outcome = await operations.change(
        actor, request_id, lambda ctx: use_cases.update_role(ctx, role_id, data), is_dry_run=dry_run
    )
    return answer_done(outcome, status=200)


@delete(
    "/roles/{role_id:str}",
    operation_id="delete-role",
    tags=_TAGS,
    status_code=204,
    responses=DRY_RUN_RESPONSES,
    summary="Delete a custom role",
)
async def delete_role(
    *,
    role_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[None]:
    """Remove a custom role that nobody has."""
    outcome = await operations.change(
        actor, request_id, lambda ctx: use_cases.delete_role(ctx, role_id), is_dry_run=dry_run
    )
    return answer_done(outcome, status=204)


ROUTES = (list_permissions, list_roles, create_role, show_role, update_role, delete_role)
