"""What nodes found that is not as it was applied, until it was put right."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from controller.db.base import utc_now
from controller.fleet.models import DriftCheck, DriftFindingRow
from controller.fleet.ports import Publisher
from controller.jobs.models import Job
from shared.protocol.frames import DriftFinding, DriftReport
from shared.protocol.job import ACTION_CONVERGE, JobResult, ResourceOutcome


class DriftKeeper:
    """A drift observer of the job engine: replaces the findings of the subjects that were looked at."""

    def __init__(self, publisher: Publisher, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._publisher = publisher
        self._clock = clock

    async def __call__(self, session: AsyncSession, node_id: str, report: DriftReport) -> None:
        """Take in one report. Taking it in twice is taking it in once."""
        checked_at = datetime.fromtimestamp(report.checked_at, UTC) if report.checked_at > 0 else self._clock()
        looked_at = {*report.subjects, *(finding.subject for finding in report.findings)}
        rows = DriftFindingRow.subject.in_(looked_at) if looked_at else DriftFindingRow.id.is_not(None)
        known = {
            (row.subject, row.key): row
            for row in await session.scalars(select(DriftFindingRow).where(DriftFindingRow.node_id == node_id, rows))
        }
        open_count, now = 0, self._clock()
        for finding in report.findings:
            row = known.pop((finding.subject[:200], finding.key[:300]), None)
            if row is None:
                row = DriftFindingRow(
                    node_id=node_id, subject=finding.subject[:200], key=finding.key[:300], found_at=checked_at
                )
                session.add(row)
            _fill(row, finding, checked_at)
            open_count += not row.is_ignored(now)
        if known:
            gone = [row.id for row in known.values()]
            await session.execute(delete(DriftFindingRow).where(DriftFindingRow.id.in_(gone)))
        await _note_check(session, node_id, checked_at, open_count)
        await session.flush()
        data = {"node_id": node_id, "subjects": list(report.subjects), "findings": open_count}
        self._publisher.publish("drift", "drift.checked", data)

    async def observe_result(self, session: AsyncSession, job: Job, result: JobResult) -> None:
        """A result observer of the job engine: what was just brought about and verified has no drift any more."""
        if job.action != ACTION_CONVERGE:
            return
        found = select(DriftFindingRow).where(
            DriftFindingRow.node_id == job.node_id, DriftFindingRow.subject == job.resource_key
        )
        unsettled = {r.key for r in result.resources if r.outcome in (ResourceOutcome.PARKED, ResourceOutcome.HELD)}
        settled = {report.key for report in result.resources} - unsettled if not result.is_rolled_back else set()
        gone = [row for row in await session.scalars(found) if row.key in settled]
        for row in gone:
            await session.delete(row)
        await session.flush()
        if gone:
            data = {"node_id": job.node_id, "subject": job.resource_key, "findings": len(gone)}
            self._publisher.publish("drift", "drift.repaired", data)


def _fill(row: DriftFindingRow, finding: DriftFinding, checked_at: datetime) -> None:
    if (row.summary, row.diff) != (finding.summary, finding.diff):
        # Somebody decided to live with another difference than this one.
        row.forget_decision()
    row.summary = finding.summary
    row.diff = finding.diff
    row.is_repaired = finding.is_repaired
    row.checked_at = checked_at


async def _note_check(session: AsyncSession, node_id: str, checked_at: datetime, findings: int) -> None:
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    values = {"checked_at": checked_at, "findings": findings}
    statement = insert(DriftCheck).values(id=node_id, **values)
    await session.execute(statement.on_conflict_do_update(index_elements=["id"], set_=values))
