"""Forgets jobs that ended well long ago: at 300 a second a year of them would be ten billion rows.

What needs somebody's attention stays until they have decided, however old it is; the audit log keeps its entries.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import CursorResult, delete, select

from controller.db.base import utc_now
from controller.db.engine import Database
from controller.jobs.models import Job
from controller.jobs.states import JobState

FORGETTABLE: Final = frozenset({JobState.SUCCEEDED, JobState.SUPERSEDED, JobState.CANCELLED, JobState.DISCARDED})
BATCH: Final = 500
"""Rows in a transaction, so that nobody waits long for their turn to write."""
BATCHES_MAX: Final = 200
PERIOD_SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True)
class JobRetention:
    """A schedule's work; safe to run again at any moment."""

    database: Database
    read_days: Callable[[], Awaitable[float]]
    """After how long, as an administrator decided; asked in each round."""
    clock: Callable[[], datetime] = utc_now

    async def run(self) -> str | None:
        """Delete a bounded number of them, oldest first, with their stories; what it did, in a sentence."""
        gone, before = 0, self.clock() - timedelta(days=await self.read_days())
        for _ in range(BATCHES_MAX):
            deleted = await self._delete_batch(before)
            gone += deleted
            if deleted < BATCH:
                break
        return f"{gone} jobs forgotten" if gone else None

    async def _delete_batch(self, before: datetime) -> int:
        # By creation, which is indexed with the state; what ended has begun, so nothing younger goes.
        old = select(Job.id).where(Job.state.in_(FORGETTABLE), Job.created_at < before, Job.finished_at < before)
        statement = delete(Job).where(Job.id.in_(old.order_by(Job.created_at).limit(BATCH)))
        async with self.database.write() as session:
            result = await session.execute(statement, execution_options={"synchronize_session": False})
        return result.rowcount if isinstance(result, CursorResult) else 0
