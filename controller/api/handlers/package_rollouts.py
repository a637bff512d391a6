"""Edits of packages that reach their accounts in waves, over HTTP. One begins with `rollout` in update-package."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, QueryParameter

from controller.core.context import Actor
from controller.core.http import (
    DRY_RUN_RESPONSES,
    Cursor,
    DryRun,
    Limit,
    PathId,
    answer_accepted,
    answer_done,
)
from controller.core.operations import Operations
from controller.core.packages.rollouts import service
from controller.core.packages.rollouts.going_back import return_package_rollout as go_back
from controller.core.packages.rollouts.views import (
    PackageRolloutAccountPage,
    PackageRolloutPage,
    PackageRolloutResume,
    PackageRolloutView,
)
from controller.core.paging import DEFAULT_LIMIT, PageRequest
from controller.jobs.views import JobView

_TAGS = ["packages"]
PackageFilter = Annotated[str | None, QueryParameter(description="Only rollouts of this package.")]


class PackageRolloutChange(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout, and the jobs that bring accounts back."""

    resource: PackageRolloutView
    jobs: tuple[JobView, ...]


@get("/package-rollouts", operation_id="list-package-rollouts", tags=_TAGS, summary="List rollouts of packages")
async def list_package_rollouts(
    *,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    package_id: PackageFilter = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> PackageRolloutPage:
    """Show edits of packages that went over their accounts in waves, newest first."""
    page = PageRequest(limit=limit, cursor=cursor)
    return await operations.read(actor, request_id, lambda ctx: service.list_package_rollouts(ctx, package_id, page))


@get(
    "/package-rollouts/{package_rollout_id:str}",
    operation_id="show-package-rollout",
    tags=_TAGS,
    summary="Show a rollout of a package",
)
async def show_package_rollout(
    *,
    package_rollout_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> PackageRolloutView:
    """Show its waves, and what it waits for."""
    return await operations.read(actor, request_id, lambda ctx: service.show_package_rollout(ctx, package_rollout_id))


@get(
    "/package-rollouts/{package_rollout_id:str}/accounts",
    operation_id="list-package-rollout-accounts",
    tags=_TAGS,
    summary="List the accounts of a package's rollout",
)
async def list_package_rollout_accounts(
    *,
    package_rollout_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> PackageRolloutAccountPage:
    """Show what became of each account, and why."""
    page = PageRequest(limit=limit, cursor=cursor)
    return await operations.read(
        actor, request_id, lambda ctx: service.list_rollout_accounts(ctx, package_rollout_id, page)
    )


@post(
    "/package-rollouts/{package_rollout_id:str}/pause",
    operation_id="pause-package-rollout",
    tags=_TAGS,
    status_code=200,
    responses=DRY_RUN_RESPONSES,
    summary="Pause a rollout of a package",
)
async def pause_package_rollout(
    *,
    package_rollout_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[PackageRolloutView]:
    """Reach no more accounts for now; what was begun on a node ends there."""
    outcome = await operations.change(
        actor,
        request_id,
        lambda ctx: service.pause_package_rollout(ctx, package_rollout_id),
        is_dry_run=dry_run,
    )
    return answer_done(outcome, status=200)


@post(
    "/package-rollouts/{package_rollout_id:str}/resume",
    operation_id="resume-package-rollout",
    tags=_TAGS,
    status_code=200,
    responses=DRY_RUN_RESPONSES,
    summary="Resume a rollout of a package",
)
async def resume_package_rollout(
    *,
    package_rollout_id: PathId,
    data: JSONBody[PackageRolloutResume],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[PackageRolloutView]:
    """Go on with a paused or halted rollout; failures so far no longer count, or their accounts are tried again."""
    outcome = await operations.change(
        actor,
        request_id,
        lambda ctx: service.resume_package_rollout(ctx, package_rollout_id, is_retrying=data.is_retrying),
        is_dry_run=dry_run,
    )
    return answer_done(outcome, status=200)


@post(
    "/package-rollouts/{package_rollout_id:str}/abort",
    operation_id="abort-package-rollout",
    tags=_TAGS,
    status_code=200,
    responses=DRY_RUN_RESPONSES,
    summary="Abort a rollout of a package",
)
async def abort_package_rollout(
    *,
    package_rollout_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[PackageRolloutView]:
    """End it for good; accounts that have the new version keep it, the others stay pinned to what they have."""
    outcome = await operations.change(
        actor,
        request_id,
        lambda ctx: service.abort_package_rollout(ctx, package_rollout_id),
        is_dry_run=dry_run,
    )
    return answer_done(outcome, status=200)


@post(
    "/package-rollouts/{package_rollout_id:str}/return",
    operation_id="return-package-rollout",
    tags=_TAGS,
    status_code=202,
    responses=DRY_RUN_RESPONSES,
    summary="Take a rollout of a package back",
)
async def return_package_rollout(
    *,
    package_rollout_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[PackageRolloutChange]:
    """End it, let the package say what it said before, and bring every account back to that."""
    outcome = await operations.change(
        actor, request_id, lambda ctx: go_back(ctx, package_rollout_id), is_dry_run=dry_run
    )
    return answer_accepted(outcome, lambda view, jobs: PackageRolloutChange(resource=view, jobs=jobs))


ROUTES = (
    list_package_rollouts,
    show_package_rollout,
    list_package_rollout_accounts,
    pause_package_rollout,
    resume_package_rollout,
    abort_package_rollout,
    return_package_rollout,
)
"""Below /api/v1."""
