"""The one check before anything is written. Changes are serialised (ADR 6), so what was counted stays true."""

from __future__ import annotations

from controller.core.accounts.models import Account
from controller.core.context import Role
from controller.core.limits.registry import FlagKind
from controller.core.operations import FleetContext
from controller.core.packages.terms import Terms, flags_of, hard_of, is_strict, terms_of
from shared.errors import BugError, ForbiddenError, QuotaExceededError


async def count_use(ctx: FleetContext, account_id: str, key: str) -> int:
    """How much the account uses now.

    Raises:
        BugError: This release cannot count it.
    """
    kind = ctx.registry.limits.limit(key)
    if kind.count is None:
        raise BugError(f"nobody counts {key}")
    await ctx.session.flush()
    return (await kind.count(ctx.session, (account_id,))).get(account_id, 0)


async def find_use(ctx: FleetContext, account_id: str, key: str) -> int | None:
    """How much the account uses; None: nobody counts it, or no node has measured it yet."""
    kind = ctx.registry.limits.limit(key)
    if kind.count is None:
        return None
    await ctx.session.flush()
    found = await kind.count(ctx.session, (account_id,))
    return found.get(account_id) if kind.is_measured else found.get(account_id, 0)


async def require_room(ctx: FleetContext, account: Account, key: str, amount: int = 1) -> None:
    """Pass when the account may have so many more. Call it in the transaction that writes them.

    Raises:
        QuotaExceededError: Its package does not allow it; the context names limit, used and allowed.
    """
    terms = await terms_of(ctx.session, account)
    allowed = hard_of(terms, key)
    if allowed is None or amount <= 0:
        return
    used = await count_use(ctx, account.id, key)
    if used + amount > allowed:
        raise _refuse(ctx, terms, key, used=used, allowed=allowed)


async def require_fits(ctx: FleetContext, account: Account, terms: Terms) -> None:
    """Pass when everything that the account has is within these terms.

    Raises:
        QuotaExceededError: It has more of something; the first one is named.
    """
    for kind in ctx.registry.limits.counted:
        allowed = hard_of(terms, kind.key)
        if allowed is None or kind.is_passing:
            continue
        used = await count_use(ctx, account.id, kind.key)
        if used > allowed:
            raise _refuse(ctx, terms, kind.key, used=used, allowed=allowed)


async def has_feature(ctx: FleetContext, account: Account, key: str) -> bool:
    """Whether the account's package has the feature; what shows it asks here, what needs it asks `require_feature`."""
    return flags_of(await terms_of(ctx.session, account), ctx.registry.limits)[key]


async def require_feature(ctx: FleetContext, account: Account, key: str) -> None:
    """Pass when the account's package has the feature.

    Raises:
        ForbiddenError: It has not (`feature_disabled`).
    """
    kind = ctx.registry.limits.flag(key)
    if not kind.binds_administrators and ctx.actor.role in (Role.ROOT, Role.ADMIN):
        return
    if not await has_feature(ctx, account, key):
        terms = await terms_of(ctx.session, account)
        raise feature_disabled(
            kind,
            f"the package {terms.name!r} does not have this feature: {kind.title}",
            hint="Give the account a package with this feature, or switch it on in its package.",
        )


async def require_programs(ctx: FleetContext, account: Account, what_for: str) -> None:
    """Pass when the account's package lets it start programs; nobody is exempt, because the node obeys it as well.

    Args:
        ctx: Of the change.
        account: Whose programs they would be.
        what_for: What they would do, for people: `log in over SSH`.

    Raises:
        ForbiddenError: It does not (`programs_restricted`).
    """
    terms = await terms_of(ctx.session, account)
    if is_strict(terms):
        raise ForbiddenError(
            f"the package {terms.name!r} has strict process restrictions: {account.name} cannot {what_for}",
            code="programs_restricted",
            hint="Give the account another package, or set process_restrictions=standard in its package.",
        )


def feature_disabled(kind: FlagKind, message: str, *, hint: str) -> ForbiddenError:
    """The one refusal of everything that a package does not have; the context names the feature."""
    return ForbiddenError(message, code="feature_disabled", hint=hint, context={"feature": kind.key})


def _refuse(ctx: FleetContext, terms: Terms, key: str, *, used: int, allowed: int) -> QuotaExceededError:
    unit = ctx.registry.limits.limit(key).unit
    return QuotaExceededError(
        f"the package {terms.name!r} allows {allowed} {unit}, and the account has {used}",
        hint="Give the account a larger package, or remove something.",
        context={"limit": key, "used": used, "allowed": allowed},
    )
