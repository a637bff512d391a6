"""The team of an account."""

from __future__ import annotations

from litestar import Response, delete, get, put
from litestar.di import NamedDependency

from controller.core.context import Actor
from controller.core.http import DRY_RUN_RESPONSES, Cursor, DryRun, Limit, PathId, answer_done
from controller.core.operations import Operations
from controller.core.paging import DEFAULT_LIMIT, PageRequest
from controller.core.plan import PlanView
from controller.core.tenancy import members
from controller.core.tenancy.views import MemberPage, MemberView

_TAGS = ["accounts"]


@get(
    "/accounts/{account_id:str}/members",
    operation_id="list-members",
    tags=_TAGS,
    summary="List an account's team members",
)
async def list_account_members(
    *,
    account_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> MemberPage:
    """Show which members of the client's team work on the account, newest first."""
    page = PageRequest(limit=limit, cursor=cursor)
    return await operations.read(actor, request_id, lambda ctx: members.list_members(ctx, account_id, page))


@put(
    "/accounts/{account_id:str}/members/{user_id:str}",
    operation_id="set-member",
    tags=_TAGS,
    status_code=200,
    summary="Let a team member work on an account",
)
async def set_account_member(
    *,
    account_id: PathId,
    user_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[MemberView | PlanView]:
    """Let a member of the client's team work on the account, from their next request on."""
    outcome = await operations.change(
        actor, request_id, lambda ctx: members.set_member(ctx, account_id, user_id), is_dry_run=dry_run
    )
    return answer_done(outcome, status=200)


@delete(
    "/accounts/{account_id:str}/members/{user_id:str}",
    operation_id="remove-member",
    tags=_TAGS,
    status_code=204,
    responses=DRY_RUN_RESPONSES,
    summary="Take a team member off an account",
)
async def remove_account_member(
    *,
    account_id: PathId,
    user_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[None]:
    """Let somebody work on the account no more."""
    outcome = await operations.change(
        actor, request_id, lambda ctx: members.remove_member(ctx, account_id, user_id), is_dry_run=dry_run
    )
    return answer_done(outcome, status=204)


ROUTES = (list_account_members, set_account_member, remove_account_member)
