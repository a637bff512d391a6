"""The explanation of a job: who asked, which rule, which files and commands, how to undo it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from controller.jobs.explain_views import (
    AskerView,
    AttemptView,
    Background,
    CauseView,
    CommandView,
    view_attempts,
    view_commands,
)
from controller.jobs.models import Job, JobTransition
from controller.jobs.states import JobState
from shared.protocol.job import (
    ACTION_CONVERGE,
    ACTION_DRIFT,
    ACTION_NOOP,
    ChangeKind,
    CommandPurpose,
    JobMode,
    JobResult,
    PlannedChange,
    ResourceReport,
)

_FILE_ACTIONS: Final = frozenset({"write_file", "remove_file", "publish_config"})
_RULES: Final = {
    ACTION_CONVERGE: "The node must hold everything of {subject} as generation {generation} says, and nothing more.",
    ACTION_DRIFT: "Compare what was last applied with what is on the node now; change nothing.",
    ACTION_NOOP: "Prove the whole way to the node's executor and back; change nothing.",
}
_NEXT: Final = {
    JobState.REQUESTED: "It waits for its lane, or for its next attempt.",
    JobState.QUEUED: "It waits for its node to connect.",
    JobState.OFFERED: "It was sent; the node has not confirmed it yet.",
    JobState.ACCEPTED: "The node has it on disk and starts it when its lane is free.",
    JobState.RUNNING: "The node is at work.",
    JobState.FAILED: "Read the error, put right what it names, then retry or discard the job.",
    JobState.REFUSED: "Nothing was touched. Read the error, then retry or discard the job.",
    JobState.EXPIRED: "Nothing was touched. Retry it when the node is connected.",
    JobState.STUCK: "Look at the node's agent (its log names the job), then retry.",
    JobState.INDETERMINATE: "Converge the subject again: the node looks first and does only what is missing.",
}


class TransitionView(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a job's life."""

    at: datetime
    from_state: JobState | None
    to_state: JobState
    note: str


class ChangeStepView(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was done on the node (or would be done, for a plan)."""

    resource: str
    action: str
    kind: ChangeKind
    target: str
    reason: str
    diff: str
    undo: str
    is_irreversible: bool


class ResourceOutcomeView(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one resource."""

    key: str
    outcome: Annotated[str, Meta(description="unchanged, changed, removed, parked or held.")]
    note: str
    error_code: str | None
    error_message: str | None
    diff: Annotated[str, Meta(description="Parked ones only: what the change would have made of files.")] = ""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Everything there is to know about why a job is what it is."""

    asked_by: Annotated[str, Meta(description="kind/ID of who asked.")]
    request_id: str
    rule: Annotated[str, Meta(description="Which rule of the product made it necessary.")]
    timeline: tuple[TransitionView, ...]
    files: Annotated[tuple[str, ...], Meta(description="Files that were (or would be) written or removed.")]
    commands: Annotated[tuple[str, ...], Meta(description="Everything else that was (or would be) done, in order.")]
    reloads: Annotated[tuple[str, ...], Meta(description="Units that were (or would be) reloaded or restarted.")]
    undo: Annotated[tuple[str, ...], Meta(description="How to take it back, last change first.")]
    irreversible: Annotated[tuple[str, ...], Meta(description="What nothing can take back.")]
    is_rolled_back: Annotated[bool, Meta(description="It failed, and the node undid everything it had done.")]
    changes: tuple[ChangeStepView, ...]
    resources: tuple[ResourceOutcomeView, ...]
    risks: tuple[str, ...]
    next_step: Annotated[str, Meta(description="What to do now; empty when nothing is.")]
    asker: AskerView | None = None
    cause: CauseView | None = None
    waits_for: Annotated[str, Meta(description="What keeps it from being sent now; empty: nothing.")] = ""
    attempts: Annotated[tuple[AttemptView, ...], Meta(description="Its runs, the first one first.")] = ()
    runs: Annotated[tuple[CommandView, ...], Meta(description="Programs that ran on the node, in order.")] = ()
    validators: Annotated[
        tuple[CommandView, ...],
        Meta(description="Services' own tests of the new configuration, before any of it was live."),
    ] = ()
    undo_commands: Annotated[tuple[str, ...], Meta(description="Commands that take the whole change back.")] = ()


def explain_job(job: Job, transitions: Sequence[JobTransition], background: Background | None = None) -> Explanation:
    """Put together what the row, its history and the node's result say."""
    known = background or Background()
    result = msgspec.msgpack.decode(job.result, type=JobResult) if job.result is not None else None
    changes = result.changes if result is not None else ()
    runs = (result.commands or ()) if result is not None else ()
    rule = _RULES.get(job.action, "{subject}").format(subject=job.resource_key, generation=job.generation)
    if job.mode is JobMode.PLAN:
        rule = f"Dry run: {rule} Only the plan was wanted."
    return Explanation(
        asked_by=job.actor,
        request_id=job.request_id,
        rule=rule,
        timeline=tuple(_view_transition(row) for row in transitions),
        files=tuple(_unique(change.target for change in changes if change.action in _FILE_ACTIONS)),
        commands=tuple(f"{c.action} {c.target}" for c in changes if c.action not in _FILE_ACTIONS),
        reloads=result.reloads if result is not None else (),
        undo=_undo_of(job, changes),
        irreversible=tuple(f"{c.action} {c.target}" for c in changes if c.is_irreversible),
        is_rolled_back=result.is_rolled_back if result is not None else False,
        changes=tuple(_view_change(change) for change in changes),
        resources=tuple(_view_resource(report) for report in (result.resources if result is not None else ())),
        risks=result.risks if result is not None else (),
        next_step=_NEXT.get(job.state, ""),
        asker=known.asker,
        cause=known.cause,
        waits_for=known.waits_for,
        attempts=view_attempts(transitions),
        runs=view_commands(runs, CommandPurpose.COMMAND),
        validators=view_commands(runs, CommandPurpose.VALIDATOR),
        undo_commands=known.undo_commands if job.mode is JobMode.APPLY else (),
    )


def _undo_of(job: Job, changes: Sequence[PlannedChange]) -> tuple[str, ...]:
    if job.mode is JobMode.PLAN or not changes:
        return ()
    steps = tuple(f"{change.target}: {change.undo}" for change in reversed(changes) if change.undo)
    if job.action == ACTION_CONVERGE and job.generation > 1:
        return (f"Change {job.resource_key} back: the node then converges to that state.", *steps)
    return steps


def _view_transition(row: JobTransition) -> TransitionView:
    return TransitionView(at=row.at, from_state=row.from_state, to_state=row.to_state, note=row.note)


def _view_change(change: PlannedChange) -> ChangeStepView:
    return ChangeStepView(
        resource=change.resource,
        action=change.action,
        kind=change.kind,
        target=change.target,
        reason=change.reason,
        diff=change.diff,
        undo=change.undo,
        is_irreversible=change.is_irreversible,
    )


def _view_resource(report: ResourceReport) -> ResourceOutcomeView:
    return ResourceOutcomeView(
        key=report.key,
        outcome=report.outcome.value,
        note=report.note,
        error_code=report.error.code if report.error else None,
        error_message=report.error.message if report.error else None,
        diff=report.diff or "",
    )


def _unique(values: Iterable[str]) -> Iterable[str]:
    return dict.fromkeys(values)
