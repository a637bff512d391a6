"""Queries about domains, and the one way to claim and to free them."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.domains.models import Domain
from controller.core.domains.names import parents_of, render_host_name
from controller.core.domains.views import DomainView
from controller.core.fields import not_found, require_id
from controller.db.criteria import EVERYBODY
from shared.errors import ConflictError
from shared.types.names import DomainName


async def get_domain(session: AsyncSession, domain_id: str) -> Domain:
    """The live domain with this id.

    Raises:
        NotFoundError
    """
    row = await session.get(Domain, require_id("domain", domain_id))
    if row is None or row.deleted_at is not None:
        raise not_found("domain", domain_id)
    return row


async def find_named(session: AsyncSession, names: Collection[str]) -> dict[str, Domain]:
    """Name to live domain, for those of the names that are claimed."""
    statement = select(Domain).where(Domain.name.in_(names), Domain.deleted_at.is_(None))
    return {row.name: row for row in await session.scalars(statement.execution_options(**EVERYBODY))}


async def require_claimable(session: AsyncSession, name: DomainName, account_id: str) -> Domain | None:
    """Pass when the account may serve the name; the domain's row when it has it already.

    A name below another account's domain is refused too: its owner never agreed to share it. The nearest claimed name
    above decides. The answer does not say who the other account is.

    Raises:
        ConflictError: The name, or one above it, belongs to another account.
    """
    found = await find_named(session, (name, *parents_of(name)))
    own = found.get(name)
    if own is not None:
        if own.account_id != account_id:
            raise ConflictError(f"{name} is already hosted", code="domain_taken")
        return own
    above = next((found[parent] for parent in parents_of(name) if parent in found), None)
    if above is not None and above.account_id != account_id:
        raise ConflictError(
            f"{name} is already hosted: it lies below a domain of another account",
            code="domain_taken",
            hint="The owner of the domain can add it, or release the domain first.",
        )
    return None


async def free_account_domains(session: AsyncSession, account_id: str, now: datetime) -> None:
    """Everything that the account claimed is free again."""
    statement = update(Domain).where(Domain.account_id == account_id, Domain.deleted_at.is_(None))
    await session.execute(statement.values(deleted_at=now, updated_at=now))


async def free_unused_domains(session: AsyncSession, account_id: str, used: Collection[str], now: datetime) -> None:
    """Free what the account claimed by its sites and no longer uses.

    Args:
        session: A write transaction.
        account_id: Whose domains.
        used: Names that a site has, or that its node still serves.
        now: Time of the change.
    """
    statement = select(Domain).where(
        Domain.account_id == account_id, Domain.deleted_at.is_(None), Domain.is_automatic.is_(True)
    )
    for row in await session.scalars(statement):
        if row.name not in used:
            row.deleted_at = row.updated_at = now
    await session.flush()


def view_domain(domain: Domain) -> DomainView:
    """For the API."""
    return DomainView(
        id=domain.id,
        name=domain.name,
        display_name=render_host_name(domain.name),
        account_id=domain.account_id,
        is_automatic=domain.is_automatic,
        created_at=domain.created_at,
        updated_at=domain.updated_at,
    )
