"""A job without its large columns, as the hot path reads it; everything that the view of a job shows is in it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, NamedTuple, cast

from sqlalchemy import insert, select

from controller.db.base import new_id
from controller.db.prepared import Driver, Prepared, any_of, param
from controller.jobs.models import Job, JobTransition
from controller.jobs.states import JobState
from controller.jobs.views import JobView, render_job, render_notice
from shared.protocol.job import JobMode, Semantics


class JobRow(NamedTuple):
    """Fields are columns of `Job`."""

    id: str
    node_id: str
    account_id: str | None
    label: str
    action: str
    resource_key: str
    generation: int
    mode: JobMode
    semantics: Semantics
    state: JobState
    attempts: int
    delivery_id: str
    seq: int | None
    deliveries: int
    offer_epoch: int | None
    cancel_requested_at: datetime | None
    progress_done: int
    progress_total: int
    progress_message: str
    error_code: str | None
    error_message: str | None
    error_hint: str | None
    actor: str
    request_id: str
    retry_of: str | None
    created_at: datetime
    offered_at: datetime | None
    accepted_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime


JOB_COLUMNS: Final = tuple(getattr(Job, name) for name in JobRow._fields)

ROWS_BY_ID: Final = Prepared(select(*JOB_COLUMNS).where(any_of(Job.id, "ids")).order_by(Job.id), JobRow)
_ADD_TRANSITION: Final = Prepared(
    insert(JobTransition).values(
        {
            name: param(name)
            for name in ("id", "created_at", "updated_at", "job_id", "at", "from_state", "to_state", "note")
        }
    )
)


class Arrow(NamedTuple):
    """One transition of one job, for its story."""

    job_id: str
    from_state: JobState | None
    to_state: JobState
    note: str = ""


async def add_arrows(driver: Driver, arrows: list[Arrow], *, now: datetime) -> None:
    """Write the story of what the caller has just changed."""
    rows = [
        {
            "id": new_id(),
            "job_id": arrow.job_id,
            "from_state": arrow.from_state,
            "to_state": arrow.to_state,
            "note": arrow.note[:500],
        }
        for arrow in arrows
    ]
    await _ADD_TRANSITION.run_many(driver, rows, created_at=now, updated_at=now, at=now)


def view_of(row: JobRow) -> JobView:
    """The job as the API shows it."""
    return render_job(cast("Job", row))  # it has every column that a view shows


def notice_of(row: JobRow) -> dict[str, Any]:
    """What an event says about a job."""
    return render_notice(cast("Job", row))  # it has every column that a view shows
