"""The way back of a rollout: the package says again what it said before, and every account that was reached gets it."""

from __future__ import annotations

from sqlalchemy import select, update

from controller.core.accounts.models import Account
from controller.core.operations import FleetContext
from controller.core.packages.models import Package
from controller.core.packages.rollouts.models import PackageRollout, PackageRolloutAccount
from controller.core.packages.rollouts.service import get_package_rollout, move, skip
from controller.core.packages.rollouts.views import PackageRolloutView
from controller.core.packages.service import converge_users, restore_package
from controller.core.packages.store import get_package
from controller.core.packages.versions import get_version
from controller.fleet.rollouts.models import RolloutNodeState, RolloutState
from shared.errors import ConflictError


async def return_package_rollout(ctx: FleetContext, rollout_id: str) -> PackageRolloutView:
    """End the rollout and take the edit back, as one more version; everybody follows the newest again.

    Accounts that were reached converge to what they had. Labels (name, description, tier) stay as they are now.

    Raises:
        ForbiddenError, NotFoundError
        ConflictError: It was taken back already; or the package was edited since, or its parent of then is gone.
    """
    ctx.actor.require("packages", "write")
    rollout = await get_package_rollout(ctx, rollout_id, is_locked=True)
    package = await get_package(ctx.session, rollout.package_id)
    if rollout.is_returned:
        raise ConflictError("the rollout was taken back already")
    if package.version != rollout.version:
        raise ConflictError(
            f"the package {package.name!r} was edited since: it has version {package.version}",
            hint=f"Edit it again, with a rollout; version {rollout.version_before} says what it was.",
        )
    version = await get_version(ctx.session, package, rollout.version_before)
    # Whoever was just sent the new version is sent the old one below, which takes the place of that job.
    await skip(ctx, rollout, RolloutNodeState.WAITING, RolloutNodeState.SENT, note="the edit was taken back")
    changed = await restore_package(ctx, package, version, note=f"rollout of version {rollout.version} taken back")
    await _follow_newest(ctx, rollout)
    rollout.is_returned, rollout.finished_at = True, ctx.now
    view = await move(ctx, rollout, "package_rollout.return", RolloutState.ABORTED, "")
    for row in changed:
        await converge_users(ctx, row)
    return view


async def _follow_newest(ctx: FleetContext, rollout: PackageRollout) -> None:
    """Unpin whom the rollout had pinned, unless somebody pinned them elsewhere since."""
    reached = (
        select(Account.id)
        .join(PackageRolloutAccount, PackageRolloutAccount.account_id == Account.id)
        .join(Package, Package.id == Account.package_id)
        .where(
            PackageRolloutAccount.rollout_id == rollout.id,
            PackageRolloutAccount.version_before_id == Account.package_version_id,
        )
    )
    ids = list(await ctx.session.scalars(reached))
    for start in range(0, len(ids), 500):
        some = update(Account).where(Account.id.in_(ids[start : start + 500]))
        await ctx.session.execute(some.values(package_version_id=None, updated_at=ctx.now))
