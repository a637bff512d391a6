"""Queries about resellers."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.fields import not_found, require_id
from controller.core.packages.models import Package
from controller.core.resellers.caps import ACCOUNTS, CLIENTS, Promised, list_over
from controller.core.resellers.views import ResellerView
from controller.core.tenancy.models import Reseller


async def get_reseller(session: AsyncSession, reseller_id: str) -> Reseller:
    """The live reseller with this id, if whoever asks may know of it.

    Raises:
        NotFoundError
    """
    row = await session.get(Reseller, require_id("reseller", reseller_id))
    if row is None or row.deleted_at is not None:
        raise not_found("reseller", reseller_id)
    return row


async def is_name_taken(session: AsyncSession, name: str, *, but_for: str = "") -> bool:
    """Whether another live reseller has this name."""
    statement = select(Reseller.id).where(Reseller.name == name, Reseller.deleted_at.is_(None), Reseller.id != but_for)
    return (await session.scalars(statement.limit(1))).first() is not None


async def count_packages(session: AsyncSession, reseller_ids: Collection[str]) -> dict[str, int]:
    """Reseller's id to the number of its own live packages; one without any is left out."""
    statement = (
        select(Package.reseller_id, func.count())
        .where(Package.reseller_id.in_(reseller_ids), Package.deleted_at.is_(None))
        .group_by(Package.reseller_id)
    )
    rows: Any = await session.execute(statement)
    return {row[0]: row[1] for row in rows}


def view_reseller(reseller: Reseller, promised: Promised, packages: int) -> ResellerView:
    """For the API."""
    return ResellerView(
        id=reseller.id,
        name=reseller.name,
        email=reseller.email,
        packages_max=reseller.packages_max,
        caps=dict(reseller.caps),
        oversell=dict(reseller.oversell),
        over=list_over(reseller, promised),
        clients=promised.sum_of(CLIENTS),
        accounts=promised.sum_of(ACCOUNTS),
        packages=packages,
        suspended_at=reseller.suspended_at,
        suspension_reason=reseller.suspension_reason,
        created_at=reseller.created_at,
        updated_at=reseller.updated_at,
    )
