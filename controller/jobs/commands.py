"""What people do to jobs: cancel, retry, discard. Each runs in the caller's transaction."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import exists, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from controller.jobs.models import Job
from controller.jobs.queue import JobRequest, request_job
from controller.jobs.states import NEEDS_ATTENTION, ON_NODE, WAITING, JobState
from controller.jobs.transitions import transition
from shared.errors import ConflictError, NotFoundError, StaleGenerationError
from shared.protocol.job import ACTION_CONVERGE, JobMode, Semantics

_RETRYABLE: Final = NEEDS_ATTENTION | {JobState.CANCELLED}


async def get_job(session: AsyncSession, job_id: str) -> Job:
    """The job as it is now.

    Raises:
        NotFoundError: There is no such job.
    """
    statement = select(Job).where(Job.id == job_id).execution_options(populate_existing=True)
    job = (await session.execute(statement)).scalar_one_or_none()
    if job is None:
        raise NotFoundError(f"there is no job {job_id[:80]!r}")
    return job


async def cancel_job(session: AsyncSession, job_id: str, *, now: datetime) -> Job:
    """Cancel at once what no node knows of; else ask the node, whose answer decides (`cancelled`, or the real result).

    Raises:
        NotFoundError: There is no such job.
        ConflictError: It has ended.
    """
    job = await get_job(session, job_id)
    if await transition(session, job_id, WAITING, JobState.CANCELLED, now=now, note="cancelled before it was sent"):
        return await get_job(session, job_id)
    asked = update(Job).where(Job.id == job_id, Job.state.in_({JobState.OFFERED} | ON_NODE))
    asked = asked.values(cancel_requested_at=now, cancel_epoch=None).returning(Job.id)
    asked = asked.execution_options(synchronize_session=False)
    if (await session.execute(asked)).scalar_one_or_none() is None:
        raise ConflictError(f"the job has ended: it is {job.state.value}")
    return await get_job(session, job_id)


async def retry_job(session: AsyncSession, job_id: str, *, actor: str, request_id: str, now: datetime) -> str:
    """Ask for the same thing again, as a job of its own; returns its id.

    Raises:
        NotFoundError: There is no such job.
        ConflictError: It did not fail.
        StaleGenerationError: A newer change of the same subject replaced it.
    """
    job = await get_job(session, job_id)
    if job.state is JobState.INDETERMINATE and job.semantics is Semantics.ONCE:
        raise ConflictError(
            "nobody can say whether it was done, and it must not be done twice",
            code="needs_decision",
            hint="Find out, then: wcp360 jobs decide JOB --decision done (or again) --note WORDS",
        )
    return await _ask_again(session, job, actor=actor, request_id=request_id, now=now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A person's word about a job of which nobody can say how it ended."""

    is_done: bool
    """False: it is to be done again."""
    note: str
    actor: str
    actor_name: str
    request_id: str


async def decide_job(session: AsyncSession, job_id: str, decision: Decision, *, now: datetime) -> str | None:
    """Close an indeterminate job as the decision says. Returns the id of the job that does it again, if one shall.

    Raises:
        NotFoundError: There is no such job.
        ConflictError: It is known how it ended.
    """
    job = await get_job(session, job_id)
    if job.state is not JobState.INDETERMINATE:
        raise ConflictError(f"the job is {job.state.value}", hint="Only a job that is indeterminate needs a decision.")
    new_id = None
    if not decision.is_done:
        asker = {"actor": decision.actor, "request_id": decision.request_id}
        new_id = await _ask_again(session, job, **asker, now=now)
    said = "it was done" if decision.is_done else "it is to be done again"
    words = f"{decision.actor_name} decided that {said}: {decision.note}"
    await transition(session, job_id, {JobState.INDETERMINATE}, JobState.DISCARDED, now=now, note=words)
    return new_id


async def _ask_again(session: AsyncSession, job: Job, *, actor: str, request_id: str, now: datetime) -> str:
    if job.state not in _RETRYABLE:
        raise ConflictError(
            f"the job is {job.state.value}", hint="Only a job that failed or was cancelled can be retried."
        )
    if job.action == ACTION_CONVERGE and await _has_newer(session, job):
        raise StaleGenerationError(
            f"{job.resource_key} has changed since", hint="Converge it instead: that applies its newest state."
        )
    request = JobRequest(
        node_id=job.node_id,
        action=job.action,
        args=job.args,
        resource_key=job.resource_key,
        generation=job.generation,
        mode=job.mode,
        semantics=job.semantics,
        actor=actor,
        request_id=request_id,
        label=job.label,
        account_id=job.account_id,
        max_runtime_seconds=job.max_runtime_seconds,
    )
    return await request_job(session, request, now=now, retry_of=job.id)


async def discard_job(session: AsyncSession, job_id: str, *, now: datetime) -> Job:
    """Put a failed job aside: nobody needs to look at it any more.

    Raises:
        NotFoundError: There is no such job.
        ConflictError: It did not fail.
    """
    job = await get_job(session, job_id)
    note = f"put aside; it was {job.state.value}"
    if not await transition(session, job_id, NEEDS_ATTENTION, JobState.DISCARDED, now=now, note=note):
        raise ConflictError(f"the job is {job.state.value}", hint="Only a job that failed can be discarded.")
    return await get_job(session, job_id)


async def release_node_jobs(session: AsyncSession, node_id: str, *, note: str, now: datetime) -> list[str]:
    """End everything that is not finished on a node that will not answer any more; returns the ids."""
    unfinished = select(Job.id).where(Job.node_id == node_id, Job.state.in_(WAITING | ON_NODE | {JobState.OFFERED}))
    ids = list((await session.execute(unfinished)).scalars())
    for job_id in ids:
        await transition(session, job_id, WAITING, JobState.DISCARDED, now=now, note=note)
        await transition(session, job_id, ON_NODE | {JobState.OFFERED}, JobState.INDETERMINATE, now=now, note=note)
    return ids


async def _has_newer(session: AsyncSession, job: Job) -> bool:
    newer = select(
        exists().where(
            Job.node_id == job.node_id,
            Job.resource_key == job.resource_key,
            Job.action == ACTION_CONVERGE,
            Job.mode == JobMode.APPLY,
            Job.generation > job.generation,
        )
    )
    return (await session.execute(newer)).scalar_one()
