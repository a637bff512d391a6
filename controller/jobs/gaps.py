"""Numbers that a node says never arrived: a job that somebody in between dropped is sent again at once.

A number may also be missing for good: its job was withdrawn after it was signed. Then nobody waits for it, and the
node's repeated report of it costs nothing (`GapWatch`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.db.base import new_id
from controller.jobs.models import Job
from controller.jobs.results import ATTEMPTS_MAX
from controller.jobs.states import ON_NODE, UNFINISHED, JobState
from controller.jobs.transitions import transition
from shared.protocol.job import Semantics

UNSENT: Final = 0
"""No session has this epoch: a job that was offered in it is not on its way any more."""
_NONE: Final[frozenset[int]] = frozenset()
"""One for all sessions without gaps, which are nearly all: every empty set that Python makes is 216 bytes."""
_LOST_NOTE: Final = "the node's journal has lost it"

_log = structlog.get_logger("controller.jobs")


@dataclass(frozen=True, slots=True)
class Reopened:
    """What a report of gaps led to."""

    job_ids: tuple[str, ...] = ()
    """Jobs that changed."""
    settled: frozenset[int] = frozenset()
    """Numbers that nobody waits for."""


class GapWatch:
    """What one session knows of its node's gaps."""

    __slots__ = ("_reported", "_settled")

    def __init__(self, reported: Iterable[int] = ()) -> None:
        self._reported = frozenset(reported) or _NONE
        self._settled = _NONE

    def take(self, seqs: Collection[int]) -> tuple[frozenset[int], frozenset[int]]:
        """Numbers worth a look, and those of them that the node missed in its last report, too.

        Only the latter prove something: a report and the node's word about the same job may have crossed each other.
        """
        known, self._reported = self._reported, frozenset(seqs) or _NONE
        self._settled = (self._settled & self._reported) or _NONE
        news = self._reported - self._settled
        return news, news & known

    def note_settled(self, seqs: frozenset[int]) -> None:
        """Nobody waits for these."""
        self._settled = (self._settled | (seqs & self._reported)) or _NONE


async def reopen_gaps(
    session: AsyncSession, node_id: str, seqs: Collection[int], *, confirmed: Collection[int], now: datetime
) -> Reopened:
    """Have sent again what the node never got, and give up or repeat what it had and has lost.

    Args:
        session: A write transaction.
        node_id: Who misses them.
        seqs: The numbers.
        confirmed: Those among them that were missing before; only about these something is done.
        now: The controller's time.
    """
    statement = select(Job).where(Job.node_id == node_id, Job.seq.in_(sorted(seqs)))
    jobs = (await session.execute(statement.execution_options(populate_existing=True))).scalars().all()
    waiting = {job.seq for job in jobs if job.state in UNFINISHED}
    changed = [job.id for job in jobs if job.seq in confirmed and await _mend(session, job, now)]
    if changed:
        _log.warning("jobs.gap", node_id=node_id, seqs=sorted(seqs), job_ids=changed)
    return Reopened(tuple(changed), frozenset(seqs) - waiting)


async def _mend(session: AsyncSession, job: Job, now: datetime) -> bool:
    """Do what brings a missing job to its end; False when nothing is to be done, or was done already."""
    if job.state in ON_NODE:
        return await _repeat_lost(session, job, now)
    if job.state is not JobState.OFFERED or job.offer_epoch == UNSENT:
        return False
    if job.expires_at <= now:
        note = "its time ran out before the node had it"
        error = {"error_code": "expired", "error_message": note, "error_hint": "Retry it."}
        return await transition(session, job.id, {JobState.OFFERED}, JobState.EXPIRED, now=now, note=note, **error)
    note = f"number {job.seq} never arrived; it is sent again"
    return await transition(
        session, job.id, {JobState.OFFERED}, JobState.OFFERED, now=now, note=note, offer_epoch=UNSENT
    )


async def _repeat_lost(session: AsyncSession, job: Job, now: datetime) -> bool:
    """The node acknowledged it and does not have it: its disk lied. Only what is safe to do again is done again."""
    if job.semantics is not Semantics.CONVERGE or job.attempts >= ATTEMPTS_MAX:
        error = {"error_code": "journal_lost", "error_message": _LOST_NOTE, "error_hint": "Look at the node's disk."}
        return await transition(session, job.id, ON_NODE, JobState.INDETERMINATE, now=now, note=_LOST_NOTE, **error)
    return await transition(
        session,
        job.id,
        ON_NODE,
        JobState.REQUESTED,
        now=now,
        note=f"{_LOST_NOTE}; trying again",
        attempts=job.attempts + 1,
        delivery_id=new_id(),
        deliveries=0,
        offer_epoch=None,
        seq=None,
        payload=None,
        signatures=None,
    )
