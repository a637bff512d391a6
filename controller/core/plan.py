"""The answer to a dry run: what would change in the database, and what every node would do about it."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from controller.core.context import Change
from shared.protocol.job import JobResult


class ChangeView(msgspec.Struct, frozen=True, kw_only=True):
    """One row that would change, as the audit log would say it."""

    action: Annotated[str, Meta(description="noun.verb.", examples=["site.create"])]
    target: Annotated[str, Meta(description="noun/ID; the ID of something new exists only in this answer.")]
    target_name: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class PlanStep(msgspec.Struct, frozen=True, kw_only=True):
    """One thing a node would do."""

    resource: Annotated[str, Meta(description="Which resource it is for.", examples=["site/example.com"])]
    action: Annotated[str, Meta(description="Type of the action.", examples=["write_file"])]
    kind: Annotated[str, Meta(description="create, update, delete or run.")]
    target: Annotated[str, Meta(description="Path, unit, user or package.")]
    reason: str
    diff: Annotated[str, Meta(description="Unified diff where the target is a text file.")] = ""
    undo: Annotated[str, Meta(description="What would take it back; empty when nothing can.")] = ""
    is_irreversible: bool = False


class PlannedResource(msgspec.Struct, frozen=True, kw_only=True):
    """What would become of one resource."""

    key: str
    outcome: Annotated[str, Meta(description="unchanged, changed, removed, parked or held.")]
    note: str = ""
    error: str = ""


class PlanProblem(msgspec.Struct, frozen=True, kw_only=True):
    """Why a node could not say what it would do, or could not do it."""

    code: str
    message: str
    hint: str | None = None


class NodePlan(msgspec.Struct, frozen=True, kw_only=True):
    """The plan of one node."""

    node: Annotated[str, Meta(description="ID of the node.")]
    subject: Annotated[str, Meta(description="What it is asked to bring about.", examples=["account/ada"])]
    job_id: Annotated[str, Meta(description="The plan job that was run; empty when the node did not answer.")] = ""
    changes: tuple[PlanStep, ...] = ()
    resources: tuple[PlannedResource, ...] = ()
    reloads: Annotated[tuple[str, ...], Meta(description="Units that would be reloaded or restarted.")] = ()
    risks: tuple[str, ...] = ()
    error: PlanProblem | None = None


class PlanView(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to `dry_run=true`: everything that would happen. Nothing was written, and no node was touched."""

    changes: Annotated[tuple[ChangeView, ...], Meta(description="Rows, in the order in which they would change.")]
    nodes: Annotated[
        tuple[NodePlan, ...],
        Meta(description="With `unplanned` 0, empty means that no node would have anything to do."),
    ]
    unplanned: Annotated[
        int,
        Meta(
            description="Accounts that would have their turn afterwards, in groups or in the waves of a rollout; their "
            "nodes were not asked.",
            ge=0,
        ),
    ] = 0


def view_change(change: Change) -> ChangeView:
    """As the audit log would keep it."""
    return ChangeView(
        action=change.action,
        target=change.target,
        target_name=change.target_name,
        before=change.before,
        after=change.after,
    )


def view_result(node_id: str, subject: str, result: JobResult) -> NodePlan:
    """A node's answer to a job of mode plan, for people."""
    error = result.error
    return NodePlan(
        node=node_id,
        subject=subject,
        job_id=result.job_id,
        changes=tuple(
            PlanStep(
                resource=change.resource,
                action=change.action,
                kind=change.kind.value,
                target=change.target,
                reason=change.reason,
                diff=change.diff,
                undo=change.undo,
                is_irreversible=change.is_irreversible,
            )
            for change in result.changes
        ),
        resources=tuple(
            PlannedResource(
                key=report.key,
                outcome=report.outcome.value,
                note=report.note,
                error=report.error.message if report.error else "",
            )
            for report in result.resources
        ),
        reloads=result.reloads,
        risks=result.risks,
        error=PlanProblem(code=error.code, message=error.message, hint=error.hint) if error else None,
    )
