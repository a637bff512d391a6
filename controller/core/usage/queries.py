"""Use cases that read the usage ledger."""

from __future__ import annotations

from sqlalchemy import func, select

from controller.core.accounts.models import Account
from controller.core.accounts.store import get_account
from controller.core.limits.check import find_use
from controller.core.limits.registry import LimitKind
from controller.core.operations import FleetContext
from controller.core.packages.store import get_package
from controller.core.packages.terms import Terms, hard_of, soft_of, terms_of
from controller.core.paging import PageRequest
from controller.core.usage.days import read_days, sum_days
from controller.core.usage.measure import state_of
from controller.core.usage.models import AccountUsage, OveruseCase, UsageDay
from controller.core.usage.views import UsageHistory, UsageList, UsageTotal, UsageTotals, UsageView


async def show_account_usage(ctx: FleetContext, account_id: str) -> UsageList:
    """Everything that can be limited, with what the account uses of it now.

    Raises:
        ForbiddenError, NotFoundError
    """
    ctx.actor.require("accounts", "read")
    account = await get_account(ctx.session, account_id)
    terms = await terms_of(ctx.session, account)
    found = await ctx.session.scalars(select(AccountUsage).where(AccountUsage.account_id == account.id))
    rows = {row.limit_key: row for row in found}
    case = (await ctx.session.scalars(select(OveruseCase).where(OveruseCase.account_id == account.id))).first()
    items = [
        _view(kind, terms, rows.get(kind.key), await find_use(ctx, account.id, kind.key))
        for kind in ctx.registry.limits.limits
    ]
    return UsageList(
        items=tuple(items),
        overuse_since=case.since if case is not None else None,
        overuse_action=case.action if case is not None else "",
    )


async def list_account_history(ctx: FleetContext, account_id: str, key: str, page: PageRequest) -> UsageHistory:
    """Days of one account and one limit, newest first.

    Raises:
        ForbiddenError, InvalidInputError, NotFoundError
    """
    ctx.actor.require("accounts", "read")
    account = await get_account(ctx.session, account_id)
    return await read_days(ctx, key, page, sum_days(key).where(UsageDay.account_id == account.id))


async def list_package_history(ctx: FleetContext, package_id: str, key: str, page: PageRequest) -> UsageHistory:
    """Days of all accounts of a package and one limit, newest first.

    Raises:
        ForbiddenError, InvalidInputError, NotFoundError
    """
    ctx.actor.require("packages", "read")
    package = await get_package(ctx.session, package_id)
    return await read_days(ctx, key, page, sum_days(key).where(UsageDay.package_id == package.id))


async def show_package_usage(ctx: FleetContext, package_id: str) -> UsageTotals:
    """What the accounts of a package use together.

    Raises:
        ForbiddenError, NotFoundError
    """
    ctx.actor.require("packages", "read")
    package = await get_package(ctx.session, package_id)
    return await _sum_all(ctx, package.id)


async def show_usage(ctx: FleetContext) -> UsageTotals:
    """What all accounts use together.

    Raises:
        ForbiddenError
    """
    ctx.actor.require("packages", "read")
    return await _sum_all(ctx, None)


def _view(kind: LimitKind, terms: Terms, row: AccountUsage | None, used: int | None) -> UsageView:
    soft, hard = soft_of(terms, kind.key), hard_of(terms, kind.key)
    state = "unknown" if used is None else "ok"
    if used is not None and soft is not None and used > soft:
        state = "near"
    if used is not None and hard is not None and used > hard:
        state = "over"
    is_known = row is not None and state_of(row) == state
    return UsageView(
        limit=kind.key,
        title=kind.title,
        unit=kind.unit,
        used=used,
        soft=soft,
        hard=hard,
        state=state,
        since=(row.over_since or row.near_since) if row is not None and is_known else None,
        peak=max(row.peak, used) if row is not None and used is not None else used,
        peak_at=row.peak_at if row is not None else None,
        measured_at=row.measured_at if row is not None else None,
    )


async def _sum_all(ctx: FleetContext, package_id: str | None) -> UsageTotals:
    statement = (
        select(
            AccountUsage.limit_key,
            func.count(),
            func.sum(AccountUsage.used),
            func.coalesce(func.sum(AccountUsage.hard), 0),
            func.count(AccountUsage.hard),
            func.max(AccountUsage.peak),
            func.count(AccountUsage.near_since),
            func.count(AccountUsage.over_since),
        )
        .join(Account, Account.id == AccountUsage.account_id)
        .where(Account.deleted_at.is_(None))
        .group_by(AccountUsage.limit_key)
    )
    if package_id is not None:
        statement = statement.where(Account.package_id == package_id)
    rows = {row[0]: row for row in await ctx.session.execute(statement)}
    items = []
    for kind in ctx.registry.limits.counted:
        row = rows.get(kind.key)
        figures = [int(value or 0) for value in row[1:]] if row is not None else [0] * 7
        accounts, used, promised, limited, peak, near, over = figures
        items.append(
            UsageTotal(
                limit=kind.key,
                title=kind.title,
                unit=kind.unit,
                accounts=accounts,
                used=used,
                promised=promised,
                unlimited=accounts - limited,
                peak_of_one=peak,
                near=near,
                over=over,
            )
        )
    return UsageTotals(items=tuple(items))
