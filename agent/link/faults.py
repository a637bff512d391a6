"""The places of the link where tests make it die (shared/faults.py)."""

from __future__ import annotations

from typing import Final

from shared.faults import FaultPoints

POINTS: Final = (
    "job.before_submit",
    "job.after_submit",
    "spool.before_commit",
    "spool.after_commit",
    "result.after_stored",
)
"""Every place there is: around a job on its way to the executor, and around a result on its way from there."""

at = FaultPoints(POINTS).at
