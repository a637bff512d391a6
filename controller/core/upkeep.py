"""What time does to held nodes and to judgements about them. Called by schedules, so once in the whole controller."""

from __future__ import annotations

from datetime import datetime

import structlog
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.context import SYSTEM
from controller.core.operations import FleetContext, Operations
from controller.db.engine import Database
from controller.fleet.nodes.maintenance import Maintenance
from controller.fleet.ports import Publisher, Reconverge
from controller.jobs.commands import cancel_job
from controller.jobs.holds import HoldKind, NodeHold, count_active, list_holds
from controller.jobs.models import Job
from controller.jobs.states import ON_NODE, JobState
from shared.errors import ConflictError, FleetError
from shared.protocol.job import JobMode, JobResult

UPKEEP_SECONDS = 15.0
_REQUEST_ID = "schedule/nodes.upkeep"
_log = structlog.get_logger("controller.upkeep")


class Upkeep:
    """Ends maintenance when its time is over, and follows drains to their end."""

    def __init__(
        self,
        database: Database,
        operations: Operations,
        maintenance: Maintenance,
        publisher: Publisher,
        reconverge: Reconverge,
    ) -> None:
        self._database = database
        self._operations = operations
        self._maintenance = maintenance
        self._publisher = publisher
        self._reconverge = reconverge

    async def run(self) -> str | None:
        """One round; safe to run again."""
        async with self._database.read() as session:
            holds = await list_holds(session)
        done = [words for hold in holds if (words := await self._look_after(hold))]
        return "; ".join(done) or None

    async def _look_after(self, hold: NodeHold) -> str:
        try:
            if hold.kind is HoldKind.MAINTENANCE:
                return await self._end_if_over(hold)
            return await self._follow(hold)
        except FleetError as error:
            _log.warning("upkeep.failed", node_id=hold.node_id, kind=hold.kind.value, error=str(error))
            return ""

    async def _end_if_over(self, hold: NodeHold) -> str:
        if hold.until is None:
            return ""

        async def use_case(ctx: FleetContext) -> bool:
            current = await ctx.session.get(NodeHold, hold.id, populate_existing=True)
            if current is None or current.until is None or current.until > ctx.now:
                return False  # somebody ended or prolonged it meanwhile
            ctx.job_ids.extend(await self._maintenance.end(ctx, hold.node_id))
            return True

        if (await self._operations.change(SYSTEM, _REQUEST_ID, use_case)).resource:
            await self._reconverge(hold.node_id, False)  # noqa: FBT003 - positional by contract
            return f"maintenance of {hold.node_id} has ended"
        return ""

    async def _follow(self, hold: NodeHold) -> str:
        cancelled: list[str] = []

        async def use_case(ctx: FleetContext) -> str:
            current = await ctx.session.get(NodeHold, hold.id, populate_existing=True)
            if current is None:
                return ""
            if await settle_drain(ctx.session, current, ctx.now):
                return "node.drained"
            is_late = current.settled_at is None and current.until is not None and current.until <= ctx.now
            if not is_late or current.is_overdue:
                return ""
            current.is_overdue = True
            if current.is_cancelling:
                cancelled.extend(await _cancel_active(ctx))
            return "node.drain_overdue"

        async def _cancel_active(ctx: FleetContext) -> list[str]:
            active = select(Job.id).where(Job.node_id == hold.node_id, Job.mode == JobMode.APPLY)
            active = active.where(Job.state.in_(ON_NODE | {JobState.OFFERED}))
            ids = list(await ctx.session.scalars(active))
            for job_id in ids:
                try:
                    await cancel_job(ctx.session, job_id, now=ctx.now)
                except ConflictError:
                    continue
            return ids

        words = (await self._operations.change(SYSTEM, _REQUEST_ID, use_case)).resource
        if words:
            data = {"id": hold.node_id, "reason": hold.reason, "cancelled": cancelled}
            self._publisher.publish("nodes", words, data)
        return f"{words} {hold.node_id}" if words else ""


async def settle_drain(session: AsyncSession, hold: NodeHold, now: datetime) -> bool:
    """Note that nothing runs on the node any more; True when that is news."""
    if hold.kind is not HoldKind.DRAIN or hold.settled_at is not None or await count_active(session, hold.node_id):
        return False
    hold.settled_at = now
    await session.flush()
    return True


class DrainObserver:
    """A result observer of the job engine: the last result of a node that is being drained makes it drained."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    async def __call__(self, session: AsyncSession, job: Job, result: JobResult) -> None:  # noqa: ARG002 - the contract's
        """Called for every result; most nodes are not being drained."""
        wanted = select(NodeHold).where(
            NodeHold.node_id == job.node_id, NodeHold.kind == HoldKind.DRAIN, NodeHold.settled_at.is_(None)
        )
        hold = (await session.scalars(wanted)).first()
        if hold is not None and await settle_drain(session, hold, job.finished_at or job.updated_at):
            self._publisher.publish("nodes", "node.drained", {"id": job.node_id})
