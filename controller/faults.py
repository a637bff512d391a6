"""The places of the controller where tests make it die (shared/faults.py); what they prove: docs/faults.md."""

from __future__ import annotations

from typing import Final

from shared.faults import EXIT_STATUS, VARIABLE, FaultPoints

__all__ = ["EXIT_STATUS", "POINTS", "VARIABLE", "at"]

POINTS: Final = (
    "change.before_commit",
    "change.after_commit",
    "sign.before_commit",
    "sign.after_commit",
    "offer.before_commit",
    "offer.after_commit",
    "offer.after_send",
    "ack.before_commit",
    "ack.after_commit",
    "progress.before_commit",
    "progress.after_commit",
    "event.received",
    "event.before_commit",
    "event.after_commit",
    "event.after_ack",
    "sweep.before_commit",
    "sweep.after_commit",
    "hello.before_commit",
    "hello.after_commit",
    "hello.after_welcome",
    "leave.before_commit",
    "heartbeat.before_commit",
    "heartbeat.after_commit",
    "trust.before_commit",
    "trust.after_commit",
    "keyfile.before_rename",
    "keyfile.after_rename",
)
"""Every place there is: before and after each commit, and between a commit and the word that goes out after it."""

at = FaultPoints(POINTS).at
