"""Days of the usage ledger in pages, newest first: of one account, of those of a reseller, of all."""

from __future__ import annotations

from datetime import date

from sqlalchemy import Select, func, select

from controller.core.operations import FleetContext
from controller.core.paging import PageRequest, require_limit, wrong_cursor
from controller.core.usage.models import UsageDay
from controller.core.usage.views import UsageDayView, UsageHistory


def sum_days(key: str) -> Select[date, int, int, int]:
    """One limit summed per day: the caller says of which accounts."""
    return (
        select(UsageDay.day, func.sum(UsageDay.last), func.sum(UsageDay.peak), func.count())
        .where(UsageDay.limit_key == key)
        .group_by(UsageDay.day)
        .order_by(UsageDay.day.desc())
    )


async def read_days(
    ctx: FleetContext, key: str, page: PageRequest, statement: Select[date, int, int, int]
) -> UsageHistory:
    """One page of what `sum_days` selects.

    Raises:
        InvalidInputError: The limit, the cursor or the key is none that we know.
    """
    require_limit(page.limit)
    ctx.registry.limits.require_limit(key, field="key")
    if page.cursor:
        statement = statement.where(UsageDay.day < _parse_day(page.cursor))
    found = (await ctx.session.execute(statement.limit(page.limit + 1))).all()
    items = tuple(
        UsageDayView(day=row[0], limit=key, last=int(row[1]), peak=int(row[2]), accounts=row[3])
        for row in found[: page.limit]
    )
    return UsageHistory(items=items, next_cursor=items[-1].day.isoformat() if len(found) > page.limit else None)


def _parse_day(cursor: str) -> date:
    try:
        return date.fromisoformat(cursor)
    except ValueError as error:
        raise wrong_cursor() from error
