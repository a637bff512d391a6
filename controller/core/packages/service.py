"""Use cases of packages."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from sqlalchemy import select

from controller.core.accounts.converge import converge_account
from controller.core.accounts.models import Account
from controller.core.audit.chain import record
from controller.core.context import Change, OpContext
from controller.core.fields import require_text
from controller.core.operations import FleetContext
from controller.core.packages import store
from controller.core.packages.models import Package
from controller.core.packages.views import PackageCreate, PackagePage, PackageUpdate, PackageView
from controller.core.paging import PageRequest, contains, fetch_page
from shared.errors import ConflictError, InvalidInputError

_CONVERGED_FIELDS: Final = frozenset(PackageCreate.__struct_fields__) - {"name", "description", "sites_max"}
"""Fields that a node has to know of; the others are the controller's own."""
CONVERGED_AT_ONCE: Final = 25
"""So many accounts converge with the change itself (and are planned by a dry run); the rest follows as a task."""
RECONVERGE_PACKAGE: Final = "package.reconverge"
"""Kind of that task (controller.core.accounts.fleet)."""


async def list_packages(ctx: OpContext, page: PageRequest) -> PackagePage:
    """Newest first.

    Raises:
        ForbiddenError, InvalidInputError
    """
    ctx.actor.require("packages", "read")
    statement = select(Package).where(Package.deleted_at.is_(None))
    condition = contains((Package.name, Package.description), page.search)
    found = await fetch_page(ctx.session, statement if condition is None else statement.where(condition), page)
    counts = await store.count_accounts(ctx.session, [row.id for row in found.rows])
    items = tuple(store.view_package(row, counts.get(row.id, 0)) for row in found.rows)
    return PackagePage(items=items, next_cursor=found.next_cursor)


async def show_package(ctx: OpContext, package_id: str) -> PackageView:
    """One package.

    Raises:
        ForbiddenError, NotFoundError
    """
    ctx.actor.require("packages", "read")
    return await _view(ctx, await store.get_package(ctx.session, package_id))


async def create_package(ctx: OpContext, params: PackageCreate) -> PackageView:
    """Add a package.

    Raises:
        ForbiddenError, InvalidInputError
        ConflictError: Another package has the name.
    """
    ctx.actor.require("packages", "write")
    values = await _checked(ctx, msgspec.structs.asdict(params))
    package = Package(**values, created_at=ctx.now, updated_at=ctx.now)
    store.limits_of(package)
    ctx.session.add(package)
    await ctx.session.flush()
    view = store.view_package(package, 0)
    record(ctx, Change("package.create", f"package/{package.id}", package.name, after=msgspec.to_builtins(view)))
    return view


async def update_package(ctx: FleetContext, package_id: str, params: PackageUpdate) -> PackageView:
    """Change a package; every account that uses it converges when a node has to know.

    Raises:
        ForbiddenError, InvalidInputError, NotFoundError
        ConflictError: Another package has the name.
    """
    ctx.actor.require("packages", "write")
    package = await store.get_package(ctx.session, package_id)
    before = await _view(ctx, package)
    wanted = {name: value for name, value in msgspec.structs.asdict(params).items() if value is not msgspec.UNSET}
    values = await _checked(ctx, wanted, package)
    changed = {name for name, value in values.items() if getattr(package, name) != value}
    if not changed:
        return before
    for name in changed:
        setattr(package, name, values[name])
    store.limits_of(package)
    package.updated_at = ctx.now
    await ctx.session.flush()
    view = await _view(ctx, package)
    change = Change(
        action="package.update",
        target=f"package/{package.id}",
        target_name=package.name,
        before=msgspec.to_builtins(before),
        after=msgspec.to_builtins(view),
    )
    record(ctx, change)
    if changed & _CONVERGED_FIELDS:
        await _converge_users(ctx, package)
    return view


async def delete_package(ctx: OpContext, package_id: str) -> None:
    """Remove a package that nobody uses.

    Raises:
        ForbiddenError, NotFoundError
        ConflictError: Accounts use it.
    """
    ctx.actor.require("packages", "write")
    package = await store.get_package(ctx.session, package_id)
    view = await _view(ctx, package)
    if view.accounts:
        noun = "account uses" if view.accounts == 1 else "accounts use"
        raise ConflictError(
            f"{view.accounts} {noun} the package {package.name!r}",
            hint="Give them another package first.",
            context={"accounts": view.accounts},
        )
    package.deleted_at = ctx.now
    await ctx.session.flush()
    record(ctx, Change("package.delete", f"package/{package.id}", package.name, before=msgspec.to_builtins(view)))


async def _view(ctx: OpContext, package: Package) -> PackageView:
    counts = await store.count_accounts(ctx.session, [package.id])
    return store.view_package(package, counts.get(package.id, 0))


async def _checked(ctx: OpContext, values: dict[str, Any], package: Package | None = None) -> dict[str, Any]:
    """The values in the form in which they are stored."""
    if "name" in values:
        values["name"] = require_text("name", values["name"], low=1, high=60)
        if await store.is_name_taken(ctx.session, values["name"], but_for=package.id if package else ""):
            raise ConflictError(f"there is a package named {values['name']!r} already", context={"field": "name"})
    if "description" in values:
        values["description"] = require_text("description", values["description"], high=500)
    if values.get("php_versions") is not None:
        versions = list(values["php_versions"])
        if len(set(versions)) != len(versions):
            raise InvalidInputError("a PHP version is named twice", field="php_versions")
        values["php_versions"] = versions
    return values


async def _converge_users(ctx: FleetContext, package: Package) -> None:
    users = select(Account).where(Account.package_id == package.id, Account.deleted_at.is_(None)).order_by(Account.id)
    first = (await ctx.session.scalars(users.limit(CONVERGED_AT_ONCE))).all()
    for account in first:
        await converge_account(ctx, account, reason=f"package {package.name}")
    if len(first) == CONVERGED_AT_ONCE:
        await ctx.later(RECONVERGE_PACKAGE, {"package_id": package.id, "after": first[-1].id})
