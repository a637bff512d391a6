"""Nodes that get no work for a while: their jobs wait, unsigned or unsent, until the hold ends."""

from __future__ import annotations

import enum
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, String, UniqueConstraint, and_, exists, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from controller.db.base import Model
from controller.jobs.models import Job, by_value
from controller.jobs.states import ON_NODE, WAITING, JobState
from controller.jobs.transitions import transition
from shared.protocol.job import ACTION_DRIFT, ACTION_NOOP, JobMode

ROOM_AFTER_HOLD: Final = timedelta(hours=1)
"""What waited through a hold has at least this long to reach its node afterwards."""


class HoldKind(enum.Enum):
    """Why a node gets no work."""

    MAINTENANCE = "maintenance"
    DRAIN = "drain"


class NodeHold(Model):
    """One reason for which a node gets no work. Gone when it ends; the audit log keeps its story."""

    __tablename__ = "node_holds"
    __table_args__ = (UniqueConstraint("node_id", "kind"),)

    node_id: Mapped[str] = mapped_column(String(36), index=True)
    kind: Mapped[HoldKind] = mapped_column(by_value(HoldKind))
    reason: Mapped[str] = mapped_column(String(500))
    actor: Mapped[str] = mapped_column(String(120))
    """kind/ID of who asked for it."""
    actor_name: Mapped[str] = mapped_column(String(200))
    since: Mapped[datetime]
    until: Mapped[datetime | None]
    """Maintenance: when it ends by itself. Drain: when work that still runs is told of, or cancelled."""
    is_cancelling: Mapped[bool] = mapped_column(default=False)
    """Drain: cancel at `until` what still runs."""
    is_overdue: Mapped[bool] = mapped_column(default=False)
    """Drain: `until` has passed, and somebody was told."""
    settled_at: Mapped[datetime | None]
    """Drain: since when nothing runs on the node any more."""
    was_cordoned: Mapped[bool] = mapped_column(default=False)
    """Drain: how placement saw the node before."""


def is_held(job: Any = Job) -> ColumnElement[bool]:
    """Condition: this job (the table, or an alias of it) must wait.

    What changes nothing on the node (dry runs, pings, drift checks) never waits, and neither does what somebody let
    through.
    """
    is_waiting_kind = and_(
        job.mode == JobMode.APPLY, job.action.not_in((ACTION_NOOP, ACTION_DRIFT)), job.released_at.is_(None)
    )
    return and_(is_waiting_kind, exists().where(NodeHold.node_id == job.node_id).correlate(job))


async def list_holds(session: AsyncSession, node_id: str | None = None) -> list[NodeHold]:
    """Holds of one node or of all, the older first."""
    statement = select(NodeHold).order_by(NodeHold.since, NodeHold.id)
    statement = statement if node_id is None else statement.where(NodeHold.node_id == node_id)
    return list(await session.scalars(statement.execution_options(populate_existing=True)))


async def find_hold(session: AsyncSession, node_id: str, kind: HoldKind) -> NodeHold | None:
    """The node's hold of this kind."""
    return next((hold for hold in await list_holds(session, node_id) if hold.kind is kind), None)


async def held_node_ids(session: AsyncSession) -> frozenset[str]:
    """Nodes that get no work now."""
    return frozenset(await session.scalars(select(NodeHold.node_id).distinct()))


async def count_active(session: AsyncSession, node_id: str) -> int:
    """Jobs that change the node and are on their way to it, or at work there."""
    statement = (
        select(func.count())
        .select_from(Job)
        .where(Job.node_id == node_id, Job.mode == JobMode.APPLY, Job.state.in_(ON_NODE | {JobState.OFFERED}))
    )
    return (await session.execute(statement)).scalar_one()


async def free_waiting(session: AsyncSession, node_id: str, *, now: datetime) -> list[str]:
    """After a node's last hold: give what waited its time back. Returns jobs that were signed too long ago to be sent.

    The time in a signature cannot be changed, so those end as `expired`; the caller asks for the same again.
    """
    is_waiting = and_(Job.node_id == node_id, Job.expires_at < now + ROOM_AFTER_HOLD)
    unsigned = update(Job).where(is_waiting, Job.state == JobState.REQUESTED)
    unsigned = unsigned.values(expires_at=now + ROOM_AFTER_HOLD, updated_at=now)
    await session.execute(unsigned.execution_options(synchronize_session=False))
    signed = select(Job.id).where(Job.node_id == node_id, Job.state == JobState.QUEUED, Job.expires_at <= now)
    note = "its time ran out while the node was held; asked for anew"
    source, to = {JobState.QUEUED}, JobState.EXPIRED
    ids = (await session.scalars(signed)).all()
    return [job_id for job_id in ids if await transition(session, job_id, source, to, now=now, note=note)]


async def release_job(session: AsyncSession, job_id: str, *, now: datetime) -> bool:
    """Let one waiting job through the node's holds; False when it does not wait."""
    statement = update(Job).where(Job.id == job_id, Job.state.in_(WAITING), is_held())
    statement = statement.values(released_at=now, updated_at=now).returning(Job.id)
    statement = statement.execution_options(synchronize_session=False)
    return (await session.execute(statement)).scalar_one_or_none() is not None


def waits_through_hold() -> ColumnElement[bool]:
    """Condition for the sweeper: its time does not run while the node is held."""
    return or_(Job.state == JobState.REQUESTED, Job.state == JobState.QUEUED) & is_held()
