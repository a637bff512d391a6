"""What a reseller may put into a package of its own, and which packages the accounts of its clients may have."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.context import Actor, ReachKind
from controller.core.fields import require_id_field
from controller.core.operations import FleetContext
from controller.core.packages.lineage import read_chain
from controller.core.packages.models import Package
from controller.core.packages.terms import NODE_KEYS, flags_of, hard_of
from controller.core.resellers.caps import require_selling
from controller.core.resellers.store import count_packages
from controller.core.tenancy.models import Reseller
from shared.errors import ConflictError, ForbiddenError, InvalidInputError, QuotaExceededError

SOLD_TIERS = ("client", "reseller")
"""Tiers of the platform's packages that resellers see."""


async def choose_owner(session: AsyncSession, actor: Actor, reseller_id: str | None) -> str | None:
    """Id of the reseller whose the new thing is; None: the platform's.

    Args:
        session: Of the change.
        actor: A reseller makes things for itself; only the platform's people say for whom.
        reseller_id: As the body says it; None: it does not.

    Raises:
        ForbiddenError: They may not say so.
        InvalidInputError: There is no such reseller.
        ConflictError: It is suspended.
    """
    if reseller_id is not None and not actor.reach.is_everything:
        raise ForbiddenError(f"{actor.name} may not choose the reseller", hint="Leave reseller_id out.")
    owner = actor.reach.id if actor.reach.kind is ReachKind.RESELLER else None
    if reseller_id is not None:
        owner = require_id_field("reseller_id", reseller_id)
        row = await session.get(Reseller, owner)
        if row is None or row.deleted_at is not None:
            raise InvalidInputError(f"there is no reseller {reseller_id[:80]!r}", field="reseller_id")
    await require_selling(session, owner)
    return owner


async def require_package_room(session: AsyncSession, reseller_id: str | None) -> None:
    """Pass when the reseller may have one more package of its own.

    Raises:
        QuotaExceededError: It has as many as it may.
    """
    if reseller_id is None:
        return
    reseller = await session.get_one(Reseller, reseller_id)
    used = (await count_packages(session, (reseller_id,))).get(reseller_id, 0)
    if reseller.packages_max is not None and used >= reseller.packages_max:
        raise QuotaExceededError(
            f"the reseller {reseller.name!r} may have {reseller.packages_max} packages, and has {used}",
            hint="Delete one that no account uses, or let an administrator allow more.",
            context={"limit": "packages", "used": used, "allowed": reseller.packages_max},
        )


def is_visible_to(package: Package, reseller_id: str | None) -> bool:
    """Whether the reseller can sell the package; None: the platform, which sells what is its own."""
    if package.reseller_id is not None:
        return package.reseller_id == reseller_id
    return reseller_id is None or package.tier in SOLD_TIERS


def require_visible(package: Package, reseller_id: str | None, *, field: str) -> None:
    """Pass when the reseller can sell the package, or build on it.

    Raises:
        InvalidInputError: It cannot.
    """
    if not is_visible_to(package, reseller_id):
        whose = "this reseller" if reseller_id is not None else "the platform itself"
        raise InvalidInputError(
            f"the package {package.name!r} is not one that {whose} sells",
            field=field,
            hint="Choose one of that reseller's own, or one of the platform's that are not for administrators only.",
        )


def is_sold_to(package: Package, reseller_id: str | None) -> bool:
    """Whether accounts of this reseller's clients may have the package; None: of the platform's own clients."""
    is_made_for_resellers = package.reseller_id is None and package.tier == "reseller"
    return is_visible_to(package, reseller_id) and not (is_made_for_resellers and reseller_id is None)


def require_sold(package: Package, reseller_id: str | None, *, field: str) -> None:
    """Pass when accounts of this reseller's clients (None: of the platform's own) may have the package.

    Raises:
        InvalidInputError: It is not made for them.
    """
    require_visible(package, reseller_id, field=field)
    if not is_sold_to(package, reseller_id):
        raise InvalidInputError(
            f"the package {package.name!r} is made for resellers, and this is a client of the platform itself",
            field=field,
            hint="Choose a package with the tier client or admin, or change this one's tier.",
        )


def require_given_out(package: Package, *, field: str) -> None:
    """Pass when one more account may get the package.

    Raises:
        ConflictError: It is suspended (`package_suspended`).
    """
    if package.suspended_at is not None:
        raise ConflictError(
            f"the package {package.name!r} is suspended: no account gets it any more",
            code="package_suspended",
            hint="Choose another package, or: wcp360 packages unsuspend NAME.",
            context={"field": field},
        )


async def require_within_bounds(ctx: FleetContext, package: Package) -> None:
    """Pass when the reseller who asks may have a package that says this; whoever runs the platform may say anything.

    Raises:
        InvalidInputError: It gives more than the package of the platform that it inherits from, or than the cap.
    """
    if ctx.actor.reach.kind is not ReachKind.RESELLER:
        return
    if package.tier not in SOLD_TIERS:
        raise InvalidInputError("packages for administrators are the platform's", field="tier")
    reseller = await ctx.session.get_one(Reseller, ctx.actor.reach.id)
    for key, cap in reseller.caps.items():
        if any(kind.key == key for kind in ctx.registry.limits.limits):
            _require_up_to(package, key, int(cap), f"the cap of {reseller.name!r}")
    above = (row for row in reversed(await read_chain(ctx.session, package)) if row.reseller_id is None)
    parent = next(above, None)
    if parent is None:
        return
    for kind in ctx.registry.limits.limits:
        allowed = hard_of(parent, kind.key)
        if allowed is not None:
            _require_up_to(package, kind.key, allowed, f"the package {parent.name!r}")
    has = flags_of(parent, ctx.registry.limits)
    for key, is_on in flags_of(package, ctx.registry.limits).items():
        if is_on and not has[key]:
            raise InvalidInputError(f"the package {parent.name!r} does not have {key}", field=f"flags.{key}")


def _require_up_to(package: Package, key: str, allowed: int, whose: str) -> None:
    hard = hard_of(package, key)
    if hard is None or hard > allowed:
        words = "any amount" if hard is None else str(hard)
        raise InvalidInputError(
            f"{package.name!r} gives {words} of {key}, and {whose} allows {allowed}",
            field=key if key in NODE_KEYS else f"limits.{key}",
        )
