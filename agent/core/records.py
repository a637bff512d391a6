"""What the journal remembers, as values: jobs, transactions, steps, and what the node holds for each subject."""

from __future__ import annotations

import enum

import msgspec

from agent.contract.actions import AnyAction
from agent.contract.host import UndoRecord
from shared.protocol.job import JobResult, JobState
from shared.specs.base import Presence
from shared.specs.manifest import AnySpec, DriftPolicy


class JobRow(msgspec.Struct, frozen=True, kw_only=True):
    """A job as the journal has it."""

    job_id: str
    seq: int
    subject: str
    """Lane; the manifest's subject where there is a manifest."""
    state: JobState
    payload: bytes
    """The verified bytes: what runs again after a crash."""
    attempts: int
    is_cancel_requested: bool
    result: JobResult | None
    is_stored: bool
    """The agent has the result on its own disk."""


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """The newest manifest of a subject that became true here (parked resources excepted)."""

    subject: str
    generation: int
    digest: str
    """Of the manifest as it was asked for."""
    presence: Presence
    """ABSENT: the subject was removed; the row stays so that no older job brings it back."""
    drift_policy: DriftPolicy
    seq: int
    """Of the job that did it."""


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """One resource as it really holds: its last good spec. Differs from the manifest while it is parked."""

    spec: AnySpec
    presence: Presence


class TransactionState(enum.Enum):
    """Where a transaction stands; a finished one has no row."""

    OPEN = "open"
    """A crash unwinds it."""
    SEALED = "sealed"
    """The point of no return is passed; a crash carries it on."""
    BROKEN = "broken"
    """An undo failed; an operator must look."""


class TransactionRow(msgspec.Struct, frozen=True, kw_only=True):
    """A transaction that is not finished."""

    number: int
    subject: str
    job_id: str | None
    """None: a repair by policy."""
    state: TransactionState
    draft: Draft | None


class StepState(enum.Enum):
    """Where one action of a transaction stands."""

    PLANNED = "planned"
    """Irreversible, waits for the point of no return."""
    BEGUN = "begun"
    """Its undo record is on disk; whether it was applied is not known."""
    DONE = "done"
    UNDONE = "undone"


class StepRow(msgspec.Struct, frozen=True, kw_only=True):
    """One action with what was there before."""

    number: int
    resource: str
    action: AnyAction
    undo: UndoRecord
    state: StepState


class Deferred(msgspec.Struct, frozen=True, kw_only=True):
    """A resource whose last actions cannot be undone; they run once everything else is verified."""

    spec: AnySpec
    presence: Presence
    actions: tuple[AnyAction, ...]


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """How a transaction will end: kept in the journal once it is sealed."""

    result: JobResult
    """Without the deferred resources; its state is decided when they are done."""
    applied: Applied | None
    """None for a repair: generation and policy stay."""
    kept: tuple[Holding, ...] = ()
    dropped: tuple[str, ...] = ()
    deferred: tuple[Deferred, ...] = ()
