"""What domains count: a name below another name of the same account is a subdomain, any other is a domain."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.accounts.models import Account
from controller.core.domains.models import Domain
from controller.core.domains.names import parents_of
from controller.core.limits.check import require_room
from controller.core.limits.registry import LimitKind
from controller.core.operations import FleetContext
from shared.types.names import DomainName


async def _read_names(session: AsyncSession, account_ids: Collection[str]) -> dict[str, set[str]]:
    statement = select(Domain.account_id, Domain.name).where(
        Domain.account_id.in_(account_ids), Domain.deleted_at.is_(None)
    )
    names: dict[str, set[str]] = defaultdict(set)
    for account_id, name in await session.execute(statement):
        names[account_id].add(name)
    return names


def count_kinds(names: Iterable[str]) -> Counter[str]:
    """`domains` and `subdomains` to how many of these names, which one account has, are such."""
    known = set(names)
    return Counter("domains" if known.isdisjoint(parents_of(name)) else "subdomains" for name in known)


async def _count_domains(session: AsyncSession, account_ids: Collection[str]) -> dict[str, int]:
    names = await _read_names(session, account_ids)
    return {account_id: count_kinds(own)["domains"] for account_id, own in names.items()}


async def _count_subdomains(session: AsyncSession, account_ids: Collection[str]) -> dict[str, int]:
    names = await _read_names(session, account_ids)
    return {account_id: count_kinds(own)["subdomains"] for account_id, own in names.items()}


DOMAIN_LIMITS: Final = (
    LimitKind(key="domains", title="Domains", unit="domains", count=_count_domains),
    LimitKind(key="subdomains", title="Subdomains", unit="subdomains", count=_count_subdomains),
)


async def require_room_for_name(ctx: FleetContext, account_id: str, name: DomainName) -> None:
    """Pass when the account may have this name as well; it may turn domains that it has into subdomains.

    Raises:
        QuotaExceededError: Its package does not allow it.
    """
    await ctx.session.flush()
    names = (await _read_names(ctx.session, (account_id,))).get(account_id, set())
    more = count_kinds({*names, name})
    more.subtract(count_kinds(names))
    account = await ctx.session.get_one(Account, account_id)
    for key, amount in sorted(more.items()):
        await require_room(ctx, account, key, amount)
