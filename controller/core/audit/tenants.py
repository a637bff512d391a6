"""Whose thing was changed: the account, the client and the reseller that an entry of the audit log is about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.accounts.models import Account
from controller.core.auth.models import User
from controller.core.clients.models import Client
from controller.core.context import Actor, Change, ReachKind
from controller.db.base import Model


class Tenant(NamedTuple):
    """None: of no account, client or reseller, for example a node."""

    account_id: str | None = None
    client_id: str | None = None
    reseller_id: str | None = None


class TenantFinder:
    """Reads it off the change, and off who made it; asks for the owner of a row once in a transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session
        self._owners: dict[tuple[str, str], Tenant] = {}

    async def find(self, change: Change, actor: Actor | None = None) -> Tenant:
        """The tenant as it is after the change, or was before it where nothing is left.

        With an actor, what is nobody's thing, for example a sign-in, belongs to the tenant of the person.
        """
        noun, _, row_id = change.target.partition("/")
        states = [state for state in (change.after, change.before) if state is not None]
        account_id = row_id if noun == "account" else _read_id(states, "account_id")
        client_id = row_id if noun == "client" else _read_id(states, "client_id")
        reseller_id = row_id if noun == "reseller" else _read_id(states, "reseller_id")
        if account_id is not None and client_id is None:
            client_id = (await self._owner_of(Account, account_id)).client_id
        if client_id is None and reseller_id is None and actor is not None:
            owner = await self._owner_of(User, row_id) if noun == "user" else Tenant()
            _, client_id, reseller_id = owner if owner != Tenant() else await self._tenant_of(actor)
        if client_id is not None and reseller_id is None:
            reseller_id = (await self._owner_of(Client, client_id)).reseller_id
        return Tenant(account_id, client_id, reseller_id)

    async def _tenant_of(self, actor: Actor) -> Tenant:
        if actor.reach.kind is ReachKind.CLIENT:
            return Tenant(client_id=actor.reach.id)
        if actor.reach.kind is ReachKind.RESELLER:
            return Tenant(reseller_id=actor.reach.id)
        return await self._owner_of(User, actor.reach.id) if actor.reach.kind is ReachKind.MEMBER else Tenant()

    async def _owner_of(self, model: type[Model], row_id: str) -> Tenant:
        key = (model.__tablename__, row_id)
        if key not in self._owners:
            columns = [column for name in Tenant._fields if (column := getattr(model, name, None)) is not None]
            statement = select(*columns).where(model.id == row_id)
            row = (await self._session.execute(statement)).one_or_none()
            self._owners[key] = Tenant() if row is None else Tenant(**row._mapping)  # noqa: SLF001 - public by name only
        return self._owners[key]


def _read_id(states: list[dict[str, Any]], name: str) -> str | None:
    found = (_text(state, name) for state in states)
    return next((value for value in found if value is not None), None)


def _text(state: Mapping[str, Any], name: str) -> str | None:
    value = state.get(name)
    return value if isinstance(value, str) and 0 < len(value) <= 36 else None
