"""Queries about packages."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.accounts.models import Account
from controller.core.fields import not_found, require_id
from controller.core.manifest import PackageRules
from controller.core.packages.models import Package
from controller.core.packages.views import PackageView
from shared.specs.account import ResourceLimits


async def get_package(session: AsyncSession, package_id: str) -> Package:
    """The live package with this id.

    Raises:
        NotFoundError
    """
    row = await session.get(Package, require_id("package", package_id))
    if row is None or row.deleted_at is not None:
        raise not_found("package", package_id)
    return row


async def is_name_taken(session: AsyncSession, name: str, *, but_for: str | None = None) -> bool:
    """Whether another live package has this name."""
    statement = select(Package.id).where(Package.name == name, Package.deleted_at.is_(None), Package.id != but_for)
    return (await session.scalars(statement.limit(1))).first() is not None


async def count_accounts(session: AsyncSession, package_ids: Collection[str]) -> dict[str, int]:
    """Package id to the number of live accounts; packages without any are left out."""
    statement = (
        select(Account.package_id, func.count())
        .where(Account.package_id.in_(package_ids), Account.deleted_at.is_(None))
        .group_by(Account.package_id)
    )
    return {row[0]: row[1] for row in await session.execute(statement)}


def limits_of(package: Package) -> ResourceLimits:
    """What the kernel is asked to enforce.

    Raises:
        InvalidInputError: A value is outside its range; `field` names it.
    """
    return ResourceLimits(
        cpu_percent=package.cpu_percent,
        memory_bytes=package.memory_bytes,
        processes_max=package.processes_max,
        io_weight=package.io_weight,
        disk_bytes=package.disk_bytes,
    )


def rules_of(package: Package) -> PackageRules:
    """What the package allows that no kernel enforces."""
    versions = tuple(package.php_versions) if package.php_versions is not None else None
    return PackageRules(name=package.name, sites_max=package.sites_max, php_versions=versions)


def view_package(package: Package, accounts: int) -> PackageView:
    """For the API."""
    return PackageView(
        id=package.id,
        name=package.name,
        description=package.description,
        cpu_percent=package.cpu_percent,
        memory_bytes=package.memory_bytes,
        processes_max=package.processes_max,
        io_weight=package.io_weight,
        disk_bytes=package.disk_bytes,
        sites_max=package.sites_max,
        php_versions=tuple(package.php_versions) if package.php_versions is not None else None,
        php_children_max=package.php_children_max,
        php_memory_bytes=package.php_memory_bytes,
        upload_max_bytes=package.upload_max_bytes,
        accounts=accounts,
        created_at=package.created_at,
        updated_at=package.updated_at,
    )
