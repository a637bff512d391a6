"""Use cases of packages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from sqlalchemy import func, select

from controller.core.accounts.converge import converge_account
from controller.core.accounts.models import Account
from controller.core.audit.chain import record
from controller.core.context import Change
from controller.core.fields import require_reference, require_text
from controller.core.operations import FleetContext
from controller.core.packages import store
from controller.core.packages.definition import (
    Values,
    fill,
    node_fields,
    parse_given,
    require_field,
    require_sound,
    values_of,
)
from controller.core.packages.lineage import read_chain, read_heirs, require_parent, trace_fields, values_of_chain
from controller.core.packages.models import Package, PackageVersion
from controller.core.packages.rollouts.begin import begin_rollout, find_open_rollouts, require_no_rollout
from controller.core.packages.suspension import view_with_use
from controller.core.packages.versions import add_version
from controller.core.packages.views import (
    FieldList,
    PackageClone,
    PackageCreate,
    PackagePage,
    PackageUpdate,
    PackageView,
)
from controller.core.paging import PageRequest, contains, fetch_page
from controller.core.resellers.bounds import (
    choose_owner,
    require_package_room,
    require_visible,
    require_within_bounds,
)
from controller.core.resellers.caps import require_selling, within_caps
from shared.errors import ConflictError

CONVERGED_AT_ONCE: Final = 25
"""So many accounts converge with the change itself (and are planned by a dry run); the rest follows as a task."""
RECONVERGE_PACKAGE: Final = "package.reconverge"
"""Kind of that task (controller.core.accounts.fleet)."""
_LABELS: Final = ("name", "description", "tier")


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageFilter:
    """Which packages are wanted; None: all."""

    tier: str | None = None
    is_suspended: bool | None = None


async def list_packages(ctx: FleetContext, page: PageRequest, wanted: PackageFilter) -> PackagePage:
    """Newest first.

    Raises:
        ForbiddenError, InvalidInputError
    """
    ctx.actor.require("packages", "read")
    statement = select(Package).where(Package.deleted_at.is_(None))
    if wanted.tier is not None:
        statement = statement.where(Package.tier == wanted.tier)
    if wanted.is_suspended is not None:
        since = Package.suspended_at
        statement = statement.where(since.is_not(None) if wanted.is_suspended else since.is_(None))
    condition = contains((Package.name, Package.description), page.search)
    found = await fetch_page(ctx.session, statement if condition is None else statement.where(condition), page)
    ids = [row.id for row in found.rows]
    counts, open_rollouts = await store.count_accounts(ctx.session, ids), await find_open_rollouts(ctx.session, ids)
    limits = ctx.registry.limits
    items = tuple(
        store.view_package(row, counts.get(row.id, 0), limits, rollout_id=open_rollouts.get(row.id))
        for row in found.rows
    )
    return PackagePage(items=items, next_cursor=found.next_cursor)


async def show_package(ctx: FleetContext, package_id: str) -> PackageView:
    """One package.

    Raises:
        ForbiddenError, NotFoundError
    """
    ctx.actor.require("packages", "read")
    return await view_with_use(ctx, await store.get_package(ctx.session, package_id))


async def show_fields(ctx: FleetContext, package_id: str) -> FieldList:
    """Every field as the package's accounts have it, and where it comes from.

    Raises:
        ForbiddenError, NotFoundError
    """
    ctx.actor.require("packages", "read")
    chain = await read_chain(ctx.session, await store.get_package(ctx.session, package_id))
    # An ancestor may be of those that are not sold to whoever asks: its values are known here, its name is not.
    known = select(Package.id).where(Package.id.in_([row.id for row in chain]))
    return FieldList(items=trace_fields(chain, ctx.registry.limits, named=frozenset(await ctx.session.scalars(known))))


async def create_package(ctx: FleetContext, params: PackageCreate) -> PackageView:
    """Add a package.

    Raises:
        ForbiddenError, InvalidInputError
        ConflictError: Another package has the name, or its reseller is suspended.
        QuotaExceededError: Its reseller may not have more packages.
    """
    ctx.actor.require("packages", "write")
    given = msgspec.structs.asdict(params)
    reseller_id = await choose_owner(ctx.session, ctx.actor, params.reseller_id)
    labels = await _checked_labels(ctx, given, reseller_id)
    own = parse_given(_fields_of(params), ctx.registry.limits)
    parent = await _find_parent(ctx, None, params.parent_id, reseller_id)
    package = Package(**labels, parent_id=parent.id if parent else None, own=own, version=1, reseller_id=reseller_id)
    return await _add(ctx, package, action="package.create")


async def clone_package(ctx: FleetContext, package_id: str, params: PackageClone) -> PackageView:
    """Add a package that says the same as this one, with the same parent.

    Raises:
        ForbiddenError, InvalidInputError, NotFoundError
        ConflictError: Another package has the name.
    """
    ctx.actor.require("packages", "write")
    source = await store.get_package(ctx.session, package_id)
    given = {"name": params.name, "tier": source.tier, "description": source.description}
    if params.description is not msgspec.UNSET:
        given["description"] = params.description
    reseller_id = source.reseller_id if ctx.actor.reach.is_everything else store.reseller_of(ctx.actor)
    await require_selling(ctx.session, reseller_id)
    labels = await _checked_labels(ctx, given, reseller_id)
    copy = Package(**labels, parent_id=source.parent_id, own=dict(source.own), version=1, reseller_id=reseller_id)
    return await _add(ctx, copy, action="package.clone")


async def update_package(ctx: FleetContext, package_id: str, params: PackageUpdate) -> PackageView:
    """Change a package and what inherits from it; accounts that follow them converge when a node has to know.

    With `rollout` they keep the version that they have until their wave comes (controller.core.packages.rollouts).

    Raises:
        ForbiddenError, InvalidInputError, NotFoundError
        ConflictError: Another package has the name, or a rollout of one that would change is open.
    """
    ctx.actor.require("packages", "write")
    package = await store.get_package(ctx.session, package_id)
    store.require_own(ctx.actor, package)
    before = await view_with_use(ctx, package)
    # An administrator may edit what resellers sell; what is too much then is shown as over.
    async with within_caps(ctx, store.reseller_of(ctx.actor)):
        changed = await rewrite_package(ctx, package, params)
    if not changed:
        return before
    rows = [row for row, fields in changed if fields]
    await require_no_rollout(ctx.session, rows)
    is_in_waves = params.rollout is not None and bool(rows)
    if params.rollout is not None and rows:
        await begin_rollout(ctx, package, rows, params.rollout)
    view = await view_with_use(ctx, package)
    change = Change(
        action="package.update",
        target=f"package/{package.id}",
        target_name=package.name,
        before=msgspec.to_builtins(before),
        after=msgspec.to_builtins(view),
    )
    record(ctx, change)
    for row, fields in changed:
        if fields & node_fields(ctx.registry.limits) and not is_in_waves:
            await converge_users(ctx, row)
    return view


async def rewrite_package(
    ctx: FleetContext, package: Package, params: PackageUpdate
) -> list[tuple[Package, frozenset[str]]]:
    """Write an edit, and what it means for the packages below; asks no node.

    Returns:
        Each package that has other values now (this one first), with the names of those fields. Empty: no edit at all.

    Raises:
        InvalidInputError, ConflictError: See `update_package`.
    """
    registry = ctx.registry.limits
    given = {name: value for name, value in msgspec.structs.asdict(params).items() if value is not msgspec.UNSET}
    labels = await _checked_labels(ctx, given, package.reseller_id, package)
    own = {**package.own, **parse_given(_fields_of(params), registry)}
    for name in params.inherit:
        own.pop(require_field(name, registry), None)
    parent_id = package.parent_id
    if "parent_id" in given:
        parent = await _find_parent(ctx, package, given["parent_id"], package.reseller_id)
        parent_id = parent.id if parent else None
    is_same = own == package.own and parent_id == package.parent_id
    if is_same and all(getattr(package, name) == value for name, value in labels.items()):
        return []
    for name, value in labels.items():
        setattr(package, name, value)
    return await _write_edit(ctx, package, own, parent_id)


async def restore_package(ctx: FleetContext, package: Package, version: PackageVersion, *, note: str) -> list[Package]:
    """Let the package say again what one of its versions said, as its newest version; asks no node.

    Returns:
        Each package that has other values now.

    Raises:
        ConflictError: Its parent of then is gone.
        InvalidInputError: It cannot inherit from it any more.
    """
    parent = await ctx.session.get(Package, version.parent_id) if version.parent_id is not None else None
    if version.parent_id is not None and (parent is None or parent.deleted_at is not None):
        raise ConflictError("the package that it inherited from is gone", hint="Edit it, with a rollout, instead.")
    if parent is not None and parent.id != package.parent_id:
        await require_parent(ctx.session, package, parent)
    changed = await _write_edit(ctx, package, dict(version.own), version.parent_id, note=note)
    return [row for row, fields in changed if fields]


async def _write_edit(
    ctx: FleetContext, package: Package, own: Values, parent_id: str | None, *, note: str = ""
) -> list[tuple[Package, frozenset[str]]]:
    package.own, package.parent_id = own, parent_id
    changed = [(package, await _recompute(ctx, package))]
    await _next_version(ctx, package, note=note)
    for heir in await read_heirs(ctx.session, package.id):
        fields = await _recompute(ctx, heir)
        if fields:
            await _next_version(ctx, heir, note=f"{package.name} changed")
            changed.append((heir, fields))
    for row, _fields in changed:
        await require_within_bounds(ctx, row)
    return changed


async def delete_package(ctx: FleetContext, package_id: str) -> None:
    """Remove a package that nobody uses and from which none inherits.

    Raises:
        ForbiddenError, NotFoundError
        ConflictError: Accounts use it, or packages inherit from it.
    """
    ctx.actor.require("packages", "write")
    package = await store.get_package(ctx.session, package_id)
    store.require_own(ctx.actor, package)
    view = await view_with_use(ctx, package)
    if view.accounts:
        noun = "account uses" if view.accounts == 1 else "accounts use"
        raise ConflictError(
            f"{view.accounts} {noun} the package {package.name!r}",
            hint="Give them another package first.",
            context={"accounts": view.accounts},
        )
    heirs = await read_heirs(ctx.session, package.id)
    if heirs:
        raise ConflictError(
            f"the package {heirs[0].name!r} inherits from {package.name!r}", hint="Give it another parent first."
        )
    package.deleted_at = ctx.now
    await ctx.session.flush()
    record(ctx, Change("package.delete", f"package/{package.id}", package.name, before=msgspec.to_builtins(view)))


async def _add(ctx: FleetContext, package: Package, *, action: str) -> PackageView:
    package.created_at = package.updated_at = ctx.now
    await require_package_room(ctx.session, package.reseller_id)
    await _recompute(ctx, package)
    await require_within_bounds(ctx, package)
    ctx.session.add(package)
    await ctx.session.flush()
    await add_version(ctx, package)
    view = store.view_package(package, 0, ctx.registry.limits)
    record(ctx, Change(action, f"package/{package.id}", package.name, after=msgspec.to_builtins(view)))
    return view


async def _recompute(ctx: FleetContext, package: Package) -> frozenset[str]:
    """Put the effective values into the row; names of those that are others now."""
    registry = ctx.registry.limits
    old = values_of(package, registry) if package.limits is not None else {}
    new = values_of_chain(await read_chain(ctx.session, package), registry)
    require_sound(new, package.name)
    fill(package, new)
    store.limits_of(package)
    return frozenset(name for name, value in new.items() if old.get(name) != value)


async def _next_version(ctx: FleetContext, package: Package, *, note: str = "") -> None:
    package.version += 1
    package.updated_at = ctx.now
    await ctx.session.flush()
    await add_version(ctx, package, note=note)


async def _find_parent(
    ctx: FleetContext, package: Package | None, parent_id: str | None, reseller_id: str | None
) -> Package | None:
    if parent_id is None:
        return None
    parent = await require_reference("parent_id", store.get_package(ctx.session, parent_id))
    require_visible(parent, reseller_id, field="parent_id")
    await require_parent(ctx.session, package, parent)
    return parent


def _fields_of(params: PackageCreate | PackageUpdate) -> dict[str, Any]:
    """The body's fields as they are; asdict would take the limits apart as well."""
    return {name: getattr(params, name) for name in params.__struct_fields__}


async def _checked_labels(
    ctx: FleetContext, given: Mapping[str, Any], reseller_id: str | None, package: Package | None = None
) -> dict[str, Any]:
    """Name, description and tier in the form in which they are stored; those that were given."""
    labels = {name: given[name] for name in _LABELS if name in given}
    if "name" in labels:
        labels["name"] = require_text("name", labels["name"], low=1, high=60)
        is_taken = await store.is_name_taken(
            ctx.session, labels["name"], reseller_id=reseller_id, but_for=package.id if package else ""
        )
        if is_taken:
            raise ConflictError(f"there is a package named {labels['name']!r} already", context={"field": "name"})
    if "description" in labels:
        labels["description"] = require_text("description", labels["description"], high=500)
    return labels


async def converge_users(ctx: FleetContext, package: Package) -> None:
    """Bring accounts to the package's newest version; those that are pinned to one have what they had."""
    are_users = (
        Account.package_id == package.id,
        Account.package_version_id.is_(None),
        Account.deleted_at.is_(None),
    )
    users = select(Account).where(*are_users).order_by(Account.id)
    first = (await ctx.session.scalars(users.limit(CONVERGED_AT_ONCE))).all()
    for account in first:
        await converge_account(ctx, account, reason=f"package {package.name}")
    if len(first) < CONVERGED_AT_ONCE:
        return
    if ctx.is_dry_run:  # nobody has a turn afterwards
        ctx.unplanned += (await ctx.session.scalar(select(func.count(Account.id)).where(*are_users)) or 0) - len(first)
        return
    await ctx.later(RECONVERGE_PACKAGE, {"package_id": package.id, "after": first[-1].id})
