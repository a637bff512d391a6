"""Packages over HTTP."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, QueryParameter

from controller.core.context import Actor
from controller.core.http import (
    DRY_RUN_RESPONSES,
    Cursor,
    DryRun,
    Limit,
    PathId,
    Search,
    answer_accepted,
    answer_done,
)
from controller.core.operations import Operations
from controller.core.packages import service, suspension
from controller.core.packages.views import (
    FieldList,
    PackageClone,
    PackageCreate,
    PackagePage,
    PackageUpdate,
    PackageView,
    Tier,
)
from controller.core.packages.what_if import WhatIf, judge_update
from controller.core.paging import DEFAULT_LIMIT, PageRequest
from controller.jobs.views import JobView

_TAGS = ["packages"]


class PackageChange(msgspec.Struct, frozen=True, kw_only=True):
    """A package, and the jobs that bring its accounts to it."""

    resource: PackageView
    jobs: tuple[JobView, ...]


@get("/packages", operation_id="list-packages", tags=_TAGS, summary="List packages")
async def list_packages(
    *,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    search: Search = None,
    tier: Annotated[Tier | None, QueryParameter(description="Only packages that are made for these.")] = None,
    is_suspended: Annotated[bool | None, QueryParameter(description="true: only suspended ones.")] = None,
) -> PackagePage:
    """Show the packages, newest first, each with the number of accounts that use it."""
    page = PageRequest(limit=limit, cursor=cursor, search=search)
    wanted = service.PackageFilter(tier=tier, is_suspended=is_suspended)
    return await operations.read(actor, request_id, lambda ctx: service.list_packages(ctx, page, wanted))


@post(
    "/packages",
    operation_id="create-package",
    tags=_TAGS,
    status_code=201,
    responses=DRY_RUN_RESPONSES,
    summary="Create a package",
)
async def create_package(
    *,
    data: JSONBody[PackageCreate],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[PackageView]:
    """Add a package; a limit that is left out comes from its parent, and is unlimited without one."""
    outcome = await operations.change(
        actor, request_id, lambda ctx: service.create_package(ctx, data), is_dry_run=dry_run
    )
    return answer_done(outcome, status=201)


@get("/packages/{package_id:str}", operation_id="show-package", tags=_TAGS, summary="Show a package")
async def show_package(
    *,
    package_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> PackageView:
    """Show one package with its limits."""
    return await operations.read(actor, request_id, lambda ctx: service.show_package(ctx, package_id))


@patch(
    "/packages/{package_id:str}",
    operation_id="update-package",
    tags=_TAGS,
    status_code=202,
    responses=DRY_RUN_RESPONSES,
    summary="Change a package",
)
async def update_package(
    *,
    package_id: PathId,
    data: JSONBody[PackageUpdate],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[PackageChange]:
    """Change limits; every account that uses the package is brought to them by a job of its own."""
    outcome = await operations.change(
        actor, request_id, lambda ctx: service.update_package(ctx, package_id, data), is_dry_run=dry_run
    )
    return answer_accepted(outcome, lambda view, jobs: PackageChange(resource=view, jobs=jobs))


@delete(
    "/packages/{package_id:str}",
    operation_id="delete-package",
    tags=_TAGS,
    status_code=204,
    responses=DRY_RUN_RESPONSES,
    summary="Delete a package",
)
async def delete_package(
    *,
    package_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[None]:
    """Remove a package that no account uses."""
    outcome = await operations.change(
        actor, request_id, lambda ctx: service.delete_package(ctx, package_id), is_dry_run=dry_run
    )
    return answer_done(outcome, status=204)


@post(
    "/packages/{package_id:str}/suspend",
    operation_id="suspend-package",
    tags=_TAGS,
    status_code=200,
    responses=DRY_RUN_RESPONSES,
    summary="Suspend a package",
)
async def suspend_package(
    *,
    package_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[PackageView]:
    """Give a package to no more accounts; those that have it go on as before."""
    outcome = await operations.change(
        actor, request_id, lambda ctx: suspension.suspend_package(ctx, package_id), is_dry_run=dry_run
    )
    return answer_done(outcome, status=200)


@post(
    "/packages/{package_id:str}/unsuspend",
    operation_id="unsuspend-package",
    tags=_TAGS,
    status_code=200,
    responses=DRY_RUN_RESPONSES,
    summary="Unsuspend a package",
)
async def unsuspend_package(
    *,
    package_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[PackageView]:
    """Give a package to accounts again."""
    outcome = await operations.change(
        actor, request_id, lambda ctx: suspension.unsuspend_package(ctx, package_id), is_dry_run=dry_run
    )
    return answer_done(outcome, status=200)


@post(
    "/packages/{package_id:str}/clone",
    operation_id="clone-package",
    tags=_TAGS,
    status_code=201,
    responses=DRY_RUN_RESPONSES,
    summary="Copy a package",
)
async def clone_package(
    *,
    package_id: PathId,
    data: JSONBody[PackageClone],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[PackageView]:
    """Add a package that says the same, under another name; accounts stay with the one they have."""
    outcome = await operations.change(
        actor, request_id, lambda ctx: service.clone_package(ctx, package_id, data), is_dry_run=dry_run
    )
    return answer_done(outcome, status=201)


@get(
    "/packages/{package_id:str}/fields",
    operation_id="list-package-fields",
    tags=_TAGS,
    summary="Show where a package's values come from",
)
async def list_package_fields(
    *,
    package_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> FieldList:
    """Show every field as accounts have it: its own, inherited (and from which package), or the default."""
    return await operations.read(actor, request_id, lambda ctx: service.show_fields(ctx, package_id))


@post(
    "/packages/{package_id:str}/what-if",
    operation_id="judge-package-update",
    tags=_TAGS,
    status_code=200,
    summary="Show what an edit would mean",
)
async def judge_package_update(
    *,
    package_id: PathId,
    data: JSONBody[PackageUpdate],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> WhatIf:
    """Say which accounts an edit would put over which limit, and which nodes would have work; change nothing."""
    page = PageRequest(limit=limit, cursor=cursor)
    outcome = await operations.change(
        actor, request_id, lambda ctx: judge_update(ctx, package_id, data, page), is_dry_run=True
    )
    return outcome.resource


ROUTES = (
    list_packages, create_package, show_package, update_package, delete_package, suspend_package, unsuspend_package,
    clone_package, list_package_fields, judge_package_update,
)  # fmt: skip
