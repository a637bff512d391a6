"""Use cases of package rollouts: look at them, stop them, go on."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.accounts.models import Account
from controller.core.audit.chain import record
from controller.core.context import Change
from controller.core.fields import not_found, require_id, require_id_field
from controller.core.operations import FleetContext
from controller.core.packages.rollouts.models import PackageRollout, PackageRolloutAccount
from controller.core.packages.rollouts.views import (
    PackageRolloutAccountPage,
    PackageRolloutPage,
    PackageRolloutView,
    render_package_rollout,
    render_rollout_account,
)
from controller.core.paging import PageRequest, fetch_page
from controller.fleet.rollouts.counts import count_members
from controller.fleet.rollouts.models import RolloutNodeState, RolloutState
from controller.fleet.rollouts.steps import require_state, try_again


async def list_package_rollouts(ctx: FleetContext, package_id: str | None, page: PageRequest) -> PackageRolloutPage:
    """Newest first.

    Raises:
        ForbiddenError, InvalidInputError
    """
    ctx.actor.require("packages", "read")
    statement = select(PackageRollout)
    if package_id is not None:
        statement = statement.where(PackageRollout.package_id == require_id_field("package_id", package_id))
    found = await fetch_page(ctx.session, statement, page)
    counts = await count_members(ctx.session, PackageRolloutAccount, [row.id for row in found.rows])
    items = tuple(render_package_rollout(row, counts[row.id]) for row in found.rows)
    return PackageRolloutPage(items=items, next_cursor=found.next_cursor)


async def show_package_rollout(ctx: FleetContext, rollout_id: str) -> PackageRolloutView:
    """One rollout.

    Raises:
        ForbiddenError, NotFoundError
    """
    ctx.actor.require("packages", "read")
    return await view_package_rollout(ctx.session, await get_package_rollout(ctx, rollout_id))


async def list_rollout_accounts(ctx: FleetContext, rollout_id: str, page: PageRequest) -> PackageRolloutAccountPage:
    """What became of each account.

    Raises:
        ForbiddenError, InvalidInputError, NotFoundError
    """
    ctx.actor.require("packages", "read")
    rollout = await get_package_rollout(ctx, rollout_id)
    statement = select(PackageRolloutAccount).where(PackageRolloutAccount.rollout_id == rollout.id)
    found = await fetch_page(ctx.session, statement, page)
    named = select(Account.id, Account.name).where(Account.id.in_([row.account_id for row in found.rows]))
    names = {row[0]: row[1] for row in await ctx.session.execute(named)}
    items = tuple(render_rollout_account(row, names.get(row.account_id, "")) for row in found.rows)
    return PackageRolloutAccountPage(items=items, next_cursor=found.next_cursor)


async def pause_package_rollout(ctx: FleetContext, rollout_id: str) -> PackageRolloutView:
    """Reach no more accounts; what was begun on a node ends there.

    Raises:
        ForbiddenError, NotFoundError
        ConflictError: It does not run.
    """
    row = await _get_to_change(ctx, rollout_id)
    require_state(row, RolloutState.RUNNING)
    return await move(ctx, row, "package_rollout.pause", RolloutState.PAUSED, "paused")


async def resume_package_rollout(ctx: FleetContext, rollout_id: str, *, is_retrying: bool) -> PackageRolloutView:
    """Go on, also after it stopped itself: failures so far no longer count. `is_retrying`: they are tried again.

    Raises:
        ForbiddenError, NotFoundError
        ConflictError: It runs, or has ended.
    """
    row = await _get_to_change(ctx, rollout_id)
    require_state(row, RolloutState.PAUSED, RolloutState.HALTED)
    failed = (
        await ctx.session.scalars(
            select(PackageRolloutAccount).where(
                PackageRolloutAccount.rollout_id == row.id, PackageRolloutAccount.state == RolloutNodeState.FAILED
            )
        )
    ).all()
    if is_retrying:
        for account in failed:
            try_again(account)
    row.failures_forgiven = 0 if is_retrying else len(failed)
    return await move(ctx, row, "package_rollout.resume", RolloutState.RUNNING, "")


async def abort_package_rollout(ctx: FleetContext, rollout_id: str) -> PackageRolloutView:
    """End it: accounts that have the new version keep it, the others stay pinned to what they had.

    Raises:
        ForbiddenError, NotFoundError
        ConflictError: It has ended.
    """
    row = await _get_to_change(ctx, rollout_id)
    require_state(row, RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.HALTED)
    await skip(ctx, row, RolloutNodeState.WAITING, note="the rollout was aborted")
    row.finished_at = ctx.now
    return await move(ctx, row, "package_rollout.abort", RolloutState.ABORTED, "")


async def skip(ctx: FleetContext, rollout: PackageRollout, *states: RolloutNodeState, note: str) -> None:
    """Accounts in these states do not get the new version: the loop does not look at them again."""
    statement = update(PackageRolloutAccount).where(
        PackageRolloutAccount.rollout_id == rollout.id, PackageRolloutAccount.state.in_(states)
    )
    ended = statement.values(state=RolloutNodeState.SKIPPED, note=note, finished_at=ctx.now)
    await ctx.session.execute(ended.execution_options(synchronize_session=False))


async def move(
    ctx: FleetContext, row: PackageRollout, action: str, state: RolloutState, blocked_by: str
) -> PackageRolloutView:
    """Bring it into a state, and say so in the audit log."""
    before: dict[str, Any] = {"state": row.state.value}
    row.state, row.blocked_by, row.healthy_since, row.updated_at = state, blocked_by, None, ctx.now
    await ctx.session.flush()
    change = Change(action, f"package_rollout/{row.id}", row.package_name, before=before, after={"state": state.value})
    record(ctx, change)
    return await view_package_rollout(ctx.session, row)


async def view_package_rollout(session: AsyncSession, row: PackageRollout) -> PackageRolloutView:
    """For the API."""
    counts = await count_members(session, PackageRolloutAccount, [row.id])
    return render_package_rollout(row, counts[row.id])


async def get_package_rollout(ctx: FleetContext, rollout_id: str, *, is_locked: bool = False) -> PackageRollout:
    """The rollout.

    Raises:
        NotFoundError: There is none.
    """
    statement = select(PackageRollout).where(PackageRollout.id == require_id("package rollout", rollout_id))
    statement = statement.execution_options(populate_existing=True)
    locked = statement.with_for_update() if is_locked else statement
    row = (await ctx.session.scalars(locked)).one_or_none()
    if row is None:
        raise not_found("package rollout", rollout_id)
    return row


async def _get_to_change(ctx: FleetContext, rollout_id: str) -> PackageRollout:
    ctx.actor.require("packages", "write")
    return await get_package_rollout(ctx, rollout_id, is_locked=True)
