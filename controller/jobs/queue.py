"""Asking for a job: one row in the caller's own transaction, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.db.base import new_id
from controller.db.prepared import Driver, Prepared, param
from controller.jobs.models import Job, JobTransition
from controller.jobs.rows import Arrow, add_arrows
from controller.jobs.states import WAITING, JobState
from controller.jobs.transitions import transition
from shared.errors import InvalidInputError
from shared.protocol.envelope import MAX_PAYLOAD_BYTES
from shared.protocol.job import ACTION_CONVERGE, JobMode, Semantics

MAX_ARGS_BYTES: Final = MAX_PAYLOAD_BYTES - 16 * 1024
"""The rest of a job's payload is far smaller than what is left for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """What is asked of one node."""

    node_id: str
    action: str
    args: bytes
    resource_key: str
    """The lane, for example `account/alice` or `node`."""
    generation: int = 0
    """Of the manifest in `args`; 0 where the action has none."""
    mode: JobMode = JobMode.APPLY
    semantics: Semantics = Semantics.CONVERGE
    actor: str
    """`user/ID`, `token/ID` or `system/controller`."""
    request_id: str
    label: str = ""
    account_id: str | None = None
    max_runtime_seconds: int = 300
    ttl_seconds: int = 86_400
    """How long it may wait for its node."""


async def request_job(session: AsyncSession, request: JobRequest, *, now: datetime, retry_of: str | None = None) -> str:
    """Add the job in state `requested` and return its id. The caller commits, then calls `JobEngine.notify()`.

    A converge replaces the earlier ones of its subject that no node can know of yet: they end as `superseded`.

    Raises:
        InvalidInputError: The arguments do not fit into one signed job.
    """
    if len(request.args) > MAX_ARGS_BYTES:
        raise InvalidInputError(f"a job of {len(request.args)} bytes is too large", hint="Split the account.")
    if request.action == ACTION_CONVERGE and request.mode is JobMode.APPLY:
        await _supersede_older(session, request, now=now)
    job_id = new_id()
    job = Job(
        id=job_id,
        delivery_id=job_id,
        node_id=request.node_id,
        account_id=request.account_id,
        action=request.action,
        args=request.args,
        resource_key=request.resource_key,
        generation=request.generation,
        mode=request.mode,
        semantics=request.semantics,
        label=(request.label or f"{request.action} {request.resource_key}")[:200],
        actor=request.actor,
        request_id=request.request_id,
        state=JobState.REQUESTED,
        created_at=now,
        updated_at=now,
        not_before=now,
        expires_at=now + timedelta(seconds=request.ttl_seconds),
        max_runtime_seconds=request.max_runtime_seconds,
        retry_of=retry_of,
    )
    session.add(job)
    await session.flush()
    session.add(JobTransition(job_id=job_id, at=now, from_state=None, to_state=JobState.REQUESTED, note=""))
    await session.flush()
    return job_id


_OF_REQUEST: Final = (
    "node_id",
    "account_id",
    "action",
    "args",
    "resource_key",
    "generation",
    "mode",
    "semantics",
    "actor",
    "request_id",
    "max_runtime_seconds",
)
_TIMES: Final = ("created_at", "updated_at", "not_before")
_ZEROS: Final = ("deliveries", "progress_done", "progress_total")
_OTHERS: Final = ("id", "delivery_id", "label", "state", "expires_at", "attempts", "progress_message")
_ADD_JOB: Final = Prepared(
    insert(Job).values({name: param(name) for name in (*_OF_REQUEST, *_TIMES, *_ZEROS, *_OTHERS)})
)


async def request_plain_jobs(driver: Driver, requests: Sequence[JobRequest], *, now: datetime) -> list[str]:
    """Many jobs at once that replace no others (pings); as `request_job` otherwise."""
    rows = [
        {
            **{name: getattr(request, name) for name in _OF_REQUEST},
            "id": (job_id := new_id()),
            "delivery_id": job_id,
            "label": (request.label or f"{request.action} {request.resource_key}")[:200],
            "expires_at": now + timedelta(seconds=request.ttl_seconds),
        }
        for request in requests
    ]
    common = {**dict.fromkeys(_TIMES, now), **dict.fromkeys(_ZEROS, 0), "attempts": 1, "progress_message": ""}
    await _ADD_JOB.run_many(driver, rows, state=JobState.REQUESTED, **common)
    ids = [str(row["id"]) for row in rows]
    await add_arrows(driver, [Arrow(job_id, None, JobState.REQUESTED) for job_id in ids], now=now)
    return ids


async def _supersede_older(session: AsyncSession, request: JobRequest, *, now: datetime) -> None:
    older = select(Job.id).where(
        Job.node_id == request.node_id,
        Job.resource_key == request.resource_key,
        Job.action == ACTION_CONVERGE,
        Job.mode == JobMode.APPLY,
        Job.generation <= request.generation,
        Job.state.in_(WAITING),
    )
    note = f"replaced by generation {request.generation}"
    for job_id in (await session.execute(older)).scalars().all():
        await transition(session, job_id, WAITING, JobState.SUPERSEDED, now=now, note=note)
