"""Use cases that read the use of the API."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final, Literal

from sqlalchemy import Row, and_, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.api_usage.models import COUNT_COLUMNS, ApiUsage, ApiUsageAddress
from controller.core.api_usage.views import TokenUsage, TopUse, TopUses, UsagePeriod, UsedFrom, figures_of
from controller.core.auth.models import ApiToken, User
from controller.core.context import OpContext
from controller.core.fields import not_found, require_id
from controller.core.paging import PageRequest, fetch_page, pack_cursor, require_limit, unpack_cursor, wrong_cursor
from shared.errors import InvalidInputError

By = Literal["token", "user", "route"]
Period = Literal["hour", "day"]

DAYS_MAX: Final = 400
_ADDRESSES: Final = 10


async def list_token_usage(
    ctx: OpContext, user_id: str, token_id: str, period: Period, page: PageRequest
) -> TokenUsage:
    """Hours or days of one token of this user, newest first; of a revoked one, too.

    Raises:
        ForbiddenError, InvalidInputError
        NotFoundError: The user has no such token.
    """
    ctx.actor.require("tokens", "read")
    token = await ctx.session.get(ApiToken, require_id("token", token_id))
    if token is None or token.user_id != user_id:
        raise not_found("token", token_id)
    is_its = (ApiUsage.kind == "token", ApiUsage.subject == token.id, ApiUsage.period == period)
    found = await fetch_page(ctx.session, select(ApiUsage).where(*is_its), page)
    return TokenUsage(
        items=tuple(
            UsagePeriod(starts_at=row.starts_at, **figures_of({name: getattr(row, name) for name in COUNT_COLUMNS}))  # type: ignore[arg-type] # fields of two types
            for row in found.rows
        ),
        next_cursor=found.next_cursor,
        addresses=await _latest_addresses(ctx.session, token.id),
    )


async def _latest_addresses(session: AsyncSession, token_id: str) -> tuple[UsedFrom, ...]:
    statement = (
        select(ApiUsageAddress)
        .where(ApiUsageAddress.kind == "token", ApiUsageAddress.subject == token_id)
        .order_by(ApiUsageAddress.last_seen_at.desc(), ApiUsageAddress.address)
        .limit(_ADDRESSES)
    )
    return tuple(
        UsedFrom(address=row.address, requests=row.requests, last_seen_at=row.last_seen_at)
        for row in await session.scalars(statement)
    )


async def list_top(ctx: OpContext, by: By, days: int, page: PageRequest) -> TopUses:
    """Tokens, users or routes by their requests of the last days (UTC, today included), most first.

    Raises:
        ForbiddenError, InvalidInputError
    """
    ctx.actor.require("metrics", "read")
    require_limit(page.limit)
    if not 1 <= days <= DAYS_MAX:
        raise InvalidInputError(f"days must be between 1 and {DAYS_MAX}", field="days")
    first = ctx.now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=days - 1)
    total = func.sum(ApiUsage.requests)
    statement = (
        select(ApiUsage.subject, *(func.sum(getattr(ApiUsage, name)).label(name) for name in COUNT_COLUMNS))
        .where(ApiUsage.kind == by, ApiUsage.period == "day", ApiUsage.starts_at >= first)
        .group_by(ApiUsage.subject)
        .order_by(total.desc(), ApiUsage.subject)
        .limit(page.limit + 1)
    )
    if page.cursor:
        requests, subject = _parse_cursor(page.cursor)
        statement = statement.having(or_(total < requests, and_(total == requests, ApiUsage.subject > subject)))
    found = (await ctx.session.execute(statement)).all()
    rows = found[: page.limit]
    names = await _names_of(ctx.session, by, [row.subject for row in rows])
    return TopUses(
        items=tuple(_render(row, *names.get(row.subject, ("", ""))) for row in rows),
        next_cursor=_render_cursor(rows[-1]) if len(found) > page.limit else None,
    )


async def _names_of(session: AsyncSession, by: By, subjects: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Name and user of each subject."""
    if by == "route":
        return {subject: (subject, "") for subject in subjects}
    if by == "user":
        users = await session.execute(select(User.id, User.username).where(User.id.in_(subjects)))
        return {user_id: (username, username) for user_id, username in users}
    statement = select(ApiToken.id, ApiToken.name, User.username).join(User, User.id == ApiToken.user_id)
    tokens = await session.execute(statement.where(ApiToken.id.in_(subjects)))
    return {token_id: (name, username) for token_id, name, username in tokens}


def _render(row: Row[Any], name: str, username: str) -> TopUse:
    # PostgreSQL adds up bigints to a numeric.
    counts = {column: int(getattr(row, column)) for column in COUNT_COLUMNS}
    return TopUse(subject=row.subject, name=name, username=username, **figures_of(counts))  # type: ignore[arg-type] # fields of two types


def _render_cursor(row: Row[Any]) -> str:
    return pack_cursor(f"{int(row.requests)} {row.subject}".encode())


def _parse_cursor(cursor: str) -> tuple[int, str]:
    try:
        requests, _, subject = unpack_cursor(cursor).decode().partition(" ")
        number = int(requests)
    except ValueError as error:
        raise wrong_cursor() from error
    if not 0 <= number < 2**63 or "\x00" in subject:
        raise wrong_cursor()
    return number, subject
