"""What a convergence has gathered so far; turned into a Draft at its end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import msgspec

from agent.contract.actions import AnyAction
from agent.contract.module import Verification
from agent.core.planning import Target
from agent.core.records import Applied, Deferred, Draft, Holding
from shared.protocol.job import (
    CommandRun,
    ErrorBody,
    JobResult,
    JobState,
    PlannedChange,
    Proof,
    ResourceOutcome,
    ResourceReport,
)
from shared.specs.base import Presence

MAX_DIFFS_CHARACTERS: Final = 1024 * 1024
"""Of one result together."""


@dataclass(kw_only=True)
class Work:
    """Mutable, lives for one convergence."""

    job_id: str
    generation: int
    started_at: float
    before: dict[str, Holding]
    """What the subject held when it began."""
    changes: list[PlannedChange] = field(default_factory=list)
    reports: list[ResourceReport] = field(default_factory=list)
    proofs: list[Proof] = field(default_factory=list)
    actions: list[AnyAction] = field(default_factory=list)
    risks: list[str] = field(default_factory=list)
    parked: list[Target] = field(default_factory=list)
    kept: list[Holding] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    deferred: list[Deferred] = field(default_factory=list)
    commands: list[CommandRun] = field(default_factory=list)
    """Filled by the recorder while the work goes on."""

    def add_change(self, change: PlannedChange) -> None:
        """Keep the explanation of one action; its diff only while the result still fits into a frame."""
        used = sum(len(earlier.diff) for earlier in self.changes)
        if used + len(change.diff) > MAX_DIFFS_CHARACTERS:
            change = msgspec.structs.replace(change, diff="(left out: the result would be too large)\n")
        self.changes.append(change)

    def park(self, target: Target, error: ErrorBody, *, diff: str = "") -> None:
        """The resource failed, was undone, and stays as it was. `diff`: what the change would have made of files."""
        self.parked.append(target)
        report = ResourceReport(key=target.key, outcome=ResourceOutcome.PARKED, error=error, diff=diff or msgspec.UNSET)
        self.reports.append(report)

    def hold(self, target: Target, note: str) -> None:
        """The resource is left alone."""
        self.reports.append(ResourceReport(key=target.key, outcome=ResourceOutcome.HELD, note=note))

    def settle(self, target: Target, *, has_changed: bool, note: str, verification: Verification) -> None:
        """The resource is as it should be."""
        self.proofs.extend(verification.proofs)
        self.reports.append(settled_report(target, has_changed=has_changed, note=note))
        if target.presence is Presence.ABSENT:
            self.dropped.append(target.key)
        else:
            self.kept.append(Holding(spec=target.spec, presence=target.presence))

    def draft(self, *, applied: Applied | None, reloads: tuple[str, ...]) -> Draft:
        """What will be committed, the deferred resources still open."""
        result = JobResult(
            job_id=self.job_id,
            state=JobState.STARTED,
            generation=self.generation,
            changes=tuple(self.changes),
            resources=tuple(self.reports),
            proofs=tuple(self.proofs),
            reloads=reloads,
            commands=tuple(self.commands) or msgspec.UNSET,
            risks=tuple(dict.fromkeys(self.risks)),
            started_at=self.started_at,
        )
        return Draft(
            result=result,
            applied=applied,
            kept=tuple(self.kept),
            dropped=tuple(self.dropped),
            deferred=tuple(self.deferred),
        )


def settled_report(target: Target, *, has_changed: bool, note: str) -> ResourceReport:
    """The report of a resource that is as it should be."""
    if not has_changed:
        outcome = ResourceOutcome.UNCHANGED
    elif target.presence is Presence.ABSENT:
        outcome = ResourceOutcome.REMOVED
    else:
        outcome = ResourceOutcome.CHANGED
    return ResourceReport(key=target.key, outcome=outcome, note=note)


def judge(reports: tuple[ResourceReport, ...]) -> tuple[JobState, ErrorBody | None]:
    """A job succeeded when nothing is parked by it; else its error names the first of them."""
    parked = [report for report in reports if report.outcome is ResourceOutcome.PARKED]
    if not parked:
        return JobState.SUCCEEDED, None
    first = parked[0]
    words = first.error.message if first.error is not None else ""
    more = f" (and {len(parked) - 1} more)" if len(parked) > 1 else ""
    return JobState.FAILED, ErrorBody(
        code="resources_parked",
        message=f"{first.key}: {words}{more}",
        hint="What is parked stays as it was; all else was applied. Correct it and retry, or discard the change.",
        context={"parked": [report.key for report in parked]},
    )
