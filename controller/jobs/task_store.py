"""Every statement about tasks: each arrow is one conditional UPDATE, so that a doubled message runs nothing twice."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import CursorResult, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from controller.db.base import new_id
from controller.jobs.work_models import Task, TaskState
from shared.errors import ConflictError, NotFoundError

MESSAGE_LENGTH: Final = 2000
_BACKOFF_FIRST_SECONDS: Final = 2.0
_BACKOFF_MAX_SECONDS: Final = 300.0


@dataclass(frozen=True, slots=True)
class Claim:
    """A task that one process has for a while."""

    task_id: str
    kind: str
    args: dict[str, Any]
    attempts: int
    number: int
    """Of the claim: whoever holds an older one changes nothing."""


async def add_task(
    session: AsyncSession, kind: str, args: dict[str, Any], *, dedup_key: str | None, now: datetime
) -> str | None:
    """Add a task that is due now; None when the same work (by its key) waits already, or will run once more."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    values = {"id": new_id(), "kind": kind, "args": args, "dedup_key": dedup_key, "run_at": now, "created_at": now}
    statement = insert(Task).values(values).on_conflict_do_nothing(index_elements=["dedup_key"]).returning(Task.id)
    task_id: str | None = (await session.execute(statement)).scalar_one_or_none()
    if task_id is None:
        again = update(Task).where(Task.dedup_key == dedup_key, Task.state == TaskState.RUNNING)
        await session.execute(_quietly(again.values(is_wanted_again=True)))
    return task_id


async def claim_task(
    session: AsyncSession, task_id: str, *, holder: str, lease: timedelta, now: datetime
) -> Claim | None:
    """Take the task if it is due and nobody else has it."""
    claim = update(Task).where(Task.id == task_id, Task.state == TaskState.QUEUED, Task.run_at <= now)
    claim = claim.values(
        state=TaskState.RUNNING,
        attempts=Task.attempts + 1,
        claims=Task.claims + 1,
        claimed_by=holder,
        lease_until=now + lease,
        started_at=now,
        is_wanted_again=False,
        updated_at=now,
    )
    found = (
        await session.execute(_quietly(claim.returning(Task.id, Task.kind, Task.args, Task.attempts, Task.claims)))
    ).first()
    return Claim(*found) if found is not None else None


async def renew_lease(session: AsyncSession, claim: Claim, *, until: datetime) -> bool:
    """False when the task is somebody else's by now."""
    return await _change(session, claim, {"lease_until": until})


async def finish_task(session: AsyncSession, claim: Claim, *, message: str, now: datetime) -> bool:
    """The run has succeeded. False when the task is somebody else's by now."""
    row = (
        await session.execute(select(Task.is_wanted_again).where(Task.id == claim.task_id).with_for_update())
    ).first()
    values: dict[str, Any] = {"message": message[:MESSAGE_LENGTH], "finished_at": now, **_RELEASED}
    if row is not None and row[0]:
        values |= {"state": TaskState.QUEUED, "run_at": now, "attempts": 0, "is_wanted_again": False}
    else:
        values |= {"state": TaskState.SUCCEEDED, "dedup_key": None}
    return await _change(session, claim, values)


async def fail_task(session: AsyncSession, claim: Claim, *, message: str, attempts_max: int, now: datetime) -> bool:
    """The run has failed: again later, or never. False when the task is somebody else's by now."""
    values: dict[str, Any] = {"message": message[:MESSAGE_LENGTH], "finished_at": now, **_RELEASED}
    if claim.attempts >= attempts_max:
        values |= {"state": TaskState.FAILED, "dedup_key": None}
    else:
        values |= {"state": TaskState.QUEUED, "run_at": now + backoff(claim.attempts)}
    return await _change(session, claim, values)


async def give_back(session: AsyncSession, claim: Claim, *, now: datetime) -> bool:
    """The process ends before the run does: as if it had never begun."""
    values = {"state": TaskState.QUEUED, "run_at": now, "attempts": claim.attempts - 1, **_RELEASED}
    return await _change(session, claim, values)


async def free_dead(session: AsyncSession, *, now: datetime) -> list[str]:
    """Queue again what a process had that died or slept; the ids."""
    dead = update(Task).where(Task.state == TaskState.RUNNING, Task.lease_until <= now)
    dead = dead.values(state=TaskState.QUEUED, run_at=now, **_RELEASED).returning(Task.id)
    return list((await session.execute(_quietly(dead))).scalars())


async def find_due(
    session: AsyncSession, *, now: datetime, limit: int, due_since: datetime | None = None
) -> Sequence[str]:
    """Ids of tasks that wait for a run, oldest first. `due_since`: only those that have waited that long."""
    statement = select(Task.id).where(Task.state == TaskState.QUEUED, Task.run_at <= (due_since or now))
    return (await session.execute(statement.order_by(Task.run_at).limit(limit))).scalars().all()


async def claim_emissions(session: AsyncSession, *, now: datetime, silent_since: datetime, limit: int) -> Sequence[str]:
    """Ids of due tasks that no message can be under way for (any more); they are marked as emitted now."""
    is_silent = or_(Task.emitted_at.is_(None), Task.emitted_at <= silent_since)
    due = select(Task.id).where(Task.state == TaskState.QUEUED, Task.run_at <= now, is_silent)
    due = due.order_by(Task.run_at).limit(limit).with_for_update(skip_locked=True)
    ids = (await session.execute(due)).scalars().all()
    if ids:
        await session.execute(_quietly(update(Task).where(Task.id.in_(ids)).values(emitted_at=now)))
    return ids


async def has_work(session: AsyncSession, *, now: datetime) -> bool:
    """Whether anything is due or dead; cheap enough to ask all the time."""
    is_due = (Task.state == TaskState.QUEUED) & (Task.run_at <= now)
    is_dead = (Task.state == TaskState.RUNNING) & (Task.lease_until <= now)
    return (await session.execute(select(Task.id).where(or_(is_due, is_dead)).limit(1))).first() is not None


async def forget_finished(session: AsyncSession, *, before: datetime, limit: int) -> int:
    """Remove what succeeded long ago; failures stay until somebody retries them."""
    old = select(Task.id).where(Task.state == TaskState.SUCCEEDED, Task.finished_at < before).limit(limit)
    ids: Collection[str] = (await session.execute(old)).scalars().all()
    for task_id in ids:
        row = await session.get(Task, task_id)
        if row is not None:
            await session.delete(row)
    return len(ids)


async def get_task(session: AsyncSession, task_id: str) -> Task:
    """The task.

    Raises:
        NotFoundError: There is none.
    """
    row = await session.get(Task, task_id, populate_existing=True)
    if row is None:
        raise NotFoundError(f"there is no task {task_id[:80]!r}")
    return row


async def retry_task(session: AsyncSession, task_id: str, *, now: datetime) -> Task:
    """Queue a failed task again, as if it had never run.

    Raises:
        NotFoundError: There is none.
        ConflictError: It did not fail.
    """
    again = update(Task).where(Task.id == task_id, Task.state == TaskState.FAILED)
    again = again.values(state=TaskState.QUEUED, run_at=now, attempts=0, emitted_at=None, finished_at=None)
    result = await session.execute(_quietly(again))
    row = await get_task(session, task_id)
    if not isinstance(result, CursorResult) or result.rowcount != 1:
        raise ConflictError(f"the task is {row.state.value}", hint="Only a failed task can be retried.")
    return row


def backoff(attempts: int) -> timedelta:
    """How long to wait after so many failed runs; up to half of it is added at random."""
    seconds = min(_BACKOFF_MAX_SECONDS, _BACKOFF_FIRST_SECONDS * 2 ** (attempts - 1))
    return timedelta(seconds=seconds * random.uniform(1.0, 1.5))  # noqa: S311 - jitter


_RELEASED: Final[dict[str, Any]] = {"claimed_by": None, "lease_until": None, "emitted_at": None}


async def _change(session: AsyncSession, claim: Claim, values: dict[str, Any]) -> bool:
    mine = (Task.id == claim.task_id, Task.state == TaskState.RUNNING, Task.claims == claim.number)
    result = await session.execute(_quietly(update(Task).where(*mine).values(values)))
    return isinstance(result, CursorResult) and result.rowcount == 1


def _quietly(statement: Any) -> Any:
    return statement.execution_options(synchronize_session=False)
