"""What time does to jobs: expiry, and the deadline of those that a node accepted."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.jobs.holds import waits_through_hold
from controller.jobs.models import Job
from controller.jobs.states import ON_NODE, WAITING, JobState
from controller.jobs.transitions import transition

CLOCK_SKEW: Final = timedelta(seconds=120)
"""A node still takes a job this long after its time (its acceptance rule), so an offered one is given up later."""
DEADLINE_GRACE: Final = timedelta(seconds=120)
"""The node itself ends a job after max_runtime and says so; only its silence for this long is our business."""
BATCH: Final = 200


async def expire_jobs(session: AsyncSession, *, now: datetime) -> list[str]:
    """End as `expired` what was never acknowledged in its time; returns the ids."""
    late = select(Job.id, Job.state).where(
        (Job.state.in_(WAITING) & (Job.expires_at <= now) & ~waits_through_hold())
        | ((Job.state == JobState.OFFERED) & (Job.expires_at <= now - CLOCK_SKEW))
    )
    expired = []
    for job_id, state in (await session.execute(late.limit(BATCH))).all():
        note = "its time ran out before the node had it"
        error = {"error_code": "expired", "error_message": note, "error_hint": "Retry it when the node is connected."}
        if await transition(session, job_id, {state}, JobState.EXPIRED, now=now, note=note, **error):
            expired.append(job_id)
    return expired


async def give_up_overdue(
    session: AsyncSession, connected_since: Mapping[str, datetime], *, now: datetime
) -> list[str]:
    """End as `indeterminate` what a connected node should have answered long ago; returns the ids.

    A node that is away keeps its jobs: their results wait in its spool, and it cannot be given others anyway. Once the
    job's own time is over it is given up too; a result that comes even later still counts.
    """
    running = select(Job.id, Job.node_id, Job.accepted_at, Job.max_runtime_seconds, Job.expires_at)
    oldest = running.where(Job.state.in_(ON_NODE), Job.accepted_at <= now - DEADLINE_GRACE)
    given_up = []
    for job_id, node_id, accepted_at, max_runtime_seconds, expires_at in (await session.execute(oldest)).all():
        allowed = timedelta(seconds=max_runtime_seconds) + DEADLINE_GRACE
        since = max(accepted_at or now, connected_since.get(node_id, expires_at))
        if since + allowed > now:
            continue
        note = "the node did not say how it ended in time"
        error = {"error_code": "deadline", "error_message": note, "error_hint": "Converge again; it is safe."}
        if await transition(session, job_id, ON_NODE, JobState.INDETERMINATE, now=now, note=note, **error):
            given_up.append(job_id)
    return given_up


async def has_late_jobs(session: AsyncSession, *, now: datetime) -> bool:
    """Whether a write transaction is worth it."""
    is_expired = Job.state.in_(WAITING | {JobState.OFFERED}) & (Job.expires_at <= now) & ~waits_through_hold()
    is_quiet = Job.state.in_(ON_NODE) & (Job.accepted_at <= now - DEADLINE_GRACE)
    late = is_expired | is_quiet
    return (await session.execute(select(Job.id).where(late).limit(1))).first() is not None
