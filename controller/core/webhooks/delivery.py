"""Sends what is in the outbox: one task in the whole controller, many endpoints at once, one message at a time each.

A message is sent, then its row is written: a crash in between sends it twice, and its id tells the receiver.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.audit.chain import record
from controller.core.context import SYSTEM, Change
from controller.core.operations import FleetContext, Operations
from controller.core.webhooks.models import DeliveryState, WebhookDelivery, WebhookEndpoint
from controller.core.webhooks.outbox import SEND_TASK
from controller.core.webhooks.sender import Answer, Sender
from controller.core.webhooks.signing import sign_message
from controller.db.base import utc_now
from controller.db.engine import Database
from controller.jobs.tasks import TaskKind, TaskRun, Tasks

SWEEP_SECONDS: Final = 5.0
FORGET_SECONDS: Final = 3600.0
BACKOFF_SECONDS: Final = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Before the 2nd, 3rd, ... attempt. Source: the schedule that the Standard Webhooks specification gives as example."""
ATTEMPTS_MAX: Final = len(BACKOFF_SECONDS) + 1
JITTER: Final = 0.2
PAUSE_AFTER_FAILURES: Final = 10
PAUSE_AFTER: Final = timedelta(hours=24)
"""An endpoint that failed so often and for so long, without one success, is paused."""
GONE: Final = 410
"""Whoever answers this wants nothing more. Source: the Standard Webhooks specification."""
KEEP_FINISHED: Final = timedelta(days=30)
KEEP_PENDING: Final = timedelta(days=7)
_AT_ONCE: Final = 16
_RUN_SECONDS: Final = 45.0
"""After this a run takes nothing new; the next one goes on."""
_LOOK_SECONDS: Final = 1.0

_log = structlog.get_logger("controller.webhooks")


class WebhookDeliveries:
    """What tasks and schedules call."""

    def __init__(
        self, database: Database, operations: Operations, sender: Sender, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._database = database
        self._operations = operations
        self._sender = sender
        self._clock = clock

    def kinds(self) -> tuple[TaskKind, ...]:
        """For `Operations.attach_tasks`."""
        return (TaskKind(name=SEND_TASK, run=self.run),)

    async def sweep(self, tasks: Tasks) -> str | None:
        """Schedule: let the task run when something is due again."""
        async with self._database.read() as session:
            if not await _find_due(session, now=self._clock(), but_for=(), limit=1):
                return None
        async with self._database.write() as session:
            await tasks.add(session, SEND_TASK, {}, dedup_key=SEND_TASK)
        return "messages are due"

    async def forget_old(self) -> str | None:
        """Schedule: remove what was finished long ago, give up what nobody could take."""
        now = self._clock()
        is_pending = WebhookDelivery.state == DeliveryState.PENDING
        async with self._database.write() as session:
            stale = update(WebhookDelivery).where(is_pending, WebhookDelivery.created_at < now - KEEP_PENDING)
            await session.execute(stale.values(state=DeliveryState.FAILED, finished_at=now))
            old = delete(WebhookDelivery).where(~is_pending, WebhookDelivery.finished_at < now - KEEP_FINISHED)
            await session.execute(old)
        return None

    async def run(self, _run: TaskRun) -> str | None:
        """Send until nothing is due; safe to run again."""
        ends_at = time.monotonic() + _RUN_SECONDS
        under_way: dict[str, asyncio.Task[None]] = {}
        sent = 0
        try:
            while True:
                if time.monotonic() < ends_at:
                    for endpoint_id, delivery_id in await self._take(under_way):
                        under_way[endpoint_id] = asyncio.create_task(self._deliver(delivery_id))
                if not under_way:
                    return f"{sent} messages sent" if sent else None
                await asyncio.wait(under_way.values(), timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                for endpoint_id in [key for key, task in under_way.items() if task.done()]:
                    under_way.pop(endpoint_id).result()
                    sent += 1
        finally:
            for task in under_way.values():
                task.cancel()
            await asyncio.gather(*under_way.values(), return_exceptions=True)

    async def _take(self, under_way: dict[str, asyncio.Task[None]]) -> list[tuple[str, str]]:
        """The next message of each endpoint that has one and is not being sent to: endpoint and message."""
        room = _AT_ONCE - len(under_way)
        if room <= 0:
            return []
        async with self._database.read() as session:
            return await _find_due(session, now=self._clock(), but_for=tuple(under_way), limit=room)

    async def _deliver(self, delivery_id: str) -> None:
        async with self._database.read() as session:
            row = await session.get(WebhookDelivery, delivery_id)
            endpoint = await session.get(WebhookEndpoint, row.endpoint_id) if row is not None else None
        if row is None or endpoint is None or row.state is not DeliveryState.PENDING:
            return
        now = self._clock()
        is_rotating = endpoint.previous_until is not None and endpoint.previous_until > now
        keys = [endpoint.secret, endpoint.previous_secret] if is_rotating else [endpoint.secret]
        headers = sign_message([key for key in keys if key], row.message_id, int(now.timestamp()), row.body)
        answer = await self._sender.send(endpoint.url, headers, row.body)
        await self._note(row.id, endpoint.id, answer)

    async def _note(self, delivery_id: str, endpoint_id: str, answer: Answer) -> None:
        now = self._clock()
        async with self._database.write() as session:
            row = await session.get(WebhookDelivery, delivery_id, with_for_update=True)
            endpoint = await session.get(WebhookEndpoint, endpoint_id, with_for_update=True)
            if row is None or endpoint is None or row.state is not DeliveryState.PENDING:
                return
            _note_attempt(row, answer, now)
            reason = _note_health(endpoint, answer, now)
        _log.info("webhook.sent", delivery_id=delivery_id, status=answer.status, error=answer.error)
        if reason:
            await self._pause(endpoint_id, reason)

    async def _pause(self, endpoint_id: str, reason: str) -> None:
        async def use_case(ctx: FleetContext) -> None:
            row = await ctx.session.get(WebhookEndpoint, endpoint_id, populate_existing=True)
            if row is None or row.paused_at is not None:
                return
            row.paused_at, row.pause_reason = ctx.now, reason
            await ctx.session.flush()
            record(ctx, Change("webhook.pause", f"webhook/{row.id}", row.url[:300], after={"reason": reason}))

        await self._operations.change(SYSTEM, f"task/{SEND_TASK}", use_case)


def backoff(attempts: int) -> timedelta:
    """How long to wait after so many failed attempts; up to a fifth is added at random."""
    return timedelta(seconds=BACKOFF_SECONDS[attempts - 1] * random.uniform(1.0, 1.0 + JITTER))  # noqa: S311 - jitter


def _note_attempt(row: WebhookDelivery, answer: Answer, now: datetime) -> None:
    entry: dict[str, Any] = {
        "at": now.isoformat(),
        "status": answer.status,
        "error": answer.error,
        "body": answer.body,
        "milliseconds": answer.milliseconds,
    }
    row.attempts, row.log, row.updated_at = row.attempts + 1, [*row.log, entry], now
    if answer.is_success or row.attempts >= ATTEMPTS_MAX or answer.status == GONE:
        row.state = DeliveryState.SUCCEEDED if answer.is_success else DeliveryState.FAILED
        row.finished_at = now
    else:
        row.next_at = now + max(backoff(row.attempts), timedelta(seconds=answer.retry_after_seconds))


def _note_health(endpoint: WebhookEndpoint, answer: Answer, now: datetime) -> str:
    """Count; returns why the endpoint is to be paused, or nothing."""
    if answer.is_success:
        endpoint.failures, endpoint.failing_since, endpoint.last_success_at = 0, None, now
        return ""
    endpoint.failures += 1
    endpoint.failing_since = endpoint.failing_since or now
    if answer.status == GONE:
        return "it answered 410: it wants no more messages"
    is_dead = endpoint.failures >= PAUSE_AFTER_FAILURES and now - endpoint.failing_since >= PAUSE_AFTER
    return f"{endpoint.failures} attempts in a row failed; the last one: {answer.error}"[:300] if is_dead else ""


async def _find_due(
    session: AsyncSession, *, now: datetime, but_for: tuple[str, ...], limit: int
) -> list[tuple[str, str]]:
    statement = (
        select(WebhookDelivery.endpoint_id, func.min(WebhookDelivery.id))
        .join(WebhookEndpoint, WebhookEndpoint.id == WebhookDelivery.endpoint_id)
        .where(
            WebhookDelivery.state == DeliveryState.PENDING,
            WebhookDelivery.next_at <= now,
            WebhookEndpoint.is_enabled.is_(True),
            WebhookEndpoint.paused_at.is_(None),
            WebhookDelivery.endpoint_id.not_in(but_for),
        )
        .group_by(WebhookDelivery.endpoint_id)
        .limit(limit)
    )
    return [(row[0], row[1]) for row in await session.execute(statement)]
