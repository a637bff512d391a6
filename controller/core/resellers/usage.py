"""Use cases: what resellers handed out, what of it is used, and the same day by day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta
from sqlalchemy import func, select

from controller.core.accounts.models import Account
from controller.core.clients.models import Client
from controller.core.operations import FleetContext
from controller.core.packages.models import Package
from controller.core.paging import PageRequest, parse_cursor, render_cursor, require_limit, wrong_cursor
from controller.core.resellers.caps import (
    ACCOUNTS,
    CLIENTS,
    Promised,
    allowed_of,
    factor_of,
    list_capped,
    list_over,
    read_promised,
)
from controller.core.resellers.store import get_reseller
from controller.core.tenancy.models import Reseller
from controller.core.usage.days import read_days, sum_days
from controller.core.usage.models import AccountUsage, UsageDay
from controller.core.usage.views import UsageHistory


class HandedOut(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a reseller hands out."""

    limit: Annotated[str, Meta(description="As `list-limits` names it; accounts and clients, too.")]
    title: str
    unit: str
    promised: Annotated[int, Meta(description="Sum of what the accounts may have.")]
    unlimited: Annotated[int, Meta(description="Accounts that may have any amount.")]
    used: Annotated[int | None, Meta(description="As it was measured last; null: this release does not count it.")]
    cap: Annotated[int | None, Meta(description="Null: any amount.")]
    factor: float
    allowed: Annotated[int | None, Meta(description="Cap times factor; null: any amount.")]
    is_over: bool


class PackageShare(msgspec.Struct, frozen=True, kw_only=True):
    """How often a package was given to accounts of the reseller."""

    package_id: str
    name: str
    accounts: int


class ResellerUsage(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a reseller hands out."""

    reseller_id: str
    items: tuple[HandedOut, ...]
    packages: tuple[PackageShare, ...]
    next_cursor: str | None = None


class ResellerFill(msgspec.Struct, frozen=True, kw_only=True):
    """How full a reseller is."""

    reseller_id: str
    name: str
    accounts: int
    clients: int
    fullest: Annotated[str | None, Meta(description="The cap that is closest to its end; null: there is none.")]
    filled: Annotated[float, Meta(description="How much of that was handed out; 1 is all, more is over.")]
    over: tuple[str, ...]
    is_suspended: bool


class ResellerFillPage(msgspec.Struct, frozen=True, kw_only=True):
    """Resellers, the fullest first."""

    items: tuple[ResellerFill, ...]
    next_cursor: str | None


async def show_usage(ctx: FleetContext, reseller_id: str) -> ResellerUsage:
    """What one reseller hands out.

    Raises:
        ForbiddenError, NotFoundError
    """
    ctx.actor.require("resellers", "read")
    reseller = await get_reseller(ctx.session, reseller_id)
    promised = (await read_promised(ctx.session, ctx.registry.limits, (reseller.id,)))[reseller.id]
    used: dict[str, int | None] = {kind.key: 0 for kind in ctx.registry.limits.counted}
    used.update(await _read_used(ctx, reseller.id))
    used |= {ACCOUNTS: promised.sum_of(ACCOUNTS), CLIENTS: promised.sum_of(CLIENTS)}
    kinds = [(ACCOUNTS, "Accounts", "accounts"), (CLIENTS, "Clients", "clients")]
    kinds += [(kind.key, kind.title, kind.unit) for kind in ctx.registry.limits.limits]
    over = list_over(reseller, promised)
    items = tuple(
        HandedOut(
            limit=key,
            title=title,
            unit=unit,
            promised=promised.sum_of(key),
            unlimited=promised.unlimited_of(key),
            used=used.get(key),
            cap=reseller.caps.get(key),
            factor=factor_of(reseller, key),
            allowed=allowed_of(reseller, key),
            is_over=key in over,
        )
        for key, title, unit in kinds
    )
    return ResellerUsage(reseller_id=reseller.id, items=items, packages=await _read_shares(ctx, reseller.id))


async def list_fills(ctx: FleetContext, page: PageRequest) -> ResellerFillPage:
    """All resellers, the fullest first.

    Raises:
        ForbiddenError, InvalidInputError
    """
    ctx.actor.require_platform("resellers", "read")
    require_limit(page.limit)
    rows = (await ctx.session.scalars(select(Reseller).where(Reseller.deleted_at.is_(None)))).all()
    promised = await read_promised(ctx.session, ctx.registry.limits, only=list_capped(rows) | {CLIENTS})
    fills = [_fill(row, promised.get(row.id, Promised())) for row in rows]
    fills.sort(key=lambda fill: (-fill.filled, fill.reseller_id))
    if page.cursor:
        last = parse_cursor(page.cursor)
        place = next((number for number, fill in enumerate(fills) if fill.reseller_id == last), None)
        if place is None:
            raise wrong_cursor()
        fills = fills[place + 1 :]
    shown = fills[: page.limit]
    cursor = render_cursor(shown[-1].reseller_id) if len(fills) > page.limit else None
    return ResellerFillPage(items=tuple(shown), next_cursor=cursor)


async def list_history(ctx: FleetContext, reseller_id: str, key: str, page: PageRequest) -> UsageHistory:
    """Days of all accounts of a reseller and one limit, newest first.

    Raises:
        ForbiddenError, InvalidInputError, NotFoundError
    """
    ctx.actor.require("resellers", "read")
    reseller = await get_reseller(ctx.session, reseller_id)
    statement = (
        sum_days(key)
        .join(Account, Account.id == UsageDay.account_id)
        .join(Client, Client.id == Account.client_id)
        .where(Client.reseller_id == reseller.id)
    )
    return await read_days(ctx, key, page, statement)


def _fill(reseller: Reseller, promised: Promised) -> ResellerFill:
    shares = {key: _share(promised.sum_of(key), allowed_of(reseller, key) or 0) for key in sorted(reseller.caps)}
    fullest = max(shares, key=lambda key: shares[key], default=None)
    return ResellerFill(
        reseller_id=reseller.id,
        name=reseller.name,
        accounts=promised.sum_of(ACCOUNTS),
        clients=promised.sum_of(CLIENTS),
        fullest=fullest,
        filled=shares[fullest] if fullest is not None else 0.0,
        over=list_over(reseller, promised),
        is_suspended=reseller.suspended_at is not None,
    )


def _share(promised: int, allowed: int) -> float:
    """A cap of nothing is full from the beginning."""
    return round(promised / allowed, 4) if allowed else 1.0 + promised


async def _read_used(ctx: FleetContext, reseller_id: str) -> Mapping[str, int]:
    statement = (
        select(AccountUsage.limit_key, func.sum(AccountUsage.used))
        .join(Account, Account.id == AccountUsage.account_id)
        .join(Client, Client.id == Account.client_id)
        .where(Client.reseller_id == reseller_id, Account.deleted_at.is_(None))
        .group_by(AccountUsage.limit_key)
    )
    return {row[0]: int(row[1]) for row in await ctx.session.execute(statement)}


async def _read_shares(ctx: FleetContext, reseller_id: str) -> tuple[PackageShare, ...]:
    statement = (
        select(Package.id, Package.name, func.count())
        .join(Account, Account.package_id == Package.id)
        .join(Client, Client.id == Account.client_id)
        .where(Client.reseller_id == reseller_id, Account.deleted_at.is_(None))
        .group_by(Package.id, Package.name)
        .order_by(func.count().desc(), Package.name)
    )
    rows: Sequence[tuple[str, str, int]] = [(row[0], row[1], row[2]) for row in await ctx.session.execute(statement)]
    return tuple(PackageShare(package_id=row[0], name=row[1], accounts=row[2]) for row in rows)
