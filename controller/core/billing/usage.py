"""Use case: the usage of all accounts in a time."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Final

import msgspec
from msgspec import Meta
from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.accounts.models import Account
from controller.core.audit.models import AuditEntry
from controller.core.billing.consumed import Consumed, Consumption
from controller.core.billing.periods import ACTIONS, Life, Period, Turn, list_periods
from controller.core.clients.models import Client
from controller.core.context import OpContext
from controller.core.fields import require_id_field, require_moment
from controller.core.packages.models import Package
from controller.core.paging import PageRequest, fetch_page
from shared.errors import InvalidInputError

DEFAULT_LENGTH: Final = timedelta(days=30)
LONGEST: Final = timedelta(days=400)


class UsagePeriod(msgspec.Struct, frozen=True, kw_only=True):
    """A time in which the account had one package and one state."""

    begins_at: datetime
    ends_at: Annotated[datetime, Meta(description="Not part of it.")]
    seconds: int
    package_id: str
    package_name: str
    state: Annotated[str, Meta(description="active, suspended, trashed, or deleting: its node is to remove it.")]


class AccountUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What one account had."""

    account_id: str
    account_name: str
    client_id: str
    client_name: str
    client_email: str
    state: Annotated[str, Meta(description="Now.")]
    package_id: Annotated[str, Meta(description="Now.")]
    created_at: datetime
    suspended_at: Annotated[datetime | None, Meta(description="Of the present suspension.")]
    deleted_at: datetime | None
    periods: Annotated[tuple[UsagePeriod, ...], Meta(description="In order, without gaps.")]
    consumed: Consumed


class UsagePage(msgspec.Struct, frozen=True, kw_only=True):
    """Usage of accounts, the newest account first."""

    begins_at: datetime
    ends_at: datetime
    items: tuple[AccountUsage, ...]
    next_cursor: str | None


async def export_usage(
    ctx: OpContext, page: PageRequest, *, begins_at: datetime | None, ends_at: datetime | None, client_id: str | None
) -> UsagePage:
    """All accounts that were there at some time between the two. Without an end: until now; without a begin: 30 days.

    Raises:
        ForbiddenError
        InvalidInputError: The end is not after the begin, is too far from it, or lies ahead.
    """
    ctx.actor.require("billing", "read")
    ends_at = ctx.now if ends_at is None else require_moment("ends_at", ends_at)
    begins_at = ends_at - DEFAULT_LENGTH if begins_at is None else require_moment("begins_at", begins_at)
    _require_times(begins_at, ends_at, now=ctx.now)
    statement = select(Account).where(
        Account.created_at < ends_at, or_(Account.deleted_at.is_(None), Account.deleted_at > begins_at)
    )
    if client_id:
        statement = statement.where(Account.client_id == require_id_field("client_id", client_id))
    found = await fetch_page(ctx.session, statement, page)
    turns = await _read_turns(ctx.session, [row.id for row in found.rows])
    periods = {
        row.id: list_periods(_life_of(row), turns.get(row.id, ()), begins_at=begins_at, ends_at=ends_at)
        for row in found.rows
    }
    consumption = Consumption(begins_at, ends_at)
    await consumption.read(ctx.session, [row.id for row in found.rows])
    clients = await _read_clients(ctx.session, {row.client_id for row in found.rows})
    names = await _read_names(ctx.session, {period.package_id for some in periods.values() for period in some})
    items = tuple(
        _view(row, clients[row.client_id], (periods[row.id], names), consumption.of(row.id)) for row in found.rows
    )
    return UsagePage(begins_at=begins_at, ends_at=ends_at, items=items, next_cursor=found.next_cursor)


def _require_times(begins_at: datetime, ends_at: datetime, *, now: datetime) -> None:
    if ends_at > now:
        raise InvalidInputError("ends_at lies ahead; nobody knows yet", field="ends_at")
    if not timedelta() < ends_at - begins_at <= LONGEST:
        raise InvalidInputError(f"ends_at is up to {LONGEST.days} days after begins_at", field="ends_at")


async def _read_turns(session: AsyncSession, ids: Sequence[str]) -> dict[str, list[Turn]]:
    """Account id to its entries, oldest first."""
    statement = select(AuditEntry).where(
        AuditEntry.target.in_([f"account/{row_id}" for row_id in ids]),
        AuditEntry.action.in_(ACTIONS),
    )
    found: dict[str, list[Turn]] = {}
    for entry in await session.scalars(statement.order_by(AuditEntry.number)):
        found.setdefault(entry.target.partition("/")[2], []).append(Turn(entry.at, entry.before, entry.after))
    return found


async def _read_clients(session: AsyncSession, ids: Collection[str]) -> dict[str, Client]:
    return {row.id: row for row in await session.scalars(select(Client).where(Client.id.in_(ids)))}


async def _read_names(session: AsyncSession, ids: Collection[str]) -> dict[str, str]:
    found = await session.execute(select(Package.id, Package.name).where(Package.id.in_(ids)))
    return {row[0]: row[1] for row in found}


def _life_of(row: Account) -> Life:
    return Life(row.created_at, row.deleted_at, row.package_id, row.state.value)


def _view(
    row: Account, client: Client, lived: tuple[Sequence[Period], dict[str, str]], consumed: Consumed
) -> AccountUsage:
    periods, names = lived
    return AccountUsage(
        account_id=row.id,
        account_name=row.name,
        client_id=client.id,
        client_name=client.name,
        client_email=client.email,
        state=row.state.value,
        package_id=row.package_id,
        created_at=row.created_at,
        suspended_at=row.suspended_at,
        deleted_at=row.deleted_at,
        periods=tuple(
            UsagePeriod(
                begins_at=period.begins_at,
                ends_at=period.ends_at,
                seconds=round((period.ends_at - period.begins_at).total_seconds()),
                package_id=period.package_id,
                package_name=names.get(period.package_id, ""),
                state=period.state,
            )
            for period in periods
        ),
        consumed=consumed,
    )
