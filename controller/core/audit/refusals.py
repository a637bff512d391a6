"""What a node refused, in the audit log: a changed, replayed or foreign job is somebody's doing."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.audit.chain import append_entries
from controller.core.context import Actor, Change, OpContext, Role
from controller.jobs.models import Job
from shared.protocol.job import ErrorBody


async def record_refusal(session: AsyncSession, job: Job, error: ErrorBody | None, now: datetime) -> None:
    """A RefusalObserver (controller.jobs.ports)."""
    actor = Actor(kind="node", id=job.node_id, name="a node", role=Role.CLIENT, scopes=frozenset())
    ctx = OpContext(actor=actor, session=session, request_id=job.request_id, now=now)
    after = {"code": error.code if error else "refused", "reason": error.message if error else "", "seq": job.seq}
    change = Change(action="job.refuse", target=f"job/{job.id}", target_name=job.label, after=after)
    await append_entries(ctx, (change,))
