"""Does what rules are for: one run after the other, each in one transaction with the note that it was done.

A process that dies before the commit has done nothing, and after it everything: the row says which, so that the next
one neither forgets nor doubles. What is sent or asked of nodes is a row of the same transaction.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import msgspec
import structlog
from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.audit.chain import record
from controller.core.context import SYSTEM, Actor, Change
from controller.core.maintenance.gate import MaintenanceError
from controller.core.operations import FleetContext, Operations
from controller.core.rules.actions import Occasion, act
from controller.core.rules.actor import find_actor
from controller.core.rules.following import RUN_TASK, count_runs
from controller.core.rules.models import Rule, RuleRun, RunState
from controller.core.rules.views import RuleAction, request_id_of
from controller.db.base import utc_now
from controller.db.engine import Database
from controller.jobs.tasks import TaskKind, TaskRun, Tasks
from shared.errors import FleetError, NotFoundError

SWEEP_SECONDS: Final = 5.0
FORGET_SECONDS: Final = 3600.0
ATTEMPTS_MAX: Final = 5
"""Of one run; also when each ended with the death of its process."""
RETRY_AFTER: Final = timedelta(seconds=30)
"""Times the attempts so far."""
KEEP_FINISHED: Final = timedelta(days=30)
_RUN_SECONDS: Final = 45.0

_log = structlog.get_logger("controller.rules")


@dataclass(frozen=True, slots=True)
class _Ready:
    """A run that may act now."""

    actor: Actor
    action: RuleAction
    occasion: Occasion
    attempts: int


@dataclass(frozen=True, slots=True)
class _Pause:
    """The rule is to be paused, and why."""

    rule_id: str
    reason: str


class RuleRunner:
    """What tasks and schedules call."""

    def __init__(self, database: Database, operations: Operations, clock: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._operations = operations
        self._clock = clock

    def kinds(self) -> tuple[TaskKind, ...]:
        """For `Operations.attach_tasks`."""
        return (TaskKind(name=RUN_TASK, run=self.run),)

    async def sweep(self, tasks: Tasks) -> str | None:
        """Schedule: let the task run when something is due."""
        return "runs of rules are due" if await tasks.add_when_due(self._is_due, RUN_TASK) else None

    async def _is_due(self, session: AsyncSession) -> bool:
        return await _find_due(session, self._clock()) is not None

    async def forget_old(self) -> str | None:
        """Schedule: remove what was finished long ago."""
        async with self._database.write() as session:
            old = delete(RuleRun).where(RuleRun.finished_at < self._clock() - KEEP_FINISHED)
            await session.execute(old)
        return None

    async def run(self, _run: TaskRun) -> str | None:
        """Until nothing is due; safe to run again."""
        ends_at = time.monotonic() + _RUN_SECONDS
        count = 0
        while time.monotonic() < ends_at:
            async with self._database.read() as session:
                run_id = await _find_due(session, self._clock())
            if run_id is None:
                break
            await self._execute(run_id)
            count += 1
        return f"{count} runs" if count else None

    async def _execute(self, run_id: str) -> None:
        async with self._database.write() as session:
            ready = await self._begin(session, run_id)
        if isinstance(ready, _Pause):
            await self._pause(ready)
        elif ready is not None:
            await self._act(run_id, ready)

    async def _begin(self, session: AsyncSession, run_id: str) -> _Ready | _Pause | None:
        """Count the attempt before it is made, so that a run that kills its process is not tried for ever."""
        now = self._clock()
        row = await session.get(RuleRun, run_id, with_for_update=True)
        if row is None or row.state is not RunState.PENDING:
            return None
        rule = await session.get_one(Rule, row.rule_id)
        if not rule.is_enabled or rule.paused_at is not None:
            _finish(row, RunState.SKIPPED, "the rule was paused or switched off by then", now)
            return None
        if row.attempts >= ATTEMPTS_MAX:
            _finish(row, RunState.FAILED, f"tried {row.attempts} times without an end", now)
            return None
        if await count_runs(session, rule.id, now) > rule.runs_per_hour:
            return _Pause(rule.id, f"it applied more than {rule.runs_per_hour} times within an hour")
        action = msgspec.convert(rule.action, RuleAction)
        actor, problem = await find_actor(session, rule, action)
        if actor is None:
            return _Pause(rule.id, problem)
        row.attempts, row.updated_at = row.attempts + 1, now
        row.next_at = now + row.attempts * RETRY_AFTER
        return _Ready(actor, action, occasion_of(rule, row), row.attempts)

    async def _act(self, run_id: str, ready: _Ready) -> None:
        async def use_case(ctx: FleetContext) -> None:
            row = await ctx.session.get(RuleRun, run_id, with_for_update=True, populate_existing=True)
            if row is None:
                raise NotFoundError("what the event was about is its owner's no more")
            if row.state is not RunState.PENDING:
                return
            deed = await act(ctx, ready.action, ready.occasion)
            _finish(row, deed.state, deed.words, ctx.now)
            await ctx.session.flush()

        try:
            await self._operations.change(ready.actor, request_id_of(run_id), use_case)
        except FleetError as error:
            await self._note_failure(run_id, error)
        else:
            _log.info("rule.ran", run_id=run_id, rule=ready.occasion.rule_name)

    async def _note_failure(self, run_id: str, error: FleetError) -> None:
        now = self._clock()
        async with self._database.write() as session:
            row = await session.get(RuleRun, run_id, with_for_update=True)
            if row is None or row.state is not RunState.PENDING:
                return
            row.error_code, row.outcome = error.code[:64], error.message[:500]
            if isinstance(error, MaintenanceError):
                row.attempts -= 1  # nobody changes anything now; that says nothing about this
            elif not error.is_retryable or row.attempts >= ATTEMPTS_MAX:
                _finish(row, RunState.FAILED, error.message, now)
        _log.warning("rule.failed", run_id=run_id, code=error.code, reason=error.message)

    async def _pause(self, pause: _Pause) -> None:
        async def use_case(ctx: FleetContext) -> None:
            rule = await ctx.session.get(Rule, pause.rule_id, populate_existing=True)
            if rule is None or rule.paused_at is not None:
                return
            rule.paused_at, rule.pause_reason, rule.updated_at = ctx.now, pause.reason[:300], ctx.now
            await skip_waiting(ctx.session, rule.id, ctx.now, "the rule was paused")
            record(ctx, Change("rule.pause", f"rule/{rule.id}", rule.name, after={"reason": rule.pause_reason}))

        await self._operations.change(SYSTEM, f"task/{RUN_TASK}", use_case)


async def skip_waiting(session: AsyncSession, rule_id: str, now: datetime, words: str) -> None:
    """What waits is not done any more: a rule that comes back begins with what happens then."""
    waiting = update(RuleRun).where(RuleRun.rule_id == rule_id, RuleRun.state == RunState.PENDING)
    values = {"state": RunState.SKIPPED, "outcome": words, "finished_at": now, "updated_at": now}
    await session.execute(waiting.values(**values).execution_options(synchronize_session=False))


def occasion_of(rule: Rule, row: RuleRun) -> Occasion:
    """What a run acts on."""
    return Occasion(
        rule_id=rule.id,
        rule_name=rule.name,
        owner=rule.owner,
        event=row.event,
        subject=row.subject,
        account_id=row.target_account_id,
        client_id=row.client_id,
        data=msgspec.json.decode(row.data),
    )


def _finish(row: RuleRun, state: RunState, words: str, now: datetime) -> None:
    row.state, row.outcome, row.finished_at, row.updated_at = state, words[:500], now, now
    if state is RunState.DONE:
        row.error_code = ""


async def _find_due(session: AsyncSession, now: datetime) -> str | None:
    due = select(RuleRun.id).where(RuleRun.state == RunState.PENDING, RuleRun.next_at <= now)
    return (await session.scalars(due.order_by(RuleRun.id).limit(1))).first()
