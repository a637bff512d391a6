"""Versions of packages, accounts that keep one, and what packages can limit, over HTTP."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, PathParameter, QueryParameter

from controller.core.accounts.views import AccountView
from controller.core.context import Actor
from controller.core.http import DRY_RUN_RESPONSES, Cursor, DryRun, Limit, PathId, answer_accepted
from controller.core.operations import Operations
from controller.core.packages import kinds, versions
from controller.core.packages.views import (
    AccountPin,
    FlagKindList,
    LimitKindList,
    VersionDiff,
    VersionPage,
    VersionView,
)
from controller.core.paging import DEFAULT_LIMIT, PageRequest
from controller.jobs.views import JobView


class PinChange(msgspec.Struct, frozen=True, kw_only=True):
    """An account, and the job that brings it to the version, if a node has to know."""

    resource: AccountView
    jobs: tuple[JobView, ...]


Number = Annotated[int, PathParameter(description="The version's number.")]
Before = Annotated[int, QueryParameter(description="Number of the earlier version.")]
After = Annotated[int | None, QueryParameter(description="Number of the later version; left out: the newest.")]


@get("/limits", operation_id="list-limits", tags=["limits"], summary="List what packages can limit")
async def list_limits(
    *,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> LimitKindList:
    """Show every limit, who enforces it, and whether this release counts an account's use of it."""
    return await operations.read(actor, request_id, kinds.list_limits)


@get("/features", operation_id="list-features", tags=["limits"], summary="List what packages can allow")
async def list_features(
    *,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> FlagKindList:
    """Show every feature that a package can switch on or off."""
    return await operations.read(actor, request_id, kinds.list_features)


@get(
    "/packages/{package_id:str}/versions",
    operation_id="list-package-versions",
    tags=["packages"],
    summary="List a package's versions",
)
async def list_package_versions(
    *,
    package_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> VersionPage:
    """Show what each edit left, newest first."""
    page = PageRequest(limit=limit, cursor=cursor)
    return await operations.read(actor, request_id, lambda ctx: versions.list_versions(ctx, package_id, page))


@get(
    "/packages/{package_id:str}/versions/{number:int}",
    operation_id="show-package-version",
    tags=["packages"],
    summary="Show a package's version",
)
async def show_package_version(
    *,
    package_id: PathId,
    number: Number,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> VersionView:
    """Show the package as that edit left it, inherited values included."""
    return await operations.read(actor, request_id, lambda ctx: versions.show_version(ctx, package_id, number))


@get(
    "/packages/{package_id:str}/diff",
    operation_id="diff-package-versions",
    tags=["packages"],
    summary="Compare two versions of a package",
)
async def diff_package_versions(
    *,
    package_id: PathId,
    before: Before = 1,
    after: After = None,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> VersionDiff:
    """Show the fields that two versions have differently."""
    return await operations.read(actor, request_id, lambda ctx: versions.diff_versions(ctx, package_id, before, after))


@post(
    "/accounts/{account_id:str}/package-version",
    operation_id="pin-account-package",
    tags=["accounts"],
    status_code=202,
    responses=DRY_RUN_RESPONSES,
    summary="Pin an account to a version of its package",
)
async def pin_account_package(
    *,
    account_id: PathId,
    data: JSONBody[AccountPin],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[PinChange]:
    """Let an account keep one version of its package; with null it follows the newest again."""
    outcome = await operations.change(
        actor, request_id, lambda ctx: versions.pin_account(ctx, account_id, data), is_dry_run=dry_run
    )
    return answer_accepted(outcome, lambda view, jobs: PinChange(resource=view, jobs=jobs))


ROUTES = (
    list_limits, list_features, list_package_versions, show_package_version, diff_package_versions, pin_account_package,
)  # fmt: skip
