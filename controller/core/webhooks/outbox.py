"""Writes messages in the transaction of what they tell of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, exists
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.context import Change
from controller.core.events.catalogue import Catalogue, EventType, fits
from controller.core.operations import FleetContext
from controller.core.webhooks.audience import Owners, list_endpoints, narrow_data
from controller.core.webhooks.models import WebhookDelivery, WebhookEndpoint
from controller.db.base import new_id
from controller.jobs.models import Job
from controller.jobs.tasks import Tasks
from controller.jobs.views import render_notice

SEND_TASK: Final = "webhooks.send"
BODY_BYTES_MAX: Final = 256 * 1024


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """The body, as the Standard Webhooks specification has it."""

    type: str
    """Name of the event."""
    timestamp: datetime
    """When it happened; the header says when it is sent."""
    data: dict[str, Any]


class Outbox:
    """Two ways in: changes of people, and results of nodes."""

    def __init__(self, tasks: Tasks, catalogue: Catalogue) -> None:
        self._tasks = tasks
        self._catalogue = catalogue

    def is_there(self) -> ColumnElement[bool]:
        """A follower's (controller.core.reactions)."""
        return exists().where(WebhookEndpoint.is_enabled.is_(True))

    async def add_changes(self, ctx: FleetContext, owners: Sequence[Owners]) -> None:
        """The same."""
        endpoints = await list_endpoints(ctx.session, owners)
        is_any = False
        for change, whose in zip(ctx.changes, owners, strict=True):
            event = self._event(change.action)
            told = _Told(change.action, change.target, ctx.now, whose)
            data = data_of(ctx, change)
            is_any |= told.add(ctx.session, endpoints, event, data)
        if is_any:
            await self._wake(ctx.session)

    async def add_result(self, session: AsyncSession, job: Job, whose: Owners) -> None:
        """The same."""
        name = f"job.{job.state.value}"
        endpoints = await list_endpoints(session, (whose,))
        told = _Told(name, f"job/{job.id}", job.finished_at or datetime.now(UTC), whose)
        if told.add(session, endpoints, self._event(name), render_notice(job)):
            await self._wake(session)

    def _event(self, name: str) -> EventType:
        """What nobody has published is the platform's own."""
        return self._catalogue.find(name) or EventType(name, "")

    async def _wake(self, session: AsyncSession) -> None:
        await session.flush()
        await self._tasks.add(session, SEND_TASK, {}, dedup_key=SEND_TASK)


@dataclass(frozen=True, slots=True)
class _Told:
    """One event on its way to those who want it."""

    name: str
    subject: str
    at: datetime
    whose: Owners

    def add(
        self, session: AsyncSession, endpoints: Sequence[WebhookEndpoint], event: EventType, data: dict[str, Any]
    ) -> bool:
        """Write a message for each endpoint that gets it; whether there was one."""
        wanted = [
            row for row in endpoints if self.whose.include(row) and any(fits(one, self.name) for one in row.events)
        ]
        message_id = make_message_id()
        platform = [row for row in wanted if not row.owner]
        if platform:
            self._write(session, platform, message_id, data)
        tenants = [row for row in wanted if row.owner] if event.is_for_tenants else []
        if tenants:
            is_change = "before" in data
            self._write(session, tenants, message_id, narrow_data(event, data, self.whose) if is_change else data)
        return bool(platform or tenants)

    def _write(
        self, session: AsyncSession, endpoints: Iterable[WebhookEndpoint], message_id: str, data: dict[str, Any]
    ) -> None:
        body = render_message(self.name, self.at, data)
        for row in endpoints:
            session.add(
                WebhookDelivery(
                    endpoint_id=row.id,
                    account_id=self.whose.account_id if row.owner else None,
                    client_id=self.whose.client_id if row.owner else None,
                    message_id=message_id,
                    event=self.name,
                    subject=self.subject[:100],
                    body=body,
                    next_at=self.at,
                    created_at=self.at,
                    updated_at=self.at,
                    log=[],
                )
            )


def render_message(event: str, at: datetime, data: dict[str, Any]) -> str:
    """The body of a message."""
    body = msgspec.json.encode(Message(type=event, timestamp=at, data=data), enc_hook=str)
    if len(body) > BODY_BYTES_MAX:
        short = {name: value for name, value in data.items() if name in ("id", "name", "actor", "request_id")}
        short |= {"actor_name": data.get("actor_name", ""), "before": None, "after": None, "is_shortened": True}
        body = msgspec.json.encode(Message(type=event, timestamp=at, data=short), enc_hook=str)
    return body.decode()


def make_message_id() -> str:
    """As the specification advises: short, unique, of one kind."""
    return f"msg_{new_id().replace('-', '')}"


def data_of(ctx: FleetContext, change: Change) -> dict[str, Any]:
    """A change as the platform is told of it."""
    return {
        "id": change.target.partition("/")[2],
        "name": change.target_name,
        "actor": ctx.actor.reference,
        "actor_name": ctx.actor.name,
        "request_id": ctx.request_id,
        "before": change.before,
        "after": change.after,
        "is_shortened": False,
    }
