"""Queries about clients."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.accounts.models import Account
from controller.core.clients.models import Client
from controller.core.clients.views import ClientView
from controller.core.fields import not_found, require_id


async def get_client(session: AsyncSession, client_id: str) -> Client:
    """The live client with this id.

    Raises:
        NotFoundError
    """
    row = await session.get(Client, require_id("client", client_id))
    if row is None or row.deleted_at is not None:
        raise not_found("client", client_id)
    return row


async def count_accounts(session: AsyncSession, client_ids: Collection[str]) -> dict[str, int]:
    """Client id to the number of live accounts; clients without any are left out."""
    statement = (
        select(Account.client_id, func.count())
        .where(Account.client_id.in_(client_ids), Account.deleted_at.is_(None))
        .group_by(Account.client_id)
    )
    return {row[0]: row[1] for row in await session.execute(statement)}


def view_client(client: Client, accounts: int) -> ClientView:
    """For the API."""
    return ClientView(
        id=client.id,
        name=client.name,
        email=client.email,
        reseller_id=client.reseller_id,
        accounts=accounts,
        created_at=client.created_at,
        updated_at=client.updated_at,
    )
