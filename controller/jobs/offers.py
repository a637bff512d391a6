"""What a gateway notes of the jobs of its own nodes, one word after the other; see delivery and intake for many."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import and_, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from controller.jobs.delivery import CANCELLABLE, OFFER_AGAIN_AFTER
from controller.jobs.holds import is_held
from controller.jobs.models import Job
from controller.jobs.signatures import TRUST_CODES, keep_for_trust
from controller.jobs.states import FINAL, ON_NODE, PRESUMED, JobState
from controller.jobs.transitions import transition
from shared.protocol.frames import AckJob, Progress
from shared.protocol.job import JobState as NodeJobState


async def find_nodes_with_work(session: AsyncSession, node_ids: Collection[str], *, now: datetime) -> set[str]:
    """Those of the nodes that have a job to be sent, sent again, or cancelled."""
    is_overdue = and_(Job.state == JobState.OFFERED, Job.offered_at <= now - OFFER_AGAIN_AFTER)
    is_unwanted = and_(Job.state.in_(CANCELLABLE), Job.cancel_requested_at.is_not(None), Job.cancel_epoch.is_(None))
    statement = (
        select(Job.node_id)
        .where(Job.node_id.in_(node_ids), or_(and_(Job.state == JobState.QUEUED, ~is_held()), is_overdue, is_unwanted))
        .distinct()
    )
    return set((await session.execute(statement)).scalars())


async def find_by_delivery(session: AsyncSession, node_id: str, delivery_id: str) -> Job | None:
    """The job that a node means; None for one that is not its own, whatever it says."""
    statement = select(Job).where(Job.delivery_id == delivery_id, Job.node_id == node_id)
    return (await session.execute(statement.execution_options(populate_existing=True))).scalar_one_or_none()


async def record_ack(session: AsyncSession, node_id: str, ack: AckJob, *, now: datetime) -> Job | None:
    """The node has the job in its journal, or refuses it. Returns the job if its state changed."""
    job = await find_by_delivery(session, node_id, ack.job_id)
    if job is None or job.state in FINAL - PRESUMED:
        return None
    if ack.state is NodeJobState.REFUSED:
        return job if await _refuse(session, job, ack, now) else None
    sources = {JobState.OFFERED, JobState.EXPIRED, JobState.STUCK}
    is_changed = await transition(session, job.id, sources, JobState.ACCEPTED, now=now, note="in the node's journal")
    if ack.state is NodeJobState.STARTED:
        is_changed |= await transition(session, job.id, {JobState.ACCEPTED}, JobState.RUNNING, now=now)
    return job if is_changed else None


async def _refuse(session: AsyncSession, job: Job, ack: AckJob, now: datetime) -> bool:
    error = ack.error
    if error is not None and error.code in TRUST_CODES:
        await keep_for_trust(session, job, error, now=now)
        return False
    values = {
        "error_code": error.code if error else "refused",
        "error_message": error.message if error else "the node refused the job",
        "error_hint": error.hint if error else None,
    }
    sources = {JobState.OFFERED, JobState.ACCEPTED, JobState.RUNNING, JobState.EXPIRED, JobState.STUCK}
    note = f"the node refused: {values['error_message']}"
    return await transition(session, job.id, sources, JobState.REFUSED, now=now, note=note, **values)


async def record_progress(session: AsyncSession, node_id: str, frame: Progress, *, now: datetime) -> str | None:
    """The latest progress of a job on the node; returns the job's id, None when it is not there any more."""
    job = await find_by_delivery(session, node_id, frame.job_id)
    if job is None or job.state not in ON_NODE | {JobState.OFFERED}:
        return None
    await transition(session, job.id, {JobState.OFFERED}, JobState.ACCEPTED, now=now)
    await transition(session, job.id, {JobState.ACCEPTED}, JobState.RUNNING, now=now)
    values = {
        "progress_done": max(0, frame.done),
        "progress_total": max(0, frame.total),
        "progress_message": frame.message[:300],
        "updated_at": now,
    }
    statement = update(Job).where(Job.id == job.id).values(values).execution_options(synchronize_session=False)
    await session.execute(statement)
    return job.id
