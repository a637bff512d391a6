"""One change of many accounts over HTTP, and what all bulk requests answer."""

from __future__ import annotations

from typing import Any, Final

from litestar import Request, Response, post
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import JSONBody

from controller.api.guards import require_recent_proof
from controller.core.accounts.bulk import DANGEROUS, BulkAccounts, choose_accounts, choose_change
from controller.core.bulk import Bulk, BulkResult
from controller.core.context import Actor
from controller.core.http import API_ROOT, DryRun
from controller.core.operations import Operations

_TAGS = ["accounts"]
BULK_DRY_RUN: Final[dict[int, ResponseSpec]] = {
    200: ResponseSpec(
        data_container=BulkResult,
        description="Only with dry_run=true: what would happen to each. Nothing was changed.",
        generate_examples=False,
    )
}


def answer_bulk(result: BulkResult, *, is_dry_run: bool) -> Response[BulkResult]:
    """202 with the jobs of all (and the first one's address), or 200 with the plans of a dry run."""
    headers = {"Location": f"{API_ROOT}/jobs/{result.jobs[0].id}"} if result.jobs else {}
    return Response(result, status_code=200 if is_dry_run else 202, headers=headers)


@post(
    "/accounts/bulk",
    operation_id="bulk-change-accounts",
    tags=_TAGS,
    status_code=202,
    responses=BULK_DRY_RUN,
    summary="Change many accounts",
)
async def bulk_change_accounts(
    *,
    data: JSONBody[BulkAccounts],
    request: Request[Any, Any, Any],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[BulkResult]:
    """Suspend, unsuspend, delete, restore, label or repair each account by itself; one that fails stops no other.

    For suspending and deleting, a person must have proved lately who they are.
    """
    if data.action in DANGEROUS and not dry_run:
        require_recent_proof(request)
    change = choose_change(data)
    ids = await operations.read(actor, request_id, lambda ctx: choose_accounts(ctx, data))
    bulk = Bulk(operations=operations, actor=actor, request_id=request_id, is_dry_run=dry_run)
    return answer_bulk(await bulk.run(ids, change), is_dry_run=dry_run)


ROUTES = (bulk_change_accounts,)
