"""What happens to an account that stays over a limit, and how it is taken back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import structlog
from sqlalchemy import select

from controller.core.accounts.converge import converge_account
from controller.core.accounts.models import Account, AccountState, Lifter
from controller.core.accounts.suspension import suspend_account, unsuspend_account
from controller.core.accounts.views import AccountSuspend
from controller.core.audit.chain import record
from controller.core.context import Change
from controller.core.operations import FleetContext
from controller.core.packages.definition import option_of
from controller.core.packages.terms import terms_of
from controller.core.usage.models import AccountUsage, OveruseCase
from shared.errors import ConflictError

THROTTLED: Final = "throttled"
SUSPENDED: Final = "suspended"
_ACTIONS: Final = {"throttle": THROTTLED, "suspend": SUSPENDED}

_log = structlog.get_logger("controller.usage")


async def apply_policy(ctx: FleetContext, account: Account, over: Sequence[AccountUsage]) -> None:
    """Bring the account to what its package's policy says of one that is over these limits (none: within all).

    Whoever lifts a suspension by hand is not contradicted: the case is acted on once, until the account was within
    its limits.
    """
    case = (await ctx.session.scalars(select(OveruseCase).where(OveruseCase.account_id == account.id))).first()
    if case is None:
        if not over:
            return
        case = OveruseCase(account_id=account.id, since=ctx.now)
        case.action = ""
        ctx.session.add(case)
    wanted = await _wanted(ctx, account, case) if over else ""
    try:
        await _bring_to(ctx, account, case, wanted, over)
    except ConflictError as error:
        # Its node was revoked: nothing can be done to it, and the others must still be measured.
        _log.warning("usage.policy", account=account.name, error=error.message)
        return
    if not over:
        await ctx.session.delete(case)
    await ctx.session.flush()


async def _wanted(ctx: FleetContext, account: Account, case: OveruseCase) -> str:
    terms = await terms_of(ctx.session, account)
    grace = timedelta(hours=option_of(terms, "overuse.grace_hours"))
    action = _ACTIONS.get(option_of(terms, "overuse.action"), "")
    return action if ctx.now - case.since >= grace else ""


async def _bring_to(
    ctx: FleetContext, account: Account, case: OveruseCase, wanted: str, over: Sequence[AccountUsage]
) -> None:
    if case.action == wanted:
        return
    done, case.action = case.action, wanted
    acted_at, case.acted_at = case.acted_at, ctx.now
    await ctx.session.flush()
    # SQLite keeps microseconds as PostgreSQL does, so a suspension of our own is known by its time.
    if done == SUSPENDED and account.state is AccountState.SUSPENDED and account.suspended_at == acted_at:
        await unsuspend_account(ctx, account.id)
    if wanted == SUSPENDED and account.state is AccountState.ACTIVE:
        words = ", ".join(f"{row.used} {row.limit_key} of {row.hard if row.over_since else row.soft}" for row in over)
        params = AccountSuspend(reason=f"over the limit: {words}"[:500], liftable_by=Lifter.POLICY)
        await suspend_account(ctx, account.id, params)
    if THROTTLED in (done, wanted):
        await converge_account(ctx, account, reason="throttle" if wanted == THROTTLED else "end throttling")
        action = "account.throttle" if wanted == THROTTLED else "account.unthrottle"
        record(ctx, Change(action, f"account/{account.id}", account.name))
