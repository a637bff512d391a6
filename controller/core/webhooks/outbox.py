"""Writes messages in the transaction of what they tell of."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.context import Change
from controller.core.events.catalogue import fits
from controller.core.operations import FleetContext
from controller.core.webhooks.models import WebhookDelivery, WebhookEndpoint
from controller.db.base import new_id
from controller.jobs.models import Job
from controller.jobs.tasks import Tasks
from controller.jobs.views import render_notice
from shared.protocol.job import JobResult

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

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks

    async def add_changes(self, ctx: FleetContext) -> None:
        """For Operations, at the end of each change."""
        if not ctx.changes:
            return
        endpoints = await _list_endpoints(ctx.session)
        is_any = False
        for change in ctx.changes:
            wanted = [row for row in endpoints if any(fits(pattern, change.action) for pattern in row.events)]
            if wanted:
                body = render_message(change.action, ctx.now, _data_of(ctx, change))
                _add(ctx.session, wanted, event=change.action, subject=change.target, body=body, now=ctx.now)
                is_any = True
        if is_any:
            await self._wake(ctx.session)

    async def on_result(self, session: AsyncSession, job: Job, result: JobResult) -> None:  # noqa: ARG002 - the engine's contract
        """For the job engine: a result, in the transaction that stores it."""
        event = f"job.{job.state.value}"
        endpoints = await _list_endpoints(session)
        wanted = [row for row in endpoints if any(fits(pattern, event) for pattern in row.events)]
        if not wanted:
            return
        now = job.finished_at or datetime.now(UTC)
        body = render_message(event, now, render_notice(job))
        _add(session, wanted, event=event, subject=f"job/{job.id}", body=body, now=now)
        await self._wake(session)

    async def _wake(self, session: AsyncSession) -> None:
        await session.flush()
        await self._tasks.add(session, SEND_TASK, {}, dedup_key=SEND_TASK)


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


async def _list_endpoints(session: AsyncSession) -> list[WebhookEndpoint]:
    """Those that get messages; a paused one too, because it may come back."""
    return list(await session.scalars(select(WebhookEndpoint).where(WebhookEndpoint.is_enabled.is_(True))))


def _data_of(ctx: FleetContext, change: Change) -> dict[str, Any]:
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


def _add(
    session: AsyncSession, endpoints: Iterable[WebhookEndpoint], *, event: str, subject: str, body: str, now: datetime
) -> None:
    message_id = make_message_id()
    for row in endpoints:
        session.add(
            WebhookDelivery(
                endpoint_id=row.id,
                message_id=message_id,
                event=event,
                subject=subject[:100],
                body=body,
                next_at=now,
                created_at=now,
                updated_at=now,
                log=[],
            )
        )
