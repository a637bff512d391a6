"""Queries about packages."""

from __future__ import annotations

from collections.abc import Collection

import msgspec
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.accounts.models import Account
from controller.core.context import Actor, ReachKind
from controller.core.fields import not_found, require_id
from controller.core.limits.registry import LimitRegistry
from controller.core.packages.definition import group_of
from controller.core.packages.models import Package
from controller.core.packages.terms import flags_of, limits_of, rules_of
from controller.core.packages.views import LimitValue, OverusePolicy, PackageView, SecurityPolicy, StorageOptions
from controller.db.criteria import EVERYBODY
from shared.errors import ForbiddenError

__all__ = [
    "count_accounts",
    "get_package",
    "is_name_taken",
    "limits_of",
    "require_own",
    "reseller_of",
    "rules_of",
    "view_package",
]


async def get_package(session: AsyncSession, package_id: str) -> Package:
    """The live package with this id.

    Raises:
        NotFoundError
    """
    row = await session.get(Package, require_id("package", package_id))
    if row is None or row.deleted_at is not None:
        raise not_found("package", package_id)
    return row


async def is_name_taken(
    session: AsyncSession, name: str, *, reseller_id: str | None, but_for: str | None = None
) -> bool:
    """Whether another live package of the same owner has this name."""
    statement = select(Package.id).where(Package.name == name, Package.deleted_at.is_(None), Package.id != but_for)
    statement = statement.where(Package.reseller_id == reseller_id).execution_options(**EVERYBODY)
    return (await session.scalars(statement.limit(1))).first() is not None


def require_own(actor: Actor, package: Package) -> None:
    """Pass when the actor may change the package: a reseller only their own, however many they may sell.

    Raises:
        ForbiddenError: It is the platform's.
    """
    if not actor.reach.is_everything and package.reseller_id != reseller_of(actor):
        raise ForbiddenError(f"the package {package.name!r} is the platform's", hint="Clone it, and change your own.")


def reseller_of(actor: Actor) -> str | None:
    """Whose a package is that this actor makes; None: the platform's."""
    return actor.reach.id if actor.reach.kind is ReachKind.RESELLER else None


async def count_accounts(session: AsyncSession, package_ids: Collection[str]) -> dict[str, int]:
    """Package id to the number of live accounts; packages without any are left out."""
    statement = (
        select(Account.package_id, func.count())
        .where(Account.package_id.in_(package_ids), Account.deleted_at.is_(None))
        .group_by(Account.package_id)
    )
    return {row[0]: row[1] for row in await session.execute(statement)}


def view_package(
    package: Package, accounts: int, registry: LimitRegistry, *, rollout_id: str | None = None
) -> PackageView:
    """For the API."""
    return PackageView(
        id=package.id,
        name=package.name,
        description=package.description,
        tier=package.tier,
        visibility="global" if package.reseller_id is None else "reseller",
        reseller_id=package.reseller_id,
        parent_id=package.parent_id,
        version=package.version,
        cpu_percent=package.cpu_percent,
        memory_bytes=package.memory_bytes,
        processes_max=package.processes_max,
        io_weight=package.io_weight,
        disk_bytes=package.disk_bytes,
        php_versions=tuple(package.php_versions) if package.php_versions is not None else None,
        php_children_max=package.php_children_max,
        php_memory_bytes=package.php_memory_bytes,
        upload_max_bytes=package.upload_max_bytes,
        limits=msgspec.convert(package.limits, dict[str, LimitValue]),
        flags=dict(flags_of(package, registry)),
        storage=msgspec.convert(group_of(package, "storage"), StorageOptions),
        security=msgspec.convert(group_of(package, "security"), SecurityPolicy),
        overuse=msgspec.convert(group_of(package, "overuse"), OverusePolicy),
        own_fields=tuple(sorted(package.own)),
        accounts=accounts,
        is_suspended=package.suspended_at is not None,
        suspended_at=package.suspended_at,
        rollout_id=rollout_id,
        created_at=package.created_at,
        updated_at=package.updated_at,
    )
