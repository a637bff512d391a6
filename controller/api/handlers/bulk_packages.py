"""Another package for many accounts at once, over HTTP."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from litestar import Response, post
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import JSONBody
from msgspec import Meta

from controller.core.accounts.service import update_account
from controller.core.accounts.views import AccountUpdate, AccountView, RowId
from controller.core.context import Actor
from controller.core.http import API_ROOT, DryRun
from controller.core.operations import FleetContext, Operations
from controller.core.plan import PlanView
from controller.jobs.views import JobView
from shared.errors import FleetError, InvalidInputError

BULK_MAX: Final = 200


class BulkPackage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which accounts get which package."""

    account_ids: Annotated[tuple[RowId, ...], Meta(min_length=1, max_length=BULK_MAX, description="Whose.")]
    package_id: Annotated[RowId, Meta(description="The package they get.")]


class BulkPackageItem(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one account, or would."""

    account_id: str
    name: str
    is_done: Annotated[bool, Meta(description="In a dry run: it would be.")]
    job_ids: tuple[str, ...]
    plan: Annotated[PlanView | None, Meta(description="Only in a dry run.")]
    error_code: str | None
    error_message: str | None


class BulkPackageResult(msgspec.Struct, frozen=True, kw_only=True):
    """One line for each account; those that failed have changed nothing, and stopped no other."""

    done: int
    failed: int
    items: tuple[BulkPackageItem, ...]
    jobs: tuple[JobView, ...]
    next_cursor: str | None = None


_DRY_RUN: Final = {
    200: ResponseSpec(
        data_container=BulkPackageResult,
        description="Only with dry_run=true: what would happen to each. Nothing was changed.",
        generate_examples=False,
    )
}


@post(
    "/accounts/bulk-package",
    operation_id="bulk-change-package",
    tags=["accounts"],
    status_code=202,
    responses=_DRY_RUN,
    summary="Give many accounts another package",
)
async def bulk_change_package(
    *,
    data: JSONBody[BulkPackage],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[BulkPackageResult]:
    """Change the package of each account by itself: one that has too much for it keeps what it has."""
    actor.require("accounts", "write")
    if len(set(data.account_ids)) != len(data.account_ids):
        raise InvalidInputError("an account is named twice", field="account_ids")
    items: list[BulkPackageItem] = []
    jobs: list[JobView] = []
    for account_id in data.account_ids:
        item, own_jobs = await _change_one(operations, actor, request_id, account_id, data.package_id, dry_run)
        items.append(item)
        jobs += own_jobs
    done = sum(item.is_done for item in items)
    result = BulkPackageResult(done=done, failed=len(items) - done, items=tuple(items), jobs=tuple(jobs))
    headers = {"Location": f"{API_ROOT}/jobs/{jobs[0].id}"} if jobs else {}
    return Response(result, status_code=200 if dry_run else 202, headers=headers)


async def _change_one(
    operations: Operations,
    actor: Actor,
    request_id: str,
    account_id: str,
    package_id: str,
    is_dry_run: bool,  # noqa: FBT001 - private, one caller
) -> tuple[BulkPackageItem, tuple[JobView, ...]]:
    async def use_case(ctx: FleetContext) -> AccountView:
        return await update_account(ctx, account_id, AccountUpdate(package_id=package_id))

    try:
        outcome = await operations.change(actor, request_id, use_case, is_dry_run=is_dry_run)
    except FleetError as error:
        failed = BulkPackageItem(
            account_id=account_id, name="", is_done=False, job_ids=(), plan=None, error_code=error.code,
            error_message=error.message,
        )  # fmt: skip
        return failed, ()
    item = BulkPackageItem(
        account_id=account_id,
        name=outcome.resource.name,
        is_done=True,
        job_ids=tuple(job.id for job in outcome.jobs),
        plan=outcome.plan,
        error_code=None,
        error_message=None,
    )
    return item, outcome.jobs


ROUTES = (bulk_change_package,)
