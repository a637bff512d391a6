"""Tables of the job engine."""

from __future__ import annotations

import enum
from datetime import datetime

from sqlalchemy import Enum, ForeignKey, Index, LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from controller.db.base import Model, new_id
from controller.jobs.states import JobState
from shared.protocol.job import JobMode, Semantics


def by_value(kind: type[enum.Enum], length: int = 16) -> Enum:
    """Column type that stores an enum by its value, as plain text on both databases."""
    return Enum(kind, native_enum=False, length=length, values_callable=lambda members: [m.value for m in members])


class Job(Model):
    """One thing a node was asked to do. Rows outlive nodes and accounts, so no foreign keys to them."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_node_state", "node_id", "state", "seq"),
        Index("ix_jobs_lane", "node_id", "resource_key", "state"),
        Index("ix_jobs_state_created", "state", "created_at"),
        Index("ix_jobs_account", "account_id", "id"),
        Index("ix_jobs_node", "node_id", "id"),
    )

    node_id: Mapped[str] = mapped_column(String(36))
    account_id: Mapped[str | None] = mapped_column(String(36))
    action: Mapped[str] = mapped_column(String(64))
    args: Mapped[bytes] = mapped_column(LargeBinary)
    resource_key: Mapped[str] = mapped_column(String(300))
    """The lane: one job of it at a time."""
    generation: Mapped[int] = mapped_column(default=0)
    mode: Mapped[JobMode] = mapped_column(by_value(JobMode))
    semantics: Mapped[Semantics] = mapped_column(by_value(Semantics))
    label: Mapped[str] = mapped_column(String(200))
    """For people, for example "Converge account/alice to generation 3"."""
    actor: Mapped[str] = mapped_column(String(120))
    request_id: Mapped[str] = mapped_column(String(64))

    state: Mapped[JobState] = mapped_column(by_value(JobState), default=JobState.REQUESTED)
    attempts: Mapped[int] = mapped_column(default=1)
    """Runs, this one included; each has its own delivery."""
    delivery_id: Mapped[str] = mapped_column(String(36), unique=True, default=new_id)
    """The job's id on the wire: the node remembers it for ever, so a new attempt needs a new one."""
    seq: Mapped[int | None]
    """Gap-free per node; given when signed."""
    payload: Mapped[bytes | None] = mapped_column(LargeBinary)
    """What was signed, kept as it is: nobody encodes it again."""
    signatures: Mapped[bytes | None] = mapped_column(LargeBinary)
    """msgpack of the envelope's signatures."""
    deliveries: Mapped[int] = mapped_column(default=0)
    """How often this attempt was sent."""
    offer_epoch: Mapped[int | None]
    """Session in which it was sent last."""
    cancel_requested_at: Mapped[datetime | None]
    cancel_epoch: Mapped[int | None]
    """Session in which the wish to cancel was sent last."""

    not_before: Mapped[datetime]
    expires_at: Mapped[datetime]
    max_runtime_seconds: Mapped[int]
    offered_at: Mapped[datetime | None]
    accepted_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    progress_done: Mapped[int] = mapped_column(default=0)
    progress_total: Mapped[int] = mapped_column(default=0)
    progress_message: Mapped[str] = mapped_column(String(300), default="")
    result: Mapped[bytes | None] = mapped_column(LargeBinary)
    """msgpack of the node's JobResult."""
    error_code: Mapped[str | None] = mapped_column(String(64))
    error_message: Mapped[str | None] = mapped_column(Text)
    error_hint: Mapped[str | None] = mapped_column(Text)
    retry_of: Mapped[str | None] = mapped_column(String(36))
    """The job that somebody retried with this one."""
    released_at: Mapped[datetime | None]
    """When somebody let it through a hold of its node (controller.jobs.holds)."""


class JobTransition(Model):
    """One arrow that a job took; append-only, what the explanation tells."""

    __tablename__ = "job_transitions"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    at: Mapped[datetime]
    from_state: Mapped[JobState | None] = mapped_column(by_value(JobState))
    to_state: Mapped[JobState] = mapped_column(by_value(JobState))
    note: Mapped[str] = mapped_column(String(500), default="")


class NodeSequence(Model):
    """The last job number given to a node; `id` is the node's. Its row is the lock under which numbers are given."""

    __tablename__ = "node_sequences"

    last_seq: Mapped[int] = mapped_column(default=0)


class NodeInbox(Model):
    """How far a node's events are committed; `id` is the node's."""

    __tablename__ = "node_inboxes"

    journal_epoch: Mapped[str] = mapped_column(String(64))
    last_number: Mapped[int] = mapped_column(default=0)
