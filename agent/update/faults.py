"""The places of the updater where tests make it die (shared/faults.py)."""

from __future__ import annotations

from typing import Final

from shared.faults import FaultPoints

POINTS: Final = (
    "update.before_unpack",
    "update.after_unpack",
    "update.after_install",
    "update.after_prepared",
    "update.after_switching",
    "update.after_stop",
    "update.after_units",
    "update.after_link",
    "update.after_probation",
    "update.after_start",
    "update.after_welcome",
    "update.after_committing",
    "update.after_floor",
    "update.after_own_link",
    "update.after_outcome",
    "update.after_end",
    "return.after_returning",
    "return.after_stop",
    "return.after_units",
    "return.after_link",
    "return.after_start",
    "return.after_outcome",
    "return.after_end",
)
"""In the order in which an update passes them; the last ones only when it does not come up."""

at = FaultPoints(POINTS).at
