"""What a job waits for now, in one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.jobs.holds import HoldKind, NodeHold, list_holds
from controller.jobs.models import Job
from controller.jobs.states import IN_LANE, UNFINISHED, WAITING, JobState
from shared.protocol.job import ACTION_CONVERGE, ACTION_DRIFT, ACTION_NOOP, JobMode
from shared.specs.manifest import NODE_SUBJECT

_UNHELD: Final = frozenset({ACTION_NOOP, ACTION_DRIFT})


@dataclass(frozen=True, slots=True)
class _Other:
    """What may stand before a job."""

    id: str
    node_id: str
    resource_key: str
    state: JobState
    mode: JobMode
    action: str
    label: str


async def find_waits(session: AsyncSession, jobs: Sequence[Job]) -> Mapping[str, str]:
    """Job id to what it waits for, for those of the jobs that wait for something outside of themselves."""
    waiting = [job for job in jobs if job.state in WAITING]
    if not waiting:
        return {}
    node_ids = {job.node_id for job in waiting}
    holds = [hold for hold in await list_holds(session) if hold.node_id in node_ids]
    unfinished = select(Job.id, Job.node_id, Job.resource_key, Job.state, Job.mode, Job.action, Job.label)
    unfinished = unfinished.where(Job.node_id.in_(node_ids), Job.state.in_(UNFINISHED)).order_by(Job.id).limit(5000)
    others = [_Other(*row) for row in (await session.execute(unfinished)).all()]
    found = {}
    for job in waiting:
        words = _wait_of_hold(job, holds) or _wait_of_lane(job, others)
        if words:
            found[job.id] = words
    return found


def is_of_waiting_kind(job: Job) -> bool:
    """Whether holds of its node concern the job (in SQL: holds.is_held)."""
    return job.mode is JobMode.APPLY and job.action not in _UNHELD and job.released_at is None


def render_hold(hold: NodeHold) -> str:
    """`node in maintenance until ..., by ...: reason`."""
    what = "in maintenance" if hold.kind is HoldKind.MAINTENANCE else "being drained"
    until = "until somebody ends it"
    if hold.kind is HoldKind.MAINTENANCE and hold.until is not None:
        until = f"until {_stamp(hold.until)}"
    return f"node {what} {until}, by {hold.actor_name}: {hold.reason}"


def _wait_of_hold(job: Job, holds: Sequence[NodeHold]) -> str:
    if not is_of_waiting_kind(job):
        return ""
    return "; ".join(render_hold(hold) for hold in holds if hold.node_id == job.node_id)


def _wait_of_lane(job: Job, others: Sequence[_Other]) -> str:
    if job.state is not JobState.REQUESTED:
        return ""
    for other in others:
        if other.id == job.id or other.node_id != job.node_id:
            continue
        is_before = other.state in IN_LANE or other.id < job.id
        if is_before and _blocks(other, job):
            return f"the lane {other.resource_key}: {other.label} ({other.id}) is {other.state.value}"
    return ""


def _blocks(other: _Other, job: Job) -> bool:
    if other.resource_key == job.resource_key:
        return True
    is_of_node = other.resource_key == NODE_SUBJECT and other.mode is JobMode.APPLY
    return job.action == ACTION_CONVERGE and is_of_node and other.id < job.id


def _stamp(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M UTC")
