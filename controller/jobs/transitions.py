"""The only function that moves a job from one state to another."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import CursorResult, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from controller.jobs.models import Job, JobTransition
from controller.jobs.states import TIME_COLUMNS, JobState, is_allowed
from shared.errors import BugError


async def transition(
    session: AsyncSession,
    job_id: str,
    from_states: Collection[JobState],
    to: JobState,
    *,
    now: datetime,
    note: str = "",
    **values: Any,
) -> bool:
    """Move the job if it is in one of these states; False when somebody else was faster.

    Args:
        session: A write transaction.
        job_id: Of the row (not of the delivery).
        from_states: Where it may come from.
        to: Where it goes.
        now: Stamped into the column that belongs to `to`.
        note: For the explanation.
        **values: Further columns of the job to set in the same statement.

    Raises:
        BugError: The machine has no such arrow.
    """
    forbidden = [state.value for state in from_states if not is_allowed(state, to)]
    if forbidden:
        raise BugError(f"a job never goes from {', '.join(sorted(forbidden))} to {to.value}")
    # Locked, so that who comes second sees what the first one did: a node's last word that only lost a race against
    # its own progress report must not be taken for old news.
    held = select(Job.state).where(Job.id == job_id).with_for_update()
    before = (await session.execute(held)).scalar_one_or_none()
    if before is None or before not in from_states:
        return False
    stamp = TIME_COLUMNS.get(to)
    changed = {"state": to, "updated_at": now, **({stamp: now} if stamp else {}), **values}
    statement = update(Job).where(Job.id == job_id, Job.state == before).values(changed)
    result = await session.execute(statement, execution_options={"synchronize_session": False})
    if not isinstance(result, CursorResult) or result.rowcount != 1:
        return False
    row = {"job_id": job_id, "at": now, "from_state": before, "to_state": to, "note": note[:500]}
    await session.execute(insert(JobTransition).values(row))
    return True
