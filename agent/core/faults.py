"""Places where the process may be made to die, so that tests can sweep every crash. Without the variable: nothing.

`WCP360_FAULT=step.after_apply:3` ends the process without any clean-up when that place is reached for the third time.
(The idea is the failpoint of databases; docs/architecture.md, faults.)
"""

from __future__ import annotations

import os
from typing import Final

from shared.errors import BugError

VARIABLE: Final = "WCP360_FAULT"
EXIT_STATUS: Final = 137
"""What a shell reports for a process that was killed with SIGKILL."""

POINTS: Final = (
    "trust.before_rename",
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
)
"""Every place there is, in the order in which a job passes them."""

_hits: dict[str, int] = {}


def at(name: str) -> None:
    """Die here if the environment says so."""
    if name not in POINTS:
        raise BugError(f"fault point {name!r} is not listed")
    wanted = os.environ.get(VARIABLE)
    if not wanted:
        return
    wanted_name, _, count = wanted.partition(":")
    if wanted_name != name:
        return
    _hits[name] = _hits.get(name, 0) + 1
    if _hits[name] >= int(count or "1"):
        os._exit(EXIT_STATUS)
