"""From a node's result to rows: what is parked now, and what is not any more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.accounts.observe import is_in_force
from controller.core.parked.models import ParkedResource
from controller.db.base import new_id, utc_now
from controller.jobs.models import Job
from shared.protocol.job import ACTION_CONVERGE, ErrorBody, JobResult, JobState, ResourceOutcome

MAX_WORDS: Final = 4000
MAX_DIFF: Final = 16_384
_SETTLED: Final = frozenset({ResourceOutcome.UNCHANGED, ResourceOutcome.CHANGED, ResourceOutcome.REMOVED})


class ParkedObserver:
    """A result observer of the job engine."""

    def __init__(self, clock: Callable[[], datetime] = utc_now) -> None:
        self._clock = clock

    async def __call__(self, session: AsyncSession, job: Job, result: JobResult) -> None:
        """Take in one result. Taking it in twice is taking it in once."""
        if job.action != ACTION_CONVERGE or result.state is JobState.CANCELLED:
            return
        statement = select(ParkedResource).where(
            ParkedResource.node_id == job.node_id, ParkedResource.subject == job.resource_key
        )
        known = {row.key: row for row in await session.scalars(statement)}
        if not known and result.state is JobState.SUCCEEDED:
            return
        now = self._clock()
        for report in result.resources:
            if report.outcome is ResourceOutcome.PARKED:
                error = report.error or ErrorBody(code="apply_failed", message=report.note)
                _store(session, known.pop(report.key, None), job, _Parked(report.key, error, report.diff or ""), now)
            elif report.outcome is ResourceOutcome.HELD:
                known.pop(report.key, None)
        if is_in_force(result):
            await _forget_settled(session, known, result)
        elif result.error is not None:
            key = str(result.error.context.get("resource") or job.resource_key)
            _store(session, known.get(key), job, _Parked(key, result.error, ""), now)
        await session.flush()


@dataclass(frozen=True, slots=True)
class _Parked:
    """One thing that could not be brought about."""

    key: str
    error: ErrorBody
    diff: str


async def _forget_settled(session: AsyncSession, known: dict[str, ParkedResource], result: JobResult) -> None:
    """Whatever is neither parked nor held in a generation that is in force is as it should be, or is gone."""
    open_keys = {r.key for r in result.resources if r.outcome not in _SETTLED}
    for key, row in known.items():
        if key not in open_keys:
            await session.delete(row)


def _store(session: AsyncSession, row: ParkedResource | None, job: Job, parked: _Parked, now: datetime) -> None:
    if row is None:
        row = ParkedResource(
            id=new_id(), node_id=job.node_id, subject=job.resource_key[:200], key=parked.key[:300], since=now
        )
        session.add(row)
    error = parked.error
    row.account_id = job.account_id
    row.kind = parked.key.partition("/")[0][:31]
    row.code, row.message = error.code[:64], error.message[:MAX_WORDS]
    row.hint = error.hint[:MAX_WORDS] if error.hint else None
    row.context = _plain(error.context)
    row.diff = parked.diff[:MAX_DIFF]
    row.generation, row.job_id, row.updated_at = job.generation, job.id, now


def _plain(context: dict[str, Any]) -> dict[str, Any]:
    """What a person needs, in bounded size."""
    kept: dict[str, Any] = {}
    for name in ("step", "argv", "exit_code", "stderr", "tree"):
        value = context.get(name)
        if isinstance(value, str):
            kept[name] = value[:MAX_WORDS]
        elif isinstance(value, list):
            kept[name] = [str(word)[:500] for word in value[:100]]
        elif isinstance(value, int):
            kept[name] = value
    return kept
