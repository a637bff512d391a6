"""The parts of an explanation that not every job has."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from controller.jobs.models import JobTransition
from controller.jobs.states import FINAL, JobState
from shared.protocol.job import CommandPurpose, CommandRun


class AskerView(msgspec.Struct, frozen=True, kw_only=True):
    """Who asked for a job."""

    reference: Annotated[str, Meta(examples=["user/019..."])]
    kind: Annotated[str, Meta(description="user, token or system.")]
    name: Annotated[str, Meta(description="Of the user, or of the token.")]
    user: Annotated[str, Meta(description="Whose token it is; the user itself otherwise.")]
    address: Annotated[str, Meta(description="Where the request came from; empty for the controller itself.")]
    request_id: str


class CauseView(msgspec.Struct, frozen=True, kw_only=True):
    """What made a job necessary."""

    kind: Annotated[str, Meta(description="request, maintenance, reconnect, drift_policy, rollout, schedule or retry.")]
    words: str
    changes: Annotated[
        tuple[str, ...], Meta(description="What the same request changed, as the audit log has it: action and target.")
    ] = ()
    permission: Annotated[str, Meta(description="What the asker needed to be allowed.")] = ""
    limits: Annotated[tuple[str, ...], Meta(description="Rules of the account's package that went into it.")] = ()


class CommandView(msgspec.Struct, frozen=True, kw_only=True):
    """A program that ran on the node."""

    resource: str
    argv: tuple[str, ...]
    exit_code: int
    seconds: float
    output: Annotated[str, Meta(description="The end of what it said.")]


class AttemptView(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a job, from its request to its end."""

    number: int
    asked_at: datetime
    accepted_at: datetime | None
    ended_at: datetime | None
    deliveries: Annotated[int, Meta(description="How often it was sent.")]
    state: JobState
    note: str


class Background(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a job beside its own row."""

    asker: AskerView | None = None
    cause: CauseView | None = None
    undo_commands: tuple[str, ...] = ()
    waits_for: str = ""


def view_commands(runs: Sequence[CommandRun], purpose: CommandPurpose) -> tuple[CommandView, ...]:
    """Those that ran for this purpose, in order."""
    return tuple(
        CommandView(
            resource=run.resource, argv=run.argv, exit_code=run.exit_code, seconds=run.seconds, output=run.output
        )
        for run in runs
        if run.purpose is purpose
    )


def view_attempts(transitions: Sequence[JobTransition]) -> tuple[AttemptView, ...]:
    """A job begins anew each time that it is requested."""
    found: list[AttemptView] = []
    for row in transitions:
        if row.to_state is JobState.REQUESTED:
            found.append(
                AttemptView(
                    number=len(found) + 1,
                    asked_at=row.at,
                    accepted_at=None,
                    ended_at=None,
                    deliveries=0,
                    state=row.to_state,
                    note="",
                )
            )
            if len(found) > 1:
                earlier = found[-2]
                found[-2] = msgspec.structs.replace(earlier, ended_at=row.at, note=row.note, state=JobState.FAILED)
        elif found:
            found[-1] = _continue(found[-1], row)
    return tuple(found)


def _continue(attempt: AttemptView, row: JobTransition) -> AttemptView:
    return msgspec.structs.replace(
        attempt,
        state=row.to_state,
        note=row.note or attempt.note,
        deliveries=attempt.deliveries + (row.to_state is JobState.OFFERED),
        accepted_at=row.at if row.to_state is JobState.ACCEPTED else attempt.accepted_at,
        ended_at=row.at if row.to_state in FINAL else None,
    )
