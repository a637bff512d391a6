"""The places between the steps of a change to the host where tests make the executor die (shared/faults.py)."""

from __future__ import annotations

from typing import Final

from shared.faults import FaultPoints

POINTS: Final = (
    "file.before_temporary",
    "file.after_temporary",
    "file.after_write",
    "file.after_sync",
    "file.after_rename",
    "file.after_directory_sync",
    "unlink.before",
    "unlink.after",
    "unlink.after_sync",
    "directory.before",
    "directory.after_make",
    "directory.after_sync",
    "directory.after_rights",
    "link.after_temporary",
    "link.after_rename",
    "tree.after_unlink",
    "tree.after_all",
    "checkpoint.before_rename",
    "checkpoint.after_rename",
    "checkpoint.after_sync",
    "config.after_stage",
    "config.after_test",
    "config.before_live",
    "config.after_file",
    "config.before_reload",
    "config.after_reload",
)
"""Every place there is, by the kind of step."""

at = FaultPoints(POINTS).at
