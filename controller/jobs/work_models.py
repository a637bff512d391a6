"""Tables of the controller's own work: schedules (what comes back) and tasks (what is done once)."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from controller.db.base import Model
from controller.jobs.models import by_value


class ScheduleRow(Model):
    """When something comes back, and which process is at it. Whoever updates `claimed_by` has the tick."""

    __tablename__ = "schedules"

    name: Mapped[str] = mapped_column(String(80), unique=True)
    every_seconds: Mapped[float]
    next_at: Mapped[datetime]
    claimed_by: Mapped[str | None] = mapped_column(String(80))
    """The process that runs it now."""
    claimed_until: Mapped[datetime | None]
    """End of its lease: a process that died is forgotten then."""
    runs: Mapped[int] = mapped_column(default=0)
    """Ticks so far; the number of a tick fences a process that was away for longer than its lease."""
    failures: Mapped[int] = mapped_column(default=0)
    """In a row, up to the last run."""
    last_started_at: Mapped[datetime | None]
    last_finished_at: Mapped[datetime | None]
    last_outcome: Mapped[str] = mapped_column(String(16), default="never")
    """never, running, ok, failed or interrupted."""
    last_message: Mapped[str] = mapped_column(Text, default="")
    last_run_by: Mapped[str] = mapped_column(String(80), default="")


class TaskState(enum.Enum):
    """Where a task is."""

    QUEUED = "queued"
    """Due at `run_at`."""
    RUNNING = "running"
    """A process has it, for as long as its lease lasts."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """Tried as often as its kind allows; somebody may retry it."""


class Task(Model):
    """Something that the controller itself has to do once. This row is the truth; a broker carries its id only."""

    __tablename__ = "tasks"
    __table_args__ = (Index("ix_tasks_state_run_at", "state", "run_at"),)

    kind: Mapped[str] = mapped_column(String(80))
    args: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    dedup_key: Mapped[str | None] = mapped_column(String(200), unique=True)
    """Of an unfinished task: the same work is not queued twice. None once it has ended."""
    is_wanted_again: Mapped[bool] = mapped_column(default=False)
    """Somebody asked for the same work while it ran: it runs once more afterwards."""
    state: Mapped[TaskState] = mapped_column(by_value(TaskState), default=TaskState.QUEUED)
    run_at: Mapped[datetime]
    attempts: Mapped[int] = mapped_column(default=0)
    """Runs so far, since it was asked for or retried."""
    claims: Mapped[int] = mapped_column(default=0)
    """Runs ever; the number of a claim fences a process that was away for longer than its lease."""
    claimed_by: Mapped[str | None] = mapped_column(String(80))
    lease_until: Mapped[datetime | None]
    emitted_at: Mapped[datetime | None]
    """When its id was given to the broker last."""
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    message: Mapped[str] = mapped_column(Text, default="")
    """What its last run said, or why it failed."""
