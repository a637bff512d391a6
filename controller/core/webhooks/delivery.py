"""Sends what is in the outbox: one task in the whole controller, many endpoints at once, one message at a time each.

A message is sent, then its row is written: a crash in between sends it twice, and its id tells the receiver.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.audit.chain import record
from controller.core.context import SYSTEM, Change
from controller.core.operations import FleetContext, Operations
from controller.core.policies.book import read_now
from controller.core.webhooks.audience import is_of_a_tenant, is_still_theirs
from controller.core.webhooks.models import DeliveryState, WebhookDelivery, WebhookEndpoint
from controller.core.webhooks.outbox import SEND_TASK
from controller.core.webhooks.sender import Answer, SenderByOwner
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
KEEP_PENDING: Final = timedelta(days=7)
_AT_ONCE: Final = 32
_TENANTS_AT_ONCE: Final = 24
"""Of those, so many at most are of resellers and clients: what the platform itself tells does not wait for theirs."""
_OWNER_AT_ONCE: Final = 2
"""And so many of one of them: endpoints that answer slowly hold up those of nobody else."""
_LOOK_AT: Final = 500
"""Endpoints with something due that are considered at a time; the healthy ones first."""
_RUN_SECONDS: Final = 45.0
"""After this a run takes nothing new; the next one goes on."""
_LOOK_SECONDS: Final = 1.0

_log = structlog.get_logger("controller.webhooks")


@dataclass(frozen=True, slots=True)
class _Due:
    """A message that may be sent."""

    endpoint_id: str
    delivery_id: str
    owner: str
    """Of the endpoint; empty: the platform."""


@dataclass(frozen=True, slots=True)
class _UnderWay:
    """A message that is being sent."""

    owner: str
    task: asyncio.Task[None]


class WebhookDeliveries:
    """What tasks and schedules call."""

    def __init__(
        self,
        database: Database,
        operations: Operations,
        senders: SenderByOwner,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._operations = operations
        self._senders = senders
        self._clock = clock

    def kinds(self) -> tuple[TaskKind, ...]:
        """For `Operations.attach_tasks`."""
        return (TaskKind(name=SEND_TASK, run=self.run),)

    async def sweep(self, tasks: Tasks) -> str | None:
        """Schedule: let the task run when something is due again."""
        return "messages are due" if await tasks.add_when_due(self._is_due, SEND_TASK) else None

    async def _is_due(self, session: AsyncSession) -> bool:
        return bool(await _find_due(session, now=self._clock(), limit=1))

    async def forget_old(self) -> str | None:
        """Schedule: remove what was finished long ago, give up what nobody could take."""
        now = self._clock()
        keep = timedelta(days=(await read_now(self._database)).webhook_retention_days)
        is_pending = WebhookDelivery.state == DeliveryState.PENDING
        async with self._database.write() as session:
            stale = update(WebhookDelivery).where(is_pending, WebhookDelivery.created_at < now - KEEP_PENDING)
            await session.execute(stale.values(state=DeliveryState.FAILED, finished_at=now))
            old = delete(WebhookDelivery).where(~is_pending, WebhookDelivery.finished_at < now - keep)
            await session.execute(old)
        return None

    async def run(self, _run: TaskRun) -> str | None:
        """Send until nothing is due; safe to run again."""
        ends_at = time.monotonic() + _RUN_SECONDS
        under_way: dict[str, _UnderWay] = {}
        sent = 0
        try:
            while True:
                if time.monotonic() < ends_at:
                    for due in await self._take(under_way):
                        task = asyncio.create_task(self._deliver(due.delivery_id))
                        under_way[due.endpoint_id] = _UnderWay(due.owner, task)
                if not under_way:
                    return f"{sent} messages sent" if sent else None
                tasks = [one.task for one in under_way.values()]
                await asyncio.wait(tasks, timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                for endpoint_id in [key for key, one in under_way.items() if one.task.done()]:
                    under_way.pop(endpoint_id).task.result()
                    sent += 1
        finally:
            for one in under_way.values():
                one.task.cancel()
            await asyncio.gather(*(one.task for one in under_way.values()), return_exceptions=True)

    async def _take(self, under_way: dict[str, _UnderWay]) -> list[_Due]:
        """The next message of each endpoint that has one and is not being sent to."""
        room = _AT_ONCE - len(under_way)
        if room <= 0:
            return []
        async with self._database.read() as session:
            due = await _find_due(session, now=self._clock(), but_for=tuple(under_way), limit=_LOOK_AT)
        return _share_out(due, under_way.values(), room)

    async def _deliver(self, delivery_id: str) -> None:
        async with self._database.read() as session:
            row = await session.get(WebhookDelivery, delivery_id)
            endpoint = await session.get(WebhookEndpoint, row.endpoint_id) if row is not None else None
            if row is None or endpoint is None or row.state is not DeliveryState.PENDING:
                return
            is_theirs = await is_still_theirs(session, endpoint, row)
        if not is_theirs:
            await self._withdraw(row.id)
            return
        now = self._clock()
        is_rotating = endpoint.previous_until is not None and endpoint.previous_until > now
        keys = [endpoint.secret, endpoint.previous_secret] if is_rotating else [endpoint.secret]
        headers = sign_message([key for key in keys if key], row.message_id, int(now.timestamp()), row.body)
        answer = await self._senders.of(is_tenant=bool(endpoint.owner)).send(endpoint.url, headers, row.body)
        await self._note(row.id, endpoint.id, answer)

    async def _withdraw(self, delivery_id: str) -> None:
        """Nobody gets to know what it said: not the former owner, and the new one has a message of its own."""
        now = self._clock()
        async with self._database.write() as session:
            row = await session.get(WebhookDelivery, delivery_id, with_for_update=True)
            if row is not None and row.state is DeliveryState.PENDING:
                row.state, row.body, row.finished_at, row.updated_at = DeliveryState.WITHDRAWN, "", now, now
        _log.info("webhook.withdrawn", delivery_id=delivery_id)

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
            after = {"reason": reason} | ({"client_id": row.client_id} if row.client_id is not None else {})
            record(ctx, Change("webhook.pause", f"webhook/{row.id}", row.url[:300], after=after))

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


def _share_out(due: Iterable[_Due], under_way: Iterable[_UnderWay], room: int) -> list[_Due]:
    """Those to send to now, in this order, as far as there is room for their owners."""
    busy = Counter(one.owner for one in under_way)
    tenants = sum(count for owner, count in busy.items() if owner)
    chosen: list[_Due] = []
    for one in due:
        if len(chosen) >= room:
            break
        if one.owner and (tenants >= _TENANTS_AT_ONCE or busy[one.owner] >= _OWNER_AT_ONCE):
            continue
        busy[one.owner] += 1
        tenants += bool(one.owner)
        chosen.append(one)
    return chosen


async def _find_due(session: AsyncSession, *, now: datetime, but_for: tuple[str, ...] = (), limit: int) -> list[_Due]:
    """The oldest message of each endpoint: the platform's endpoints first, then those that do not fail."""
    waiting = (
        select(WebhookDelivery.endpoint_id, func.min(WebhookDelivery.id).label("delivery_id"))
        .where(WebhookDelivery.state == DeliveryState.PENDING, WebhookDelivery.next_at <= now)
        .group_by(WebhookDelivery.endpoint_id)
        .subquery()
    )
    statement = (
        select(WebhookEndpoint, waiting.c.delivery_id)
        .join(waiting, waiting.c.endpoint_id == WebhookEndpoint.id)
        .where(
            WebhookEndpoint.is_enabled.is_(True),
            WebhookEndpoint.paused_at.is_(None),
            WebhookEndpoint.id.not_in(but_for),
        )
        .order_by(is_of_a_tenant(), WebhookEndpoint.failures, waiting.c.delivery_id)
        .limit(limit)
    )
    return [_Due(row.id, delivery_id, row.owner) for row, delivery_id in (await session.execute(statement)).all()]
