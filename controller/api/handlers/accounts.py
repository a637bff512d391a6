"""Accounts over HTTP."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, QueryParameter

from controller.core.accounts import deletion, queries, service, suspension
from controller.core.accounts.queries import AccountFilter
from controller.core.accounts.views import (
    AccountCreate,
    AccountDriftList,
    AccountPage,
    AccountSuspend,
    AccountUpdate,
    AccountView,
    ManifestView,
    ProofList,
)
from controller.core.context import Actor
from controller.core.http import DRY_RUN_RESPONSES, Cursor, DryRun, Limit, PathId, answer_accepted
from controller.core.operations import Operations, Outcome
from controller.core.paging import DEFAULT_LIMIT, PageRequest
from controller.jobs.views import JobView

_TAGS = ["accounts"]


class AccountChange(msgspec.Struct, frozen=True, kw_only=True):
    """An account, and the job that brings its node to it."""

    resource: AccountView
    jobs: tuple[JobView, ...]


def answer_account(outcome: Outcome[AccountView]) -> Response[AccountChange]:
    """For every handler that changes one account."""
    return answer_accepted(outcome, lambda view, jobs: AccountChange(resource=view, jobs=jobs))


@get("/accounts", operation_id="list-accounts", tags=_TAGS, summary="List accounts")
async def list_accounts(
    *,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    search: Annotated[
        str | None, QueryParameter(description="Part of the name, a domain, the client's name, a label or the note.")
    ] = None,
    client_id: Annotated[str | None, QueryParameter(description="Only those of this client.")] = None,
    package_id: Annotated[str | None, QueryParameter(description="Only those with this package.")] = None,
    node_id: Annotated[str | None, QueryParameter(description="Only those on this node.")] = None,
    wanted_state: Annotated[
        str | None,
        QueryParameter(
            name="state", description="active, suspended, trashed, deleting, deleted; else all but deleted."
        ),
    ] = None,
    label: Annotated[str | None, QueryParameter(description="KEY=VALUE, or KEY: only those that have it.")] = None,
) -> AccountPage:
    """Show the accounts, newest first."""
    page = PageRequest(limit=limit, cursor=cursor, search=search)
    wanted = AccountFilter(client_id=client_id, package_id=package_id, node_id=node_id, state=wanted_state, label=label)
    return await operations.read(actor, request_id, lambda ctx: queries.list_accounts(ctx, page, wanted))


@post(
    "/accounts",
    operation_id="create-account",
    tags=_TAGS,
    status_code=202,
    responses=DRY_RUN_RESPONSES,
    summary="Create an account",
)
async def create_account(
    *,
    data: JSONBody[AccountCreate],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[AccountChange]:
    """Create an account on a node: unix user, home, limits."""
    return answer_account(
        await operations.change(actor, request_id, lambda ctx: service.create_account(ctx, data), is_dry_run=dry_run)
    )


@get("/accounts/{account_id:str}", operation_id="show-account", tags=_TAGS, summary="Show an account")
async def show_account(
    *,
    account_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> AccountView:
    """Show what is wanted of an account, and what its node said last."""
    return await operations.read(actor, request_id, lambda ctx: queries.show_account(ctx, account_id))


@patch(
    "/accounts/{account_id:str}",
    operation_id="update-account",
    tags=_TAGS,
    status_code=202,
    responses=DRY_RUN_RESPONSES,
    summary="Change an account",
)
async def update_account(
    *,
    account_id: PathId,
    data: JSONBody[AccountUpdate],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[AccountChange]:
    """Give the account another package or other labels."""
    return answer_account(
        await operations.change(
            actor, request_id, lambda ctx: service.update_account(ctx, account_id, data), is_dry_run=dry_run
        )
    )


@delete(
    "/accounts/{account_id:str}",
    operation_id="delete-account",
    tags=_TAGS,
    status_code=202,
    responses=DRY_RUN_RESPONSES,
    summary="Delete an account",
)
async def delete_account(
    *,
    account_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    grace_days: Annotated[
        int | None,
        QueryParameter(
            description="How many days it can be restored; left out: as the policy deletion_grace_days says. 0: remove "
            "everything now; this cannot be undone, and is how an account in the trash is removed before its time."
        ),
    ] = None,
    dry_run: DryRun = False,
) -> Response[AccountChange]:
    """Take the account out of service, and remove it with everything it has when its grace period is over."""
    return answer_account(
        await operations.change(
            actor,
            request_id,
            lambda ctx: deletion.delete_account(ctx, account_id, grace_days=grace_days),
            is_dry_run=dry_run,
        )
    )


@post(
    "/accounts/{account_id:str}/suspend",
    operation_id="suspend-account",
    tags=_TAGS,
    status_code=202,
    responses=DRY_RUN_RESPONSES,
    summary="Suspend an account",
)
async def suspend_account(
    *,
    account_id: PathId,
    data: JSONBody[AccountSuspend],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[AccountChange]:
    """Stop serving: sites answer 503, processes end, sign-ins are refused; nothing is deleted."""
    return answer_account(
        await operations.change(
            actor, request_id, lambda ctx: suspension.suspend_account(ctx, account_id, data), is_dry_run=dry_run
        )
    )


@post(
    "/accounts/{account_id:str}/unsuspend",
    operation_id="unsuspend-account",
    tags=_TAGS,
    status_code=202,
    responses=DRY_RUN_RESPONSES,
    summary="Unsuspend an account",
)
async def unsuspend_account(
    *,
    account_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[AccountChange]:
    """Serve again, exactly as before the suspension."""
    return answer_account(
        await operations.change(
            actor, request_id, lambda ctx: suspension.unsuspend_account(ctx, account_id), is_dry_run=dry_run
        )
    )


@post(
    "/accounts/{account_id:str}/converge",
    operation_id="converge-account",
    tags=_TAGS,
    status_code=202,
    responses=DRY_RUN_RESPONSES,
    summary="Repair an account",
)
async def converge_account(
    *,
    account_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[AccountChange]:
    """Bring the node to what is wanted once more; repairs what was changed there by hand."""
    return answer_account(
        await operations.change(
            actor, request_id, lambda ctx: service.converge_again(ctx, account_id), is_dry_run=dry_run
        )
    )


@get(
    "/accounts/{account_id:str}/manifest",
    operation_id="show-account-manifest",
    tags=_TAGS,
    summary="Show the manifest of an account",
)
async def show_account_manifest(
    *,
    account_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> ManifestView:
    """Show everything that the node is told to bring about for the account."""
    return await operations.read(actor, request_id, lambda ctx: queries.show_manifest(ctx, account_id))


@get(
    "/accounts/{account_id:str}/proofs",
    operation_id="show-account-proofs",
    tags=_TAGS,
    summary="Show the proofs of an account",
)
async def show_account_proofs(
    *,
    account_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> ProofList:
    """Show each limit as the kernel of the node enforces it, and when that was read."""
    return await operations.read(actor, request_id, lambda ctx: queries.show_proofs(ctx, account_id))


@post(
    "/accounts/{account_id:str}/drift-check",
    operation_id="check-account-drift",
    tags=_TAGS,
    status_code=202,
    responses=DRY_RUN_RESPONSES,
    summary="Look for drift of an account",
)
async def check_account_drift(
    *,
    account_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[AccountChange]:
    """Let the node compare the account with what was applied last; it changes nothing."""
    return answer_account(
        await operations.change(actor, request_id, lambda ctx: service.check_drift(ctx, account_id), is_dry_run=dry_run)
    )


@get(
    "/accounts/{account_id:str}/drift",
    operation_id="list-account-drift",
    tags=_TAGS,
    summary="List drift of an account",
)
async def list_account_drift(
    *,
    account_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> AccountDriftList:
    """Show what was not as it was applied when the node looked last."""
    return await operations.read(actor, request_id, lambda ctx: queries.list_drift(ctx, account_id))


ROUTES = (
    list_accounts,
    create_account,
    show_account,
    update_account,
    delete_account,
    suspend_account,
    unsuspend_account,
    converge_account,
    show_account_manifest,
    show_account_proofs,
    check_account_drift,
    list_account_drift,
)
