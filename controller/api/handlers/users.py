"""People who sign in."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, QueryParameter

from controller.api.guards import require_identity
from controller.api.handlers.auth import SessionView, address_of, render_user
from controller.core.auth.attempts import Device
from controller.core.auth.service import Authenticator
from controller.core.context import Actor
from controller.core.http import DRY_RUN_RESPONSES, Cursor, DryRun, Limit, PathId, Search, answer_done
from controller.core.operations import FleetContext, Operations
from controller.core.paging import DEFAULT_LIMIT, PageRequest
from controller.core.plan import PlanView
from controller.core.tenancy import people
from controller.core.tenancy.impersonation import impersonate
from controller.core.tenancy.views import Impersonation, NewPassword, PersonCreate, PersonPage, PersonUpdate, PersonView

_TAGS = ["users"]
OfRole = Annotated[str | None, QueryParameter(description="Only those with this role.")]
OfClient = Annotated[str | None, QueryParameter(description="Only those of this client.")]
OfReseller = Annotated[str | None, QueryParameter(description="Only those of this reseller.")]


@get("/users", operation_id="list-users", tags=_TAGS, summary="List users")
async def list_users(
    *,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    search: Search = None,
    role: OfRole = None,
    client_id: OfClient = None,
    reseller_id: OfReseller = None,
) -> PersonPage:
    """Show the people within one's reach, newest first."""
    page = PageRequest(limit=limit, cursor=cursor, search=search)
    return await operations.read(
        actor,
        request_id,
        lambda ctx: people.list_people(ctx, page, role=role, client_id=client_id, reseller_id=reseller_id),
    )


@post(
    "/users",
    operation_id="create-user",
    tags=_TAGS,
    status_code=201,
    responses=DRY_RUN_RESPONSES,
    summary="Create a user",
)
async def create_user(
    *,
    data: JSONBody[PersonCreate],
    authenticator: NamedDependency[Authenticator],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[NewPassword]:
    """Add somebody below oneself; the answer has a one-time password, shown once."""
    issued = await authenticator.issue_password(actor)

    async def use_case(ctx: FleetContext) -> NewPassword:
        user = await people.create_person(ctx, data, issued.hashed)
        return NewPassword(user=user, password=issued.password)

    return answer_done(await operations.change(actor, request_id, use_case, is_dry_run=dry_run), status=201)


@get("/users/{user_id:str}", operation_id="show-user", tags=_TAGS, summary="Show a user")
async def show_user(
    *,
    user_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> PersonView:
    """Show one user."""
    return await operations.read(actor, request_id, lambda ctx: people.show_person(ctx, user_id))


@patch("/users/{user_id:str}", operation_id="update-user", tags=_TAGS, status_code=200, summary="Change a user's role")
async def update_user(
    *,
    user_id: PathId,
    data: JSONBody[PersonUpdate],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[PersonView | PlanView]:
    """Give somebody another role or custom role, from their next request on; dry_run=true answers the plan."""
    outcome = await operations.change(
        actor, request_id, lambda ctx: people.update_person(ctx, user_id, data), is_dry_run=dry_run
    )
    return answer_done(outcome, status=200)


@delete(
    "/users/{user_id:str}",
    operation_id="delete-user",
    tags=_TAGS,
    status_code=204,
    responses=DRY_RUN_RESPONSES,
    summary="Delete a user",
)
async def delete_user(
    *,
    user_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[None]:
    """Remove somebody; their sessions and API tokens end at once."""
    outcome = await operations.change(
        actor, request_id, lambda ctx: people.delete_person(ctx, user_id), is_dry_run=dry_run
    )
    return answer_done(outcome, status=204)


@post(
    "/users/{user_id:str}/disable",
    operation_id="disable-user",
    tags=_TAGS,
    status_code=200,
    summary="Shut a user out",
)
async def disable_user(
    *,
    user_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[PersonView | PlanView]:
    """Shut somebody out at once: their sessions end, and their API tokens do nothing until they are enabled."""
    outcome = await operations.change(
        actor,
        request_id,
        lambda ctx: people.set_person_state(ctx, user_id, is_disabled=True),
        is_dry_run=dry_run,
    )
    return answer_done(outcome, status=200)


@post(
    "/users/{user_id:str}/enable",
    operation_id="enable-user",
    tags=_TAGS,
    status_code=200,
    summary="Let a user in again",
)
async def enable_user(
    *,
    user_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[PersonView | PlanView]:
    """Let somebody sign in again."""
    outcome = await operations.change(
        actor,
        request_id,
        lambda ctx: people.set_person_state(ctx, user_id, is_disabled=False),
        is_dry_run=dry_run,
    )
    return answer_done(outcome, status=200)


@post(
    "/users/{user_id:str}/password",
    operation_id="reset-user-password",
    tags=_TAGS,
    status_code=200,
    summary="Give a user a one-time password",
)
async def reset_user_password(
    *,
    user_id: PathId,
    authenticator: NamedDependency[Authenticator],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[NewPassword | PlanView]:
    """Replace somebody's password by one that is shown once, and end their sessions; API tokens stay."""
    issued = await authenticator.issue_password(actor)

    async def use_case(ctx: FleetContext) -> NewPassword:
        user = await people.reset_password(ctx, user_id, issued.hashed)
        return NewPassword(user=user, password=issued.password)

    return answer_done(await operations.change(actor, request_id, use_case, is_dry_run=dry_run), status=200)


@post(
    "/users/{user_id:str}/impersonate",
    operation_id="impersonate-user",
    tags=_TAGS,
    status_code=201,
    summary="View as a user",
)
async def impersonate_user(
    user_id: PathId,
    data: JSONBody[Impersonation],
    request: Request[Any, Any, Any],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> SessionView:
    """Begin a session of an hour as somebody of a tenant; all that it does is written down as yours.

    The answer has the session's token and sets no cookie: one's own session stays. `logout` with that token ends it.
    """
    identity = require_identity(request)
    device = Device(address=address_of(request), user_agent=request.headers.get("user-agent", ""))
    outcome = await operations.change(
        actor, request_id, lambda ctx: impersonate(ctx, identity, user_id, data.reason, device)
    )
    sign_in = outcome.resource
    return SessionView(token=sign_in.secret, expires_at=sign_in.identity.expires_at, user=render_user(sign_in.identity))


ROUTES = (
    list_users,
    create_user,
    show_user,
    update_user,
    delete_user,
    disable_user,
    enable_user,
    reset_user_password,
    impersonate_user,
)
