"""Another package for many accounts at once, over HTTP."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from litestar import Response, post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import Meta

from controller.api.handlers.bulk_accounts import BULK_DRY_RUN, answer_bulk
from controller.core.accounts.service import update_account
from controller.core.accounts.views import AccountUpdate, RowId
from controller.core.bulk import Bulk, BulkResult
from controller.core.context import Actor
from controller.core.http import DryRun
from controller.core.operations import Operations

PACKAGES_MAX: Final = 200


class BulkPackage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which accounts get which package."""

    account_ids: Annotated[tuple[RowId, ...], Meta(min_length=1, max_length=PACKAGES_MAX, description="Whose.")]
    package_id: Annotated[RowId, Meta(description="The package they get.")]


@post(
    "/accounts/bulk-package",
    operation_id="bulk-change-package",
    tags=["accounts"],
    status_code=202,
    responses=BULK_DRY_RUN,
    summary="Give many accounts another package",
)
async def bulk_change_package(
    *,
    data: JSONBody[BulkPackage],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[BulkResult]:
    """Change the package of each account by itself: one that has too much for it keeps what it has."""
    actor.require("accounts", "write")
    params = AccountUpdate(package_id=data.package_id)
    bulk = Bulk(operations=operations, actor=actor, request_id=request_id, is_dry_run=dry_run)
    result = await bulk.run(data.account_ids, lambda ctx, account_id: update_account(ctx, account_id, params))
    return answer_bulk(result, is_dry_run=dry_run)


ROUTES = (bulk_change_package,)
