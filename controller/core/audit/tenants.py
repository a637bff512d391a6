"""Whose thing was changed: the account and the client that an entry of the audit log is about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.accounts.models import Account
from controller.core.context import Change


class Tenant(NamedTuple):
    """None: of no account or client, for example a node."""

    account_id: str | None = None
    client_id: str | None = None


class TenantFinder:
    """Reads it off the change; asks for the client of an account once in a transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session
        self._clients: dict[str, str | None] = {}

    async def find(self, change: Change) -> Tenant:
        """The tenant as it is after the change, or was before it where nothing is left."""
        noun, _, row_id = change.target.partition("/")
        states = [state for state in (change.after, change.before) if state is not None]
        account_id = row_id if noun == "account" else _read_id(states, "account_id")
        client_id = row_id if noun == "client" else _read_id(states, "client_id")
        if account_id is not None and client_id is None:
            client_id = await self._client_of(account_id)
        return Tenant(account_id, client_id)

    async def _client_of(self, account_id: str) -> str | None:
        if account_id not in self._clients:
            statement = select(Account.client_id).where(Account.id == account_id)
            self._clients[account_id] = (await self._session.scalars(statement)).one_or_none()
        return self._clients[account_id]


def _read_id(states: list[dict[str, Any]], name: str) -> str | None:
    found = (_text(state, name) for state in states)
    return next((value for value in found if value is not None), None)


def _text(state: Mapping[str, Any], name: str) -> str | None:
    value = state.get(name)
    return value if isinstance(value, str) and 0 < len(value) <= 36 else None
