"""Accounts and clients that change hands, over HTTP."""

from __future__ import annotations

import msgspec
from litestar import Response, post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from controller.core.accounts.views import AccountView
from controller.core.clients.views import ClientView
from controller.core.context import Actor
from controller.core.http import DRY_RUN_RESPONSES, DryRun, PathId, answer_accepted
from controller.core.operations import Operations
from controller.core.resellers import transfers
from controller.core.resellers.transfers import AccountTransfer, ClientTransfer, TransferPreview
from controller.jobs.views import JobView


class TransferredAccount(msgspec.Struct, frozen=True, kw_only=True):
    """An account, and the job for its node if it has another package now."""

    resource: AccountView
    jobs: tuple[JobView, ...]


class TransferredClient(msgspec.Struct, frozen=True, kw_only=True):
    """A client, and the jobs for its accounts that have another package now."""

    resource: ClientView
    jobs: tuple[JobView, ...]


@post(
    "/accounts/{account_id:str}/transfer",
    operation_id="transfer-account",
    tags=["accounts"],
    status_code=202,
    responses=DRY_RUN_RESPONSES,
    summary="Give an account to another client",
)
async def transfer_account(
    *,
    account_id: PathId,
    data: JSONBody[AccountTransfer],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[TransferredAccount]:
    """Move an account with all it has to another client; its team members do not go with it."""
    outcome = await operations.change(
        actor, request_id, lambda ctx: transfers.transfer_account(ctx, account_id, data), is_dry_run=dry_run
    )
    return answer_accepted(outcome, lambda view, jobs: TransferredAccount(resource=view, jobs=jobs))


@post(
    "/accounts/{account_id:str}/transfer-preview",
    operation_id="judge-account-transfer",
    tags=["accounts"],
    status_code=200,
    summary="Show what a transfer would break",
)
async def judge_account_transfer(
    *,
    account_id: PathId,
    data: JSONBody[AccountTransfer],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> TransferPreview:
    """Say whether a transfer is possible, what is in its way, and who would lose access; change nothing."""
    outcome = await operations.change(
        actor, request_id, lambda ctx: transfers.preview_transfer(ctx, account_id, data), is_dry_run=True
    )
    return outcome.resource


@post(
    "/clients/{client_id:str}/transfer",
    operation_id="transfer-client",
    tags=["clients"],
    status_code=202,
    responses=DRY_RUN_RESPONSES,
    summary="Give a client to another reseller",
)
async def transfer_client(
    *,
    client_id: PathId,
    data: JSONBody[ClientTransfer],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[TransferredClient]:
    """Move a client with all its accounts and people to another reseller, or take it over."""
    outcome = await operations.change(
        actor, request_id, lambda ctx: transfers.transfer_client(ctx, client_id, data), is_dry_run=dry_run
    )
    return answer_accepted(outcome, lambda view, jobs: TransferredClient(resource=view, jobs=jobs))


ROUTES = (transfer_account, judge_account_transfer, transfer_client)
