"""Jobs as the API and the events show them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.jobs.models import Job
from controller.jobs.states import FINAL, NEEDS_ATTENTION, JobState
from controller.jobs.waiting import find_waits
from shared.protocol.job import JobMode


class JobProgressView(msgspec.Struct, frozen=True, kw_only=True):
    """How far a job is."""

    done: Annotated[int, Meta(description="Steps that are done.")]
    total: Annotated[int, Meta(description="Steps in all; 0 while that is not known.")]
    message: Annotated[str, Meta(description="What is being done.", examples=["write_file /etc/nginx/..."])]


class JobErrorView(msgspec.Struct, frozen=True, kw_only=True):
    """Why a job did not succeed (or why its last attempt did not)."""

    code: str
    message: str
    hint: str | None


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a node was asked to do."""

    id: str
    node_id: str
    account_id: str | None
    label: Annotated[str, Meta(description="What it is about, for people.")]
    action: Annotated[str, Meta(examples=["manifest.converge@1"])]
    resource_key: Annotated[str, Meta(description="Its lane: one job of it at a time.", examples=["account/ada"])]
    generation: Annotated[int, Meta(description="Generation of the manifest; 0 where there is none.")]
    mode: JobMode
    state: JobState
    is_final: Annotated[bool, Meta(description="Nothing more happens to it by itself.")]
    needs_attention: Annotated[bool, Meta(description="It can be retried or discarded.")]
    attempts: Annotated[int, Meta(description="Runs so far, this one included.")]
    seq: Annotated[int | None, Meta(description="Its number on the node; null until it is signed.")]
    progress: JobProgressView
    error: JobErrorView | None
    actor: Annotated[str, Meta(description="kind/ID of who asked.")]
    request_id: Annotated[str, Meta(description="The API request that asked for it.")]
    retry_of: Annotated[str | None, Meta(description="The job that somebody retried with this one.")]
    waits_for: Annotated[
        str, Meta(description="What keeps it from being sent now: a hold of its node, or its lane; empty: nothing.")
    ]
    created_at: datetime
    accepted_at: Annotated[datetime | None, Meta(description="When the node had it in its journal.")]
    finished_at: datetime | None
    expires_at: datetime


class JobPage(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs, newest first."""

    items: tuple[JobView, ...]
    next_cursor: str | None


def render_job(job: Job, waits_for: str = "") -> JobView:
    """The view of a job. `waits_for`: see controller.jobs.waiting."""
    error = (
        JobErrorView(code=job.error_code, message=job.error_message or "", hint=job.error_hint)
        if job.error_code
        else None
    )
    return JobView(
        id=job.id,
        node_id=job.node_id,
        account_id=job.account_id,
        label=job.label,
        action=job.action,
        resource_key=job.resource_key,
        generation=job.generation,
        mode=job.mode,
        state=job.state,
        is_final=job.state in FINAL,
        needs_attention=job.state in NEEDS_ATTENTION,
        attempts=job.attempts,
        seq=job.seq,
        progress=JobProgressView(done=job.progress_done, total=job.progress_total, message=job.progress_message),
        error=error,
        actor=job.actor,
        request_id=job.request_id,
        retry_of=job.retry_of,
        waits_for=waits_for,
        created_at=job.created_at,
        accepted_at=job.accepted_at,
        finished_at=job.finished_at,
        expires_at=job.expires_at,
    )


async def render_jobs(session: AsyncSession, job_ids: Sequence[str]) -> tuple[JobView, ...]:
    """Views of these jobs, in this order; what is gone is left out."""
    rows = {job.id: job for job in await session.scalars(select(Job).where(Job.id.in_(job_ids)))}
    waits = await find_waits(session, list(rows.values()))
    return tuple(render_job(rows[job_id], waits.get(job_id, "")) for job_id in job_ids if job_id in rows)


def render_notice(job: Job) -> dict[str, Any]:
    """What an event says about a job: the view, as JSON values."""
    notice: dict[str, Any] = msgspec.to_builtins(render_job(job))
    return notice
