"""What holds for everybody who signs in, and what an administrator sees and does of it."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from litestar import Request, Response, delete, get, patch, put
from litestar.di import NamedDependency
from litestar.params import JSONBody, PathParameter, QueryParameter
from msgspec import Meta

from controller.api.handlers.auth import address_of
from controller.api.handlers.sessions import SignInPage, render_sign_in
from controller.core.auth.attempts import list_attempts
from controller.core.auth.factor_service import reset_factor, set_user_networks, show_user_networks
from controller.core.auth.models import User
from controller.core.auth.policy import SecurityPolicy, SecurityPolicyUpdate, show_policy, update_policy
from controller.core.auth.service import Authenticator
from controller.core.context import Actor
from controller.core.http import DRY_RUN_RESPONSES, Cursor, DryRun, Limit, answer_done
from controller.core.operations import FleetContext, Operations
from controller.core.paging import DEFAULT_LIMIT, PageRequest

_TAGS = ["security"]

Username = Annotated[str, PathParameter(description="Name of the user.")]
ByName = Annotated[str | None, QueryParameter(description="Only with this name.")]
OnlyUnusual = Annotated[bool, QueryParameter(description="Only successes that were unusual.")]


class UserNetworks(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a person and their tokens may come from."""

    allow: Annotated[
        list[str], Meta(max_length=200, description="Empty: from everywhere.", examples=[["203.0.113.0/24"]])
    ] = []
    deny: Annotated[
        list[str], Meta(max_length=200, description="Stronger than what is allowed.", examples=[["198.51.100.7/32"]])
    ] = []


@get("/security", operation_id="show-security", tags=_TAGS, summary="Show what holds for signing in")
async def show_security(
    operations: NamedDependency[Operations], actor: NamedDependency[Actor], request_id: NamedDependency[str]
) -> SecurityPolicy:
    """Show who must have a second factor, and from which networks people may come; figures are `policies`."""
    return await operations.read(actor, request_id, show_policy)


@patch("/security", operation_id="update-security", tags=_TAGS, summary="Change what holds for signing in")
async def update_security(
    *,
    data: JSONBody[SecurityPolicyUpdate],
    request: Request[Any, Any, Any],
    authenticator: NamedDependency[Authenticator],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[SecurityPolicy]:
    """Change it for everybody; other processes follow within seconds."""
    address = address_of(request)
    outcome = await operations.change(
        actor, request_id, lambda ctx: update_policy(ctx, data, address), is_dry_run=dry_run
    )
    authenticator.policies.forget()
    return answer_done(outcome, status=200)


@get("/security/sign-ins", operation_id="list-all-sign-ins", tags=_TAGS, summary="List everybody's sign-ins")
async def list_all_sign_ins(
    *,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    username: ByName = None,
    unusual: OnlyUnusual = False,
) -> SignInPage:
    """Show who signed in and who tried to; names of nobody are among them."""
    page = PageRequest(limit=limit, cursor=cursor)
    found = await operations.read(
        actor, request_id, lambda ctx: list_attempts(ctx, page, username=username, is_unusual=unusual)
    )
    return SignInPage(items=tuple(render_sign_in(row) for row in found.rows), next_cursor=found.next_cursor)


@get(
    "/security/users/{username:str}/networks",
    operation_id="show-user-networks",
    tags=_TAGS,
    summary="Show a user's networks",
)
async def show_networks(
    username: Username,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> UserNetworks:
    """Show where a person and their tokens may come from."""
    return _render(await operations.read(actor, request_id, lambda ctx: show_user_networks(ctx, username)))


@put(
    "/security/users/{username:str}/networks",
    operation_id="set-user-networks",
    tags=_TAGS,
    summary="Set a user's networks",
)
async def set_networks(
    *,
    username: Username,
    data: JSONBody[UserNetworks],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[UserNetworks]:
    """Say where a person and their tokens may come from, beside what holds for everybody."""

    async def use_case(ctx: FleetContext) -> UserNetworks:
        return _render(await set_user_networks(ctx, username, data.allow, data.deny))

    return answer_done(await operations.change(actor, request_id, use_case, is_dry_run=dry_run), status=200)


@delete(
    "/security/users/{username:str}/second-factor",
    operation_id="reset-second-factor",
    tags=_TAGS,
    status_code=204,
    responses=DRY_RUN_RESPONSES,
    summary="Forget a user's second factor",
)
async def reset_second_factor(
    *,
    username: Username,
    authenticator: NamedDependency[Authenticator],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[None]:
    """Help somebody who lost their device and their codes: the password alone is asked for again."""
    outcome = await operations.change(
        actor, request_id, lambda ctx: reset_factor(ctx, authenticator.factors, username), is_dry_run=dry_run
    )
    return answer_done(outcome, status=204)


def _render(user: User) -> UserNetworks:
    lists = user.networks or {}
    return UserNetworks(allow=list(lists.get("allow", ())), deny=list(lists.get("deny", ())))


ROUTES = (show_security, update_security, list_all_sign_ins, show_networks, set_networks, reset_second_factor)
