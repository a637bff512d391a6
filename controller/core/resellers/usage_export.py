"""What a reseller's accounts used as lines of CSV: a page of a day at a time, so that the span may be long."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import date, timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy import Select, func, select, tuple_

from controller.core.accounts.models import Account
from controller.core.clients.models import Client
from controller.core.operations import FleetContext
from controller.core.resellers.store import get_reseller
from controller.core.usage.models import UsageDay
from shared.audit_csv import protect_cell
from shared.errors import InvalidInputError

LONGEST: Final = timedelta(days=3660)
"""Ten years: the longest that the policy usage_retention_days keeps anything."""
PAGE_ROWS: Final = 5000
"""What is in memory at a time; a day of 250 accounts and 20 limits."""
COLUMNS: Final = ("day", "account_id", "account", "client_id", "client", "package_id", "limit", "last", "peak")


class Span(NamedTuple):
    """What is wanted; both days are included."""

    reseller_id: str
    begins_on: date
    ends_on: date


class ExportPlace(NamedTuple):
    """After which line the next page begins."""

    day: date
    account_id: str = ""
    limit_key: str = ""


class ExportRows(NamedTuple):
    """A page: lines of one day, and where the next page begins; None: nothing is left."""

    lines: list[tuple[str, ...]]
    next_place: ExportPlace | None


async def plan_export(ctx: FleetContext, reseller_id: str, begins_on: date | None, ends_on: date | None) -> Span:
    """What will be sent, checked.

    Raises:
        ForbiddenError, NotFoundError
        InvalidInputError: The end is before the begin, or too far from it.
    """
    ctx.actor.require("resellers", "read")
    reseller = await get_reseller(ctx.session, reseller_id)
    ends_on = ends_on or ctx.now.date()
    begins_on = begins_on or max(date.min + timedelta(days=30), ends_on) - timedelta(days=30)
    if not timedelta() <= ends_on - begins_on <= LONGEST:
        raise InvalidInputError(f"ends_on is up to {LONGEST.days} days after begins_on", field="ends_on")
    return Span(reseller.id, begins_on, ends_on)


async def read_export_page(
    ctx: FleetContext, span: Span, after: ExportPlace, *, page_rows: int = PAGE_ROWS
) -> ExportRows:
    """Lines after this place, of its day or of the next one that has any.

    Raises:
        ForbiddenError, NotFoundError: The right was taken away, or the reseller deleted, while it was sent.
    """
    ctx.actor.require("resellers", "read")
    await get_reseller(ctx.session, span.reseller_id)
    statement = (
        _of_reseller(select(UsageDay, Account.name, Client.id, Client.name), span)
        .where(UsageDay.day == after.day)
        .where(tuple_(UsageDay.account_id, UsageDay.limit_key) > tuple_(after.account_id, after.limit_key))
        .order_by(UsageDay.account_id, UsageDay.limit_key)
        .limit(page_rows)
    )
    found = (await ctx.session.execute(statement)).all()
    lines = [_line_of(*row) for row in found]
    if len(found) == page_rows:
        last = found[-1][0]
        return ExportRows(lines, ExportPlace(last.day, last.account_id, last.limit_key))
    later = _of_reseller(select(func.min(UsageDay.day)), span)
    day: date | None = await ctx.session.scalar(later.where(UsageDay.day > after.day, UsageDay.day <= span.ends_on))
    return ExportRows(lines, ExportPlace(day) if day is not None else None)


async def write_export(read_page: Callable[[ExportPlace], Awaitable[ExportRows]], span: Span) -> AsyncIterator[bytes]:
    """The file, page by page; no cell is a formula for a spreadsheet."""
    place: ExportPlace | None = ExportPlace(span.begins_on)
    yield _render([COLUMNS])
    while place is not None:
        page = await read_page(place)
        if page.lines:
            yield _render([tuple(protect_cell(cell) for cell in line) for line in page.lines])
        place = page.next_place


def _line_of(row: UsageDay, account: str, client_id: str, client: str) -> tuple[str, ...]:
    cells = (row.day, row.account_id, account, client_id, client, row.package_id, row.limit_key, row.last, row.peak)
    return tuple(str(cell) for cell in cells)


def _of_reseller(statement: Select[*tuple[Any, ...]], span: Span) -> Select[*tuple[Any, ...]]:
    return (
        statement.join_from(UsageDay, Account, Account.id == UsageDay.account_id)
        .join(Client, Client.id == Account.client_id)
        .where(Client.reseller_id == span.reseller_id)
    )


def _render(rows: list[tuple[str, ...]]) -> bytes:
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue().encode()
