"""The places of the executor where tests make it die (shared/faults.py)."""

from __future__ import annotations

from typing import Final

from shared.faults import EXIT_STATUS, VARIABLE, FaultPoints

__all__ = ["EXIT_STATUS", "POINTS", "VARIABLE", "at"]

POINTS: Final = (
    "trust.before_write",
    "trust.before_rename",
    "trust.after_rename",
    "trust.after_sync",
    "job.before_journal",
    "job.after_journal",
    "job.after_start",
    "transaction.after_begin",
    "step.after_capture",
    "step.after_begin",
    "step.after_apply",
    "step.after_done",
    "resource.after_verify",
    "transaction.before_seal",
    "transaction.after_seal",
    "irreversible.before_apply",
    "irreversible.after_apply",
    "transaction.before_commit",
    "transaction.after_commit",
    "undo.before",
    "undo.after_apply",
    "undo.after_mark",
    "transaction.after_unwind",
    "transaction.after_abort",
    "recovery.before",
    "recovery.after_unwind",
    "recovery.after",
    "database.before_commit",
    "database.after_commit",
    "database.after_soft",
)
"""Every place there is, in the order in which a job passes them; the last three are around every journal write."""

at = FaultPoints(POINTS).at
