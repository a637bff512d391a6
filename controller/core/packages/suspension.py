"""Packages that are not given out any more: their accounts go on as before, and no account gets one."""

from __future__ import annotations

from datetime import datetime

import msgspec

from controller.core.audit.chain import record
from controller.core.context import Change
from controller.core.operations import FleetContext
from controller.core.packages import store
from controller.core.packages.models import Package
from controller.core.packages.rollouts.begin import find_open_rollouts
from controller.core.packages.views import PackageView
from shared.errors import ConflictError


async def suspend_package(ctx: FleetContext, package_id: str) -> PackageView:
    """Give the package to no more accounts. Those that have it keep it, with every later edit of it.

    Raises:
        ForbiddenError, NotFoundError
        ConflictError: It is suspended already.
    """
    return await _switch(ctx, package_id, ctx.now)


async def unsuspend_package(ctx: FleetContext, package_id: str) -> PackageView:
    """Give it to accounts again.

    Raises:
        ForbiddenError, NotFoundError
        ConflictError: It is not suspended.
    """
    return await _switch(ctx, package_id, None)


async def _switch(ctx: FleetContext, package_id: str, suspended_at: datetime | None) -> PackageView:
    ctx.actor.require("packages", "write")
    package = await store.get_package(ctx.session, package_id)
    store.require_own(ctx.actor, package)
    if (package.suspended_at is None) is (suspended_at is None):
        raise ConflictError(f"the package {package.name!r} is {'not' if suspended_at is None else 'already'} suspended")
    before = await view_with_use(ctx, package)
    package.suspended_at, package.updated_at = suspended_at, ctx.now
    await ctx.session.flush()
    after = await view_with_use(ctx, package)
    change = Change(
        action="package.unsuspend" if suspended_at is None else "package.suspend",
        target=f"package/{package.id}",
        target_name=package.name,
        before=msgspec.to_builtins(before),
        after=msgspec.to_builtins(after),
    )
    record(ctx, change)
    return after


async def view_with_use(ctx: FleetContext, package: Package) -> PackageView:
    """For the API, with how many accounts use it."""
    counts = await store.count_accounts(ctx.session, [package.id])
    rollouts = await find_open_rollouts(ctx.session, [package.id])
    return store.view_package(
        package, counts.get(package.id, 0), ctx.registry.limits, rollout_id=rollouts.get(package.id)
    )
