"""Whose an event is, what of it a reseller or a client may be told, and whether it still is theirs."""

from __future__ import annotations

import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, and_, delete, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.accounts.models import Account
from controller.core.audit.tenants import TenantFinder
from controller.core.clients.models import Client
from controller.core.context import Change
from controller.core.events.catalogue import EventType
from controller.core.webhooks.models import WebhookDelivery, WebhookEndpoint

LOST: Final = frozenset({"account.lose"})
"""Told to whom an account was taken from: it is not theirs any more, and they may know that."""


@dataclass(frozen=True, slots=True)
class Owners:
    """Whose something is; None: nobody's of that kind."""

    account_id: str | None = None
    client_id: str | None = None
    reseller_id: str | None = None

    def include(self, endpoint: WebhookEndpoint) -> bool:
        """Whether the endpoint is the platform's, or of one of these."""
        if endpoint.reseller_id is not None:
            return endpoint.reseller_id == self.reseller_id
        return endpoint.client_id is None or endpoint.client_id == self.client_id


class OwnerFinder:
    """Asks for each account and client once in a transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session
        self._tenants = TenantFinder(session)
        self._resellers: dict[str, str | None] = {}

    async def of_change(self, change: Change) -> Owners:
        """Whose thing was changed, as it is after the change."""
        tenant = await self._tenants.find(change)
        noun, _, row_id = change.target.partition("/")
        if noun == "reseller":
            return Owners(reseller_id=row_id)
        if tenant.client_id is None:
            return Owners(reseller_id=_read_reseller(change) if noun == "package" else None)
        account_id = None if change.action in LOST else tenant.account_id
        return Owners(account_id, tenant.client_id, await self.reseller_of(tenant.client_id))

    async def of_account(self, account_id: str | None) -> Owners:
        """Whose the account is."""
        if account_id is None:
            return Owners()
        statement = select(Account.client_id, Client.reseller_id).join(Client, Client.id == Account.client_id)
        found = (await self._session.execute(statement.where(Account.id == account_id))).first()
        return Owners(account_id, found.client_id, found.reseller_id) if found is not None else Owners()

    async def reseller_of(self, client_id: str) -> str | None:
        if client_id not in self._resellers:
            statement = select(Client.reseller_id).where(Client.id == client_id)
            self._resellers[client_id] = (await self._session.scalars(statement)).first()
        return self._resellers[client_id]


async def list_endpoints(session: AsyncSession, owners: Iterable[Owners]) -> list[WebhookEndpoint]:
    """Enabled ones of the platform and of these owners; a paused one too, because it may come back."""
    known = list(owners)
    clients = {one.client_id for one in known if one.client_id is not None}
    resellers = {one.reseller_id for one in known if one.reseller_id is not None}
    whose = or_(
        and_(WebhookEndpoint.reseller_id.is_(None), WebhookEndpoint.client_id.is_(None)),
        WebhookEndpoint.client_id.in_(clients),
        WebhookEndpoint.reseller_id.in_(resellers),
    )
    return list(await session.scalars(select(WebhookEndpoint).where(WebhookEndpoint.is_enabled.is_(True), whose)))


def is_of_a_tenant() -> ColumnElement[bool]:
    """Condition: the endpoint is not the platform's."""
    return or_(WebhookEndpoint.reseller_id.is_not(None), WebhookEndpoint.client_id.is_not(None))


def narrow_data(event: EventType, data: Mapping[str, Any], owners: Owners) -> dict[str, Any]:
    """A change's data as its tenant may see it: states that are all theirs, and of them what the schema publishes."""
    fields = _published_fields(event)
    told = {side: _narrow_state(data[side], event.name, fields, owners) for side in ("before", "after")}
    return {**data, **told}


def _narrow_state(
    state: Mapping[str, Any] | None, event: str, fields: frozenset[str] | None, owners: Owners
) -> dict[str, Any] | None:
    if state is None:
        return None
    is_of_account = event.startswith("account.")
    client_id = state.get("client_id", None if is_of_account else owners.client_id)
    reseller_id = state.get("reseller_id", owners.reseller_id)
    if (is_of_account or "client_id" in state) and client_id != owners.client_id:
        return None  # how it was when it was another's, or what does not say whose it is
    if reseller_id != owners.reseller_id:
        return None
    return {name: value for name, value in state.items() if fields is None or name in fields}


def _published_fields(event: EventType) -> frozenset[str] | None:
    """Of the state in the event's schema; None: the state is a plain table of what its event says."""
    (state,) = typing.get_args(event.data)
    if isinstance(state, type) and issubclass(state, msgspec.Struct):
        return frozenset(field.encode_name for field in msgspec.structs.fields(state))
    return None


async def is_still_theirs(session: AsyncSession, endpoint: WebhookEndpoint, delivery: WebhookDelivery) -> bool:
    """Whether what the message tells of belongs to the endpoint's owner now."""
    if not endpoint.owner:
        return True
    finder = OwnerFinder(session)
    if delivery.account_id is not None and not (await finder.of_account(delivery.account_id)).include(endpoint):
        return False
    if delivery.client_id is None:
        return True
    if endpoint.client_id is not None:
        return delivery.client_id == endpoint.client_id
    found = await session.scalars(select(Client.reseller_id).where(Client.id == delivery.client_id))
    return found.first() == endpoint.reseller_id


async def remove_endpoints_of(
    session: AsyncSession, *, client_id: str | None = None, reseller_id: str | None = None
) -> None:
    """With the tenant its endpoints go, and what was not sent yet."""
    if client_id is not None:
        await session.execute(delete(WebhookEndpoint).where(WebhookEndpoint.client_id == client_id))
    if reseller_id is not None:
        await session.execute(delete(WebhookEndpoint).where(WebhookEndpoint.reseller_id == reseller_id))


def _read_reseller(change: Change) -> str | None:
    """Of a package: whose it is. It cannot go to another."""
    state = change.after or change.before or {}
    found = state.get("reseller_id")
    return found if isinstance(found, str) else None
