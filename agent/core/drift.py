"""Drift: a plan of what the node holds that is not empty. Reported, or repaired when the signed manifest said so."""

from __future__ import annotations

import math
from typing import Final

from agent.core.context import NodeContext
from agent.core.explanation import cut_diff
from agent.core.lanes import Lanes
from agent.core.planning import plan_held_targets
from agent.core.reconciler import Convergence, Reconciler
from agent.core.recovery import quarantine
from agent.core.watch import Watch
from shared.errors import RollbackError
from shared.protocol.frames import DriftFinding, DriftReport
from shared.protocol.job import JobResult, PlannedChange, ResourceOutcome, ResourceReport
from shared.specs.manifest import NODE_SUBJECT, DriftPolicy

CHECK_SECONDS: Final = 120.0
REPAIR_SECONDS: Final = 900.0
MAX_SUMMARY_CHARACTERS: Final = 1000


class DriftCheck:
    """Compares subjects with what was applied to them, one lane at a time."""

    def __init__(self, node: NodeContext, reconciler: Reconciler, lanes: Lanes) -> None:
        self._node = node
        self._reconciler = reconciler
        self._lanes = lanes

    async def check(self, subjects: tuple[str, ...], *, may_repair: bool) -> tuple[DriftReport, list[JobResult]]:
        """Look at these subjects (none named: all), and repair where the policy says so.

        Returns the report and, for each subject, the plan it rests on.
        """
        names = subjects or tuple(self._node.journal.ledger.list_subjects())
        findings: list[DriftFinding] = []
        previews: list[JobResult] = []
        for subject in names:
            async with self._lanes.hold(subject, order=math.inf):
                try:
                    preview = await self._reconciler.preview(self._request(subject, CHECK_SECONDS), watch=Watch())
                except TimeoutError:
                    summary = f"it could not be compared within {CHECK_SECONDS:.0f} s"
                    findings.append(DriftFinding(subject=subject, key=subject, summary=summary))
                    continue
                previews.append(preview)
                findings.extend(await self._judge(subject, preview, may_repair=may_repair))
        return DriftReport(subjects=names, findings=tuple(findings), checked_at=self._node.now()), previews

    def _request(self, subject: str, max_runtime_seconds: float) -> Convergence:
        applied = self._node.journal.ledger.find_applied(subject)
        return Convergence(
            subject=subject,
            targets=plan_held_targets(self._node.journal.ledger.holdings(subject)),
            generation=0 if applied is None else applied.generation,
            max_runtime_seconds=max_runtime_seconds,
            shows_whole_files=True,
        )

    async def _judge(self, subject: str, preview: JobResult, *, may_repair: bool) -> list[DriftFinding]:
        drifted = [report for report in preview.resources if report.outcome is not ResourceOutcome.UNCHANGED]
        if not drifted:
            return []
        repaired: frozenset[str] = frozenset()
        if may_repair and self._is_repair_wanted(subject) and not self._node.journal.quarantine:
            repaired = await self._repair(subject)
        return [_finding(subject, report, preview.changes, is_repaired=report.key in repaired) for report in drifted]

    def _is_repair_wanted(self, subject: str) -> bool:
        """The node's own manifest decides: it comes as soon as the policy changes, an account's with the next one."""
        ledger = self._node.journal.ledger
        applied = ledger.find_applied(NODE_SUBJECT) or ledger.find_applied(subject)
        return applied is not None and applied.drift_policy is DriftPolicy.REPAIR

    async def _repair(self, subject: str) -> frozenset[str]:
        """Converge to what holds; the keys that are now as they should be."""
        request = self._request(subject, REPAIR_SECONDS)
        try:
            result = await self._reconciler.converge(request, watch=Watch())
        except RollbackError as error:
            quarantine(self._node, error, job_id=None)
            return frozenset()
        if result.is_rolled_back:
            return frozenset()
        good = (ResourceOutcome.CHANGED, ResourceOutcome.UNCHANGED)
        return frozenset(report.key for report in result.resources if report.outcome in good)


def _finding(
    subject: str, report: ResourceReport, changes: tuple[PlannedChange, ...], *, is_repaired: bool
) -> DriftFinding:
    own = [change for change in changes if change.resource == report.key]
    if report.error is not None:
        summary = f"it cannot be compared: {report.error.message}"
    else:
        summary = "; ".join(f"{change.target}: {change.reason}" for change in own) or report.note
    return DriftFinding(
        subject=subject,
        key=report.key,
        summary=summary[:MAX_SUMMARY_CHARACTERS],
        diff=cut_diff("".join(change.diff for change in own)),
        is_repaired=is_repaired,
    )
