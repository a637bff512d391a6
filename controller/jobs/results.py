"""The node's final word: stored once, however often it arrives."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
import structlog
from sqlalchemy import exists, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from controller.db.base import new_id
from controller.jobs.models import Job, NodeInbox
from controller.jobs.offers import find_by_delivery
from controller.jobs.ports import DriftObserver, RefusalObserver, ResultObserver, UpdateObserver
from controller.jobs.states import IN_LANE, PRESUMED, UNFINISHED, JobState, sources_of
from controller.jobs.transitions import transition
from shared.protocol.frames import Event
from shared.protocol.job import JobMode, JobResult, Semantics
from shared.protocol.job import JobState as NodeJobState

ATTEMPTS_MAX: Final = 3
RETRY_DELAYS: Final = (timedelta(seconds=2), timedelta(seconds=10))
"""Before the second and the third attempt; up to half of it is added at random."""
RETRYABLE_CODES: Final = frozenset({"unavailable", "fact_unreadable"})
"""Codes of errors whose class says is_retryable (shared/errors.py) and that a node can answer with."""

FINAL_OF_NODE: Final = {
    NodeJobState.SUCCEEDED: JobState.SUCCEEDED,
    NodeJobState.FAILED: JobState.FAILED,
    NodeJobState.CANCELLED: JobState.CANCELLED,
    NodeJobState.REFUSED: JobState.REFUSED,
    NodeJobState.INDETERMINATE: JobState.INDETERMINATE,
}
_log = structlog.get_logger("controller.jobs")


@dataclass(slots=True)
class Observers:
    """Who wants to know; filled by bootstrap before the engine starts."""

    results: list[ResultObserver] = field(default_factory=list)
    drifts: list[DriftObserver] = field(default_factory=list)
    updates: list[UpdateObserver] = field(default_factory=list)
    refusals: list[RefusalObserver] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Recorded:
    """What an event changed."""

    job_ids: tuple[str, ...] = ()
    is_retried: bool = False


async def read_inbox(session: AsyncSession, node_id: str, journal_epoch: str, event_head: int) -> int:
    """Number up to which the node's events are committed; starts over when the node's journal or spool did.

    Args:
        session: A write transaction.
        node_id: The node.
        journal_epoch: Of its hello.
        event_head: Newest event in its spool: fewer than we have seen means that the spool is a new one.
    """
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    first = insert(NodeInbox).values(id=node_id, journal_epoch=journal_epoch, last_number=0)
    await session.execute(first.on_conflict_do_nothing(index_elements=["id"]))
    inbox = await _lock_inbox(session, node_id)
    if inbox.journal_epoch != journal_epoch or event_head < inbox.last_number:
        inbox.journal_epoch, inbox.last_number = journal_epoch, 0
    return inbox.last_number


async def record_event(
    session: AsyncSession, node_id: str, event: Event, *, observers: Observers, now: datetime
) -> Recorded:
    """Store one event. A result that was stored before changes nothing, and neither does one of another node's job."""
    inbox = await _lock_inbox(session, node_id)
    is_new = event.number > inbox.last_number
    recorded = Recorded()
    if event.result is not None:
        # By the job's state, not by the number: an agent whose spool was lost counts from the beginning again.
        recorded = await _record_result(session, node_id, event.result, observers, now)
    elif event.drift is not None and is_new:
        for drift_observer in observers.drifts:
            await drift_observer(session, node_id, event.drift)
    elif event.update is not None:
        for update_observer in observers.updates:
            await update_observer(session, node_id, event.update)
    inbox.last_number = max(inbox.last_number, event.number)
    await session.flush()
    return recorded


async def _lock_inbox(session: AsyncSession, node_id: str) -> NodeInbox:
    statement = select(NodeInbox).where(NodeInbox.id == node_id).with_for_update()
    return (await session.execute(statement.execution_options(populate_existing=True))).scalar_one()


async def _record_result(
    session: AsyncSession, node_id: str, result: JobResult, observers: Observers, now: datetime
) -> Recorded:
    job = await find_by_delivery(session, node_id, result.job_id)
    to = FINAL_OF_NODE.get(result.state)
    if job is None or to is None:
        _log.warning("job.result_ignored", node_id=node_id, delivery_id=result.job_id, state=result.state.value)
        return Recorded()
    if to is JobState.FAILED and await _may_retry(session, job, result):
        is_retried = await _try_again(session, job, result, now)
        return Recorded((job.id,) if is_retried else (), is_retried=is_retried)
    values = columns_of(result)
    moved = await transition(session, job.id, sources_of(to) & (IN_LANE | PRESUMED), to, now=now, **values)
    if not moved:
        return Recorded()
    if job.mode is JobMode.APPLY:
        await session.refresh(job)
        await _tell_observers(session, job, result, observers.results)
    return Recorded((job.id,))


def columns_of(result: JobResult) -> dict[str, Any]:
    error = result.error
    return {
        "result": msgspec.msgpack.encode(result),
        "error_code": error.code[:64] if error else None,
        "error_message": error.message if error else None,
        "error_hint": error.hint if error else None,
        "note": f"the node says: {error.message}" if error else "",
    }


async def _tell_observers(
    session: AsyncSession, job: Job, result: JobResult, observers: Sequence[ResultObserver]
) -> None:
    """A boundary: an observer's mistake must not make the node send this result for ever."""
    job_id, node_id = job.id, job.node_id
    for observer in observers:
        try:
            async with session.begin_nested():
                await observer(session, job, result)
        except Exception:  # noqa: BLE001 - the job wrapper's boundary; the error is logged whole
            _log.exception("job.observer_failed", job_id=job_id, node_id=node_id)
            await session.refresh(job)  # the rolled back savepoint has forgotten it


async def _may_retry(session: AsyncSession, job: Job, result: JobResult) -> bool:
    """Only what is safe to do again, might go better then, and is still wanted."""
    code = result.error.code if result.error else ""
    is_worth_it = code in RETRYABLE_CODES and job.attempts < ATTEMPTS_MAX and job.cancel_requested_at is None
    if not is_worth_it or job.mode is not JobMode.APPLY or job.semantics is not Semantics.CONVERGE:
        return False
    newer = select(
        exists().where(
            Job.node_id == job.node_id,
            Job.resource_key == job.resource_key,
            Job.action == job.action,
            Job.mode == JobMode.APPLY,
            Job.id > job.id,
            Job.state.in_(UNFINISHED),
        )
    )
    return not (await session.execute(newer)).scalar_one()


async def _try_again(session: AsyncSession, job: Job, result: JobResult, now: datetime) -> bool:
    delay = RETRY_DELAYS[min(job.attempts, len(RETRY_DELAYS)) - 1] * random.uniform(1.0, 1.5)  # noqa: S311 - jitter
    columns = columns_of(result)
    columns["note"] = f"attempt {job.attempts} failed: {columns['error_message']}; trying again"
    return await transition(
        session,
        job.id,
        {JobState.OFFERED, JobState.ACCEPTED, JobState.RUNNING},
        JobState.REQUESTED,
        now=now,
        **columns,
        attempts=job.attempts + 1,
        delivery_id=new_id(),
        deliveries=0,
        offer_epoch=None,
        seq=None,
        payload=None,
        signatures=None,
        not_before=now + delay,
    )
