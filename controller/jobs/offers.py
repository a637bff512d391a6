"""What a gateway does with the jobs of its own nodes: fetch what to send, note what the node says about it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import msgspec
from sqlalchemy import and_, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from controller.jobs.models import Job
from controller.jobs.states import FINAL, ON_NODE, PRESUMED, JobState
from controller.jobs.transitions import transition
from shared.protocol.envelope import JOB_TYPE, Envelope, Signature
from shared.protocol.frames import AckJob, Progress
from shared.protocol.job import JobState as NodeJobState

UNACKED_MAX: Final = 32
"""Jobs on their way to one node at a time."""
OFFER_AGAIN_AFTER: Final = timedelta(seconds=30)
DELIVERIES_MAX: Final = 5
_CANCELLABLE: Final = frozenset({JobState.OFFERED}) | ON_NODE


@dataclass(frozen=True, slots=True)
class Offer:
    """A signed job, ready to be sent."""

    job_id: str
    delivery_id: str
    seq: int
    envelope: Envelope


async def find_nodes_with_work(session: AsyncSession, node_ids: Collection[str], *, now: datetime) -> set[str]:
    """Those of the nodes that have a job to be sent, sent again, or cancelled."""
    is_overdue = and_(Job.state == JobState.OFFERED, Job.offered_at <= now - OFFER_AGAIN_AFTER)
    is_unwanted = and_(Job.state.in_(_CANCELLABLE), Job.cancel_requested_at.is_not(None), Job.cancel_epoch.is_(None))
    statement = (
        select(Job.node_id)
        .where(Job.node_id.in_(node_ids), or_(Job.state == JobState.QUEUED, is_overdue, is_unwanted))
        .distinct()
    )
    return set((await session.execute(statement)).scalars())


async def claim_offers(session: AsyncSession, *, node_id: str, session_epoch: int, now: datetime) -> list[Offer]:
    """Move what this session may send to `offered` and return it in the order of the numbers.

    What an earlier session sent, or this one long ago, without an acknowledgement is sent again; after DELIVERIES_MAX
    times the job is `stuck`.
    """
    is_on_its_way = and_(
        Job.state == JobState.OFFERED, Job.offer_epoch == session_epoch, Job.offered_at > now - OFFER_AGAIN_AFTER
    )
    counted = select(func.count()).select_from(Job).where(Job.node_id == node_id, is_on_its_way)
    room = UNACKED_MAX - (await session.execute(counted)).scalar_one()
    if room <= 0:
        return []
    statement = (
        select(Job)
        .where(
            Job.node_id == node_id,
            Job.expires_at > now,
            or_(Job.state == JobState.QUEUED, and_(Job.state == JobState.OFFERED, ~is_on_its_way)),
        )
        .order_by(Job.seq)
        .limit(room)
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    )
    offers = [await _offer(session, job, session_epoch, now) for job in (await session.execute(statement)).scalars()]
    return [offer for offer in offers if offer is not None]


async def _offer(session: AsyncSession, job: Job, session_epoch: int, now: datetime) -> Offer | None:
    if job.payload is None or job.signatures is None or job.seq is None:
        return None
    if job.deliveries >= DELIVERIES_MAX:
        message = f"sent {job.deliveries} times and never acknowledged"
        error = {"error_code": "stuck", "error_message": message, "error_hint": "Look at the node's agent, then retry."}
        await transition(session, job.id, {JobState.OFFERED}, JobState.STUCK, now=now, note=message, **error)
        return None
    count = job.deliveries + 1
    moved = await transition(
        session,
        job.id,
        {job.state},
        JobState.OFFERED,
        now=now,
        note="sent" if count == 1 else f"sent again, {count} times now",
        deliveries=count,
        offer_epoch=session_epoch,
    )
    if not moved:
        return None
    signatures = msgspec.msgpack.decode(job.signatures, type=tuple[Signature, ...])
    return Offer(job.id, job.delivery_id, job.seq, Envelope(JOB_TYPE, job.payload, signatures))


async def claim_cancels(session: AsyncSession, *, node_id: str, session_epoch: int) -> list[str]:
    """Delivery ids that the node shall be asked to cancel, each once per session."""
    statement = (
        update(Job)
        .where(
            Job.node_id == node_id,
            Job.state.in_(_CANCELLABLE),
            Job.cancel_requested_at.is_not(None),
            or_(Job.cancel_epoch.is_(None), Job.cancel_epoch != session_epoch),
        )
        .values(cancel_epoch=session_epoch)
        .returning(Job.delivery_id)
        .execution_options(synchronize_session=False)
    )
    return list((await session.execute(statement)).scalars())


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


async def has_unacked_of_others(session: AsyncSession, node_id: str, session_epoch: int) -> bool:
    """Whether an earlier session of the node left something unacknowledged, or unsaid about a cancellation."""
    is_unacked = and_(Job.state == JobState.OFFERED, Job.offer_epoch != session_epoch)
    is_unwanted = and_(
        Job.state.in_(_CANCELLABLE), Job.cancel_requested_at.is_not(None), Job.cancel_epoch != session_epoch
    )
    statement = select(Job.id).where(Job.node_id == node_id, or_(is_unacked, is_unwanted)).limit(1)
    return (await session.execute(statement)).first() is not None
