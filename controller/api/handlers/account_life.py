"""Deleted accounts, clones and notes over HTTP."""

from __future__ import annotations

from litestar import Response, get, post, put
from litestar.di import NamedDependency
from litestar.params import JSONBody

from controller.api.handlers.accounts import AccountChange, answer_account
from controller.core.accounts import certificate, clone, deletion, labels
from controller.core.accounts.views import AccountClone, AccountNote, DeletionCertificateView
from controller.core.context import Actor
from controller.core.http import DRY_RUN_RESPONSES, DryRun, PathId, answer_done
from controller.core.operations import Operations

_TAGS = ["accounts"]


@post(
    "/accounts/{account_id:str}/restore",
    operation_id="restore-account",
    tags=_TAGS,
    status_code=202,
    responses=DRY_RUN_RESPONSES,
    summary="Restore a deleted account",
)
async def restore_account(
    *,
    account_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[AccountChange]:
    """Take an account back within its grace period: it is as it was, a suspension included."""
    return answer_account(
        await operations.change(
            actor, request_id, lambda ctx: deletion.restore_account(ctx, account_id), is_dry_run=dry_run
        )
    )


@get(
    "/accounts/{account_id:str}/deletion-certificate",
    operation_id="show-deletion",
    tags=_TAGS,
    summary="Show the certificate of a deletion",
)
async def show_deletion_certificate(
    *,
    account_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> DeletionCertificateView:
    """Show what was removed with an account that is gone, who asked for it, and what proves it."""
    return await operations.read(actor, request_id, lambda ctx: certificate.show_certificate(ctx, account_id))


@get(
    "/accounts/{account_id:str}/note",
    operation_id="show-account-note",
    tags=_TAGS,
    summary="Show the note about an account",
)
async def show_account_note(
    *,
    account_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> AccountNote:
    """Show what administrators tell each other about the account."""
    return await operations.read(actor, request_id, lambda ctx: labels.show_note(ctx, account_id))


@put(
    "/accounts/{account_id:str}/note",
    operation_id="set-account-note",
    tags=_TAGS,
    status_code=200,
    responses=DRY_RUN_RESPONSES,
    summary="Write the note about an account",
)
async def set_account_note(
    *,
    account_id: PathId,
    data: JSONBody[AccountNote],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[AccountNote]:
    """Write what administrators tell each other about the account; an empty text takes it away."""
    outcome = await operations.change(
        actor, request_id, lambda ctx: labels.set_note(ctx, account_id, data), is_dry_run=dry_run
    )
    return answer_done(outcome, status=200)


@post(
    "/accounts/{account_id:str}/clone",
    operation_id="clone-account",
    tags=_TAGS,
    status_code=202,
    responses=DRY_RUN_RESPONSES,
    summary="Clone an account",
)
async def clone_account(
    *,
    account_id: PathId,
    data: JSONBody[AccountClone],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[AccountChange]:
    """Make an account with the same package, labels and sites under other names; files are not copied."""
    return answer_account(
        await operations.change(
            actor, request_id, lambda ctx: clone.clone_account(ctx, account_id, data), is_dry_run=dry_run
        )
    )


ROUTES = (clone_account, restore_account, show_deletion_certificate, show_account_note, set_account_note)
