"""Use cases that suspend an account, and that end a suspension."""

from __future__ import annotations

from datetime import datetime

from controller.core.accounts import store
from controller.core.accounts.converge import converge_account
from controller.core.accounts.lifting import lifter_like, may_lift, require_may_lift
from controller.core.accounts.models import Account, AccountState
from controller.core.accounts.record import record_account
from controller.core.accounts.views import AccountSuspend, AccountView
from controller.core.fields import require_text
from controller.core.operations import FleetContext
from shared.errors import ConflictError, InvalidInputError


async def suspend_account(ctx: FleetContext, account_id: str, params: AccountSuspend) -> AccountView:
    """Stop serving; nothing is deleted.

    Raises:
        ForbiddenError, InvalidInputError, NotFoundError
        ConflictError: It is suspended already, being deleted, or in the trash.
    """
    ctx.actor.require("accounts", "write")
    account = await store.lock_changeable(ctx.session, account_id)
    reason = require_text("reason", params.reason, high=500)
    until = _require_later(params.until, ctx.now)
    lifter = params.liftable_by or lifter_like(ctx.actor)
    if not may_lift(ctx.actor, lifter):
        raise InvalidInputError("you could not end this suspension yourself", field="liftable_by")
    if account.state is AccountState.SUSPENDED:
        raise ConflictError(f"the account {account.name!r} is suspended already")
    before = store.view_account(account)
    account.state, account.suspension_reason, account.suspended_at = AccountState.SUSPENDED, reason, ctx.now
    account.suspended_by, account.suspended_until = ctx.actor.reference[:100], until
    account.liftable_by = lifter
    await converge_account(ctx, account, reason="suspend")
    return record_account(ctx, "account.suspend", account, before=before)


async def unsuspend_account(ctx: FleetContext, account_id: str) -> AccountView:
    """Serve again, exactly as before.

    Raises:
        ForbiddenError: Also when only others may end it (`not_liftable`).
        NotFoundError
        ConflictError: It is not suspended.
    """
    ctx.actor.require("accounts", "write")
    account = await store.lock_changeable(ctx.session, account_id)
    if account.state is not AccountState.SUSPENDED:
        raise ConflictError(f"the account {account.name!r} is not suspended")
    require_may_lift(ctx.actor, account.liftable_by, account, "suspension")
    before = store.view_account(account)
    account.state = AccountState.ACTIVE
    forget_suspension(account)
    await converge_account(ctx, account, reason="unsuspend")
    return record_account(ctx, "account.unsuspend", account, before=before)


def forget_suspension(account: Account) -> None:
    """The account is not suspended any more: who did it and why stays in the audit log."""
    account.suspension_reason, account.suspended_by = "", ""
    account.suspended_at = account.suspended_until = account.liftable_by = None


def _require_later(until: datetime | None, now: datetime) -> datetime | None:
    if until is not None and until <= now:
        raise InvalidInputError("until must lie in the future", field="until")
    return until
