"""Use cases of resellers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import delete, select, update

from controller.core.audit.chain import record
from controller.core.auth.models import User
from controller.core.context import Change
from controller.core.fields import require_email, require_text
from controller.core.limits.registry import LimitRegistry
from controller.core.operations import FleetContext
from controller.core.packages.models import Package
from controller.core.paging import PageRequest, contains, fetch_page
from controller.core.resellers import store
from controller.core.resellers.caps import CLIENTS, OWN_KEYS, Promised, list_capped, read_promised
from controller.core.resellers.models import ResellerBranding
from controller.core.resellers.views import ResellerCreate, ResellerPage, ResellerUpdate, ResellerView
from controller.core.rules.service import remove_rules_of
from controller.core.tenancy.models import Reseller
from controller.core.webhooks.audience import remove_endpoints_of
from shared.errors import ConflictError, InvalidInputError


async def list_resellers(ctx: FleetContext, page: PageRequest) -> ResellerPage:
    """Newest first; a reseller sees itself.

    Raises:
        ForbiddenError, InvalidInputError
    """
    ctx.actor.require("resellers", "read")
    statement = select(Reseller).where(Reseller.deleted_at.is_(None))
    condition = contains((Reseller.name, Reseller.email), page.search)
    found = await fetch_page(ctx.session, statement if condition is None else statement.where(condition), page)
    ids = [row.id for row in found.rows]
    promised = await read_promised(ctx.session, ctx.registry.limits, ids, only=list_capped(found.rows) | {CLIENTS})
    packages = await store.count_packages(ctx.session, ids)
    items = tuple(store.view_reseller(row, promised[row.id], packages.get(row.id, 0)) for row in found.rows)
    return ResellerPage(items=items, next_cursor=found.next_cursor)


async def show_reseller(ctx: FleetContext, reseller_id: str) -> ResellerView:
    """One reseller.

    Raises:
        ForbiddenError, NotFoundError
    """
    ctx.actor.require("resellers", "read")
    return await view(ctx, await store.get_reseller(ctx.session, reseller_id))


async def create_reseller(ctx: FleetContext, params: ResellerCreate) -> ResellerView:
    """Add a reseller.

    Raises:
        ForbiddenError, InvalidInputError
        ConflictError: Another one has the name.
    """
    ctx.actor.require_platform("resellers", "write")
    registry = ctx.registry.limits
    reseller = Reseller(
        name=await _free_name(ctx, params.name),
        email=require_email("email", params.email),
        packages_max=params.packages_max,
        caps=_merge("caps", {}, params.caps, registry),
        oversell=_merge("oversell", {}, params.oversell, registry),
        suspension_reason="",
        created_at=ctx.now,
        updated_at=ctx.now,
    )
    ctx.session.add(reseller)
    await ctx.session.flush()
    made = store.view_reseller(reseller, Promised(), 0)
    record(ctx, Change("reseller.create", f"reseller/{reseller.id}", reseller.name, after=msgspec.to_builtins(made)))
    return made


async def update_reseller(ctx: FleetContext, reseller_id: str, params: ResellerUpdate) -> ResellerView:
    """Change a reseller. A cap below what was promised takes nothing away; it is shown as over.

    Raises:
        ForbiddenError, InvalidInputError, NotFoundError
        ConflictError: Another one has the name.
    """
    ctx.actor.require_platform("resellers", "write")
    reseller = await store.get_reseller(ctx.session, reseller_id)
    before = await view(ctx, reseller)
    registry = ctx.registry.limits
    if params.name is not msgspec.UNSET:
        reseller.name = await _free_name(ctx, params.name, but_for=reseller.id)
    if params.email is not msgspec.UNSET:
        reseller.email = require_email("email", params.email)
    if params.packages_max is not msgspec.UNSET:
        reseller.packages_max = params.packages_max
    reseller.caps = _merge("caps", reseller.caps, params.caps, registry)
    reseller.oversell = _merge("oversell", reseller.oversell, params.oversell, registry)
    if await view(ctx, reseller) == before:
        return before
    reseller.updated_at = ctx.now
    await ctx.session.flush()
    return await note(ctx, "reseller.update", reseller, before=before)


async def delete_reseller(ctx: FleetContext, reseller_id: str) -> None:
    """Remove a reseller without clients: its packages go with it, and its people cannot sign in any more.

    Raises:
        ForbiddenError, NotFoundError
        ConflictError: It has clients, or packages of others inherit from its own.
    """
    ctx.actor.require_platform("resellers", "write")
    reseller = await store.get_reseller(ctx.session, reseller_id)
    before = await view(ctx, reseller)
    if before.clients:
        noun = "client" if before.clients == 1 else "clients"
        raise ConflictError(
            f"the reseller {reseller.name!r} has {before.clients} {noun}",
            hint="Transfer them (wcp360 clients transfer) or delete them first.",
            context={"clients": before.clients},
        )
    own = select(Package.id).where(Package.reseller_id == reseller.id, Package.deleted_at.is_(None))
    heirs = select(Package.name).where(
        Package.parent_id.in_(own),
        Package.deleted_at.is_(None),
        Package.reseller_id.is_distinct_from(reseller.id),
    )
    heir = (await ctx.session.scalars(heirs.limit(1))).first()
    if heir is not None:
        raise ConflictError(f"the package {heir!r} inherits from one of theirs", hint="Give it another parent first.")
    await ctx.session.execute(
        update(Package)
        .where(Package.reseller_id == reseller.id, Package.deleted_at.is_(None))
        .values(deleted_at=ctx.now)
    )
    await ctx.session.execute(
        update(User).where(User.reseller_id == reseller.id, User.disabled_at.is_(None)).values(disabled_at=ctx.now)
    )
    await ctx.session.execute(delete(ResellerBranding).where(ResellerBranding.reseller_id == reseller.id))
    await remove_endpoints_of(ctx.session, reseller_id=reseller.id)
    await remove_rules_of(ctx.session, reseller.id)
    reseller.deleted_at = ctx.now
    await ctx.session.flush()
    record(ctx, Change("reseller.delete", f"reseller/{reseller.id}", reseller.name, before=msgspec.to_builtins(before)))


async def view(ctx: FleetContext, reseller: Reseller) -> ResellerView:
    """As it is now."""
    promised = await read_promised(ctx.session, ctx.registry.limits, (reseller.id,))
    packages = await store.count_packages(ctx.session, (reseller.id,))
    return store.view_reseller(reseller, promised[reseller.id], packages.get(reseller.id, 0))


async def note(ctx: FleetContext, action: str, reseller: Reseller, *, before: ResellerView) -> ResellerView:
    """Record a change; the reseller as it is now."""
    after = await view(ctx, reseller)
    change = Change(
        action=action,
        target=f"reseller/{reseller.id}",
        target_name=reseller.name,
        before=msgspec.to_builtins(before),
        after=msgspec.to_builtins(after),
    )
    record(ctx, change)
    return after


async def _free_name(ctx: FleetContext, raw: str, *, but_for: str = "") -> str:
    name = require_text("name", raw, low=1, high=120)
    if await store.is_name_taken(ctx.session, name, but_for=but_for):
        raise ConflictError(f"there is a reseller named {name!r} already", context={"field": "name"})
    return name


def _merge(
    field: str, old: Mapping[str, Any], given: Mapping[str, float | None], registry: LimitRegistry
) -> dict[str, Any]:
    """The stored mapping with what was given put over it; a new one, so that the change of a JSON column is seen."""
    merged = dict(old)
    known = (*OWN_KEYS, *(kind.key for kind in registry.limits))
    for key, value in given.items():
        if key not in known:
            hint = f"There are {', '.join(known)}."
            raise InvalidInputError(
                f"nothing is called {key!r} that could be capped", field=f"{field}.{key}", hint=hint
            )
        if value is None or (field == "oversell" and value == 1):
            merged.pop(key, None)
        else:
            merged[key] = value
    return merged
