"""The state machine of a job, as data. `transitions.transition` is the only function that moves a job along it."""

from __future__ import annotations

import enum
from typing import Final


class JobState(enum.Enum):
    """A job's life as the controller knows it; shared.protocol.job.JobState is the node's own, shorter one."""

    REQUESTED = "requested"
    """Committed with the change that asked for it; waits for its lane, or for its next attempt."""
    QUEUED = "queued"
    """Signed, with its number; waits for the node."""
    OFFERED = "offered"
    """Sent; the node has not said that it has it."""
    ACCEPTED = "accepted"
    """In the node's journal, on disk."""
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REFUSED = "refused"
    """The node did not take it; nothing was touched."""
    EXPIRED = "expired"
    """Its time ran out before a node said that it has it."""
    CANCELLED = "cancelled"
    INDETERMINATE = "indeterminate"
    """It was on the node, and nobody can say how it ended."""
    STUCK = "stuck"
    """Sent several times and never acknowledged."""
    SUPERSEDED = "superseded"
    """A newer change of the same subject replaced it before the node had it."""
    DISCARDED = "discarded"
    """Somebody looked at it and put it aside."""


S = JobState
WAITING: Final = frozenset({S.REQUESTED, S.QUEUED})
"""No node can know of it yet."""
IN_LANE: Final = frozenset({S.QUEUED, S.OFFERED, S.ACCEPTED, S.RUNNING})
"""Signed and not finished: the next job of its lane waits."""
ON_NODE: Final = frozenset({S.ACCEPTED, S.RUNNING})
UNFINISHED: Final = WAITING | IN_LANE
FINAL: Final = frozenset(S) - UNFINISHED
PRESUMED: Final = frozenset({S.EXPIRED, S.STUCK, S.INDETERMINATE})
"""The controller's guess in the absence of word from the node; the node's own result still corrects it."""
NEEDS_ATTENTION: Final = frozenset({S.FAILED, S.REFUSED}) | PRESUMED
"""May be retried or discarded."""

_NODE_ANSWERS: Final = frozenset({S.SUCCEEDED, S.FAILED, S.CANCELLED, S.REFUSED, S.INDETERMINATE})

TRANSITIONS: Final[dict[JobState, frozenset[JobState]]] = {
    S.REQUESTED: frozenset({S.QUEUED, S.SUPERSEDED, S.CANCELLED, S.EXPIRED, S.DISCARDED}),
    S.QUEUED: frozenset({S.OFFERED, S.SUPERSEDED, S.CANCELLED, S.EXPIRED, S.DISCARDED}),
    S.OFFERED: frozenset({S.OFFERED, S.ACCEPTED, S.RUNNING, S.STUCK, S.EXPIRED, S.REQUESTED}) | _NODE_ANSWERS,
    S.ACCEPTED: frozenset({S.RUNNING, S.REQUESTED}) | _NODE_ANSWERS,
    S.RUNNING: frozenset({S.REQUESTED}) | _NODE_ANSWERS,
    S.SUCCEEDED: frozenset(),
    S.FAILED: frozenset({S.DISCARDED}),
    S.REFUSED: frozenset({S.DISCARDED}),
    S.CANCELLED: frozenset(),
    S.EXPIRED: frozenset({S.DISCARDED, S.ACCEPTED, S.RUNNING}) | _NODE_ANSWERS,
    S.STUCK: frozenset({S.DISCARDED, S.ACCEPTED, S.RUNNING}) | _NODE_ANSWERS,
    S.INDETERMINATE: frozenset({S.DISCARDED, S.SUCCEEDED, S.FAILED, S.CANCELLED, S.REFUSED}),
    S.SUPERSEDED: frozenset(),
    S.DISCARDED: frozenset(),
}
"""Every arrow there is. An accepted job goes back to `requested` only as its own next attempt."""

TIME_COLUMNS: Final[dict[JobState, str]] = {
    S.OFFERED: "offered_at",
    S.ACCEPTED: "accepted_at",
    S.RUNNING: "started_at",
    **dict.fromkeys(FINAL, "finished_at"),
}
"""Which column says when a job came into a state."""


def is_allowed(from_state: JobState, to: JobState) -> bool:
    """Whether the machine has this arrow."""
    return to in TRANSITIONS[from_state]


def sources_of(to: JobState) -> frozenset[JobState]:
    """Every state from which `to` can be reached in one step."""
    return frozenset(state for state in JobState if to in TRANSITIONS[state])
