"""Versions of packages: each edit adds one, and an account follows the newest or is pinned to one."""

from __future__ import annotations

from collections.abc import Collection

import msgspec
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.accounts.converge import converge_account
from controller.core.accounts.models import Account
from controller.core.accounts.store import lock_changeable, view_account
from controller.core.accounts.views import AccountView
from controller.core.audit.chain import record
from controller.core.context import Change
from controller.core.fields import not_found
from controller.core.limits.check import require_fits
from controller.core.limits.registry import LimitRegistry
from controller.core.operations import FleetContext
from controller.core.packages import store
from controller.core.packages.definition import COLUMNS, OPTIONS, node_fields, values_of
from controller.core.packages.models import Package, PackageVersion
from controller.core.packages.terms import rules_of, terms_of
from controller.core.packages.views import (
    AccountPin,
    FieldDifference,
    VersionDiff,
    VersionPage,
    VersionView,
)
from controller.core.paging import PageRequest, fetch_page
from controller.core.resellers.caps import find_reseller_id, within_caps

_COPIED = ("name", "description", "tier", "parent_id", "limits", "flags", "own")


async def add_version(ctx: FleetContext, package: Package, *, note: str = "") -> None:
    """Keep the package as it is now under its version's number."""
    row = PackageVersion(package_id=package.id, number=package.version, note=note[:200], created_at=ctx.now)
    for name in (*_COPIED, *COLUMNS):
        setattr(row, name, getattr(package, name))
    row.options = {name: package.options.get(name, value) for name, value in OPTIONS.items()}
    row.actor, row.actor_name = ctx.actor.reference[:100], ctx.actor.name[:100]
    ctx.session.add(row)
    await ctx.session.flush()


async def list_versions(ctx: FleetContext, package_id: str, page: PageRequest) -> VersionPage:
    """Newest first.

    Raises:
        ForbiddenError, InvalidInputError, NotFoundError
    """
    ctx.actor.require("packages", "read")
    package = await store.get_package(ctx.session, package_id)
    statement = select(PackageVersion).where(PackageVersion.package_id == package.id)
    found = await fetch_page(ctx.session, statement, page)
    pinned = await _count_pinned(ctx.session, [row.id for row in found.rows])
    registry = ctx.registry.limits
    items = tuple(_view_version(row, pinned.get(row.id, 0), registry) for row in found.rows)
    return VersionPage(items=items, next_cursor=found.next_cursor)


async def show_version(ctx: FleetContext, package_id: str, number: int) -> VersionView:
    """One version.

    Raises:
        ForbiddenError, NotFoundError
    """
    ctx.actor.require("packages", "read")
    package = await store.get_package(ctx.session, package_id)
    row = await get_version(ctx.session, package, number)
    pinned = await _count_pinned(ctx.session, [row.id])
    return _view_version(row, pinned.get(row.id, 0), ctx.registry.limits)


async def diff_versions(ctx: FleetContext, package_id: str, before: int, after: int | None) -> VersionDiff:
    """Fields that the two have differently, by name.

    Raises:
        ForbiddenError, NotFoundError
    """
    ctx.actor.require("packages", "read")
    package = await store.get_package(ctx.session, package_id)
    after = package.version if after is None else after
    old = _all_of(await get_version(ctx.session, package, before), ctx.registry.limits)
    new = _all_of(await get_version(ctx.session, package, after), ctx.registry.limits)
    items = tuple(
        FieldDifference(field=name, before=old[name], after=new[name]) for name in sorted(old) if old[name] != new[name]
    )
    return VersionDiff(before=before, after=after, items=items)


async def pin_account(ctx: FleetContext, account_id: str, params: AccountPin) -> AccountView:
    """Let an account keep one version of its package whatever is edited later, or follow the newest again.

    Raises:
        ForbiddenError, NotFoundError
        ConflictError: It is being deleted.
        QuotaExceededError: It has more than that version allows, or its reseller may not promise so much.
    """
    ctx.actor.require("accounts", "write")
    account = await lock_changeable(ctx.session, account_id)
    package = await ctx.session.get_one(Package, account.package_id)
    version = None if params.version is None else await get_version(ctx.session, package, params.version)
    wanted = version.id if version is not None else None
    before = msgspec.to_builtins(view_account(account))
    if account.package_version_id == wanted:
        return view_account(account)
    terms = version if version is not None else package
    await require_fits(ctx, account, terms)
    await ctx.registry.require_fits(ctx.session, account.id, rules_of(terms))
    old = values_of(await terms_of(ctx.session, account), ctx.registry.limits)
    async with within_caps(ctx, await find_reseller_id(ctx.session, account.client_id)):
        account.package_version_id, account.updated_at = wanted, ctx.now
    new = values_of(terms, ctx.registry.limits)
    if any(old[name] != new[name] for name in node_fields(ctx.registry.limits)):
        await converge_account(ctx, account, reason=f"package {package.name} version {params.version or 'newest'}")
    after = msgspec.to_builtins(view_account(account)) | {"package_version": params.version}
    record(ctx, Change("account.pin_package", f"account/{account.id}", account.name, before=before, after=after))
    return view_account(account)


async def get_version(session: AsyncSession, package: Package, number: int) -> PackageVersion:
    """The package's version of this number.

    Raises:
        NotFoundError
    """
    statement = select(PackageVersion).where(PackageVersion.package_id == package.id, PackageVersion.number == number)
    row = (await session.scalars(statement)).first() if 0 < number < 2**31 else None
    if row is None:
        raise not_found(f"version of {package.name!r}", str(number))
    return row


def _all_of(row: PackageVersion, registry: LimitRegistry) -> dict[str, object]:
    named = {name: getattr(row, name) for name in ("name", "description", "tier", "parent_id")}
    return {**values_of(row, registry), **named}


async def _count_pinned(session: AsyncSession, version_ids: Collection[str]) -> dict[str, int]:
    statement = (
        select(Account.package_version_id, func.count())
        .where(Account.package_version_id.in_(version_ids), Account.deleted_at.is_(None))
        .group_by(Account.package_version_id)
    )
    return {row[0]: row[1] for row in await session.execute(statement) if row[0] is not None}


def _view_version(row: PackageVersion, pinned: int, registry: LimitRegistry) -> VersionView:
    return VersionView(
        id=row.id,
        package_id=row.package_id,
        number=row.number,
        name=row.name,
        note=row.note,
        actor=row.actor,
        actor_name=row.actor_name,
        created_at=row.created_at,
        accounts=pinned,
        values=values_of(row, registry),
        own_fields=tuple(sorted(row.own)),
    )
