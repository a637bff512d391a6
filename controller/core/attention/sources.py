"""Where items come from: jobs, parked resources, nodes, drift."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import ColumnElement, and_, exists, func, literal, or_, select
from sqlalchemy.orm import defer

from controller.core.attention.glances import NOW, Source
from controller.core.attention.items import CRITICAL, WARNING, AttentionItem, act, make_fingerprint
from controller.core.parked.models import ParkedResource
from controller.fleet.models import DriftFindingRow, Node, NodeState
from controller.fleet.nodes.health_models import NodeSignals
from controller.jobs.models import Job
from controller.jobs.states import NEEDS_ATTENTION, UNFINISHED, JobState
from shared.protocol.job import ACTION_CONVERGE, JobMode, Semantics

_HANGING: Final = (JobState.STUCK, JobState.INDETERMINATE)
# Plain tables: what a tenant's job is compared with is asked by that job's own keys, and needs no narrowing again.
_LATER: Final = Job.__table__.alias("later").c
_PARKED: Final = ParkedResource.__table__.alias("parked_of_job").c
_LARGE: Final = ("account", "module", "node")
"""Kinds of parked resources on which others stand."""


def _are_jobs() -> Sequence[ColumnElement[bool]]:
    """Jobs that failed, unless a newer one of the same subject made them history, or the parked list has more."""
    is_history = exists().where(
        _LATER.node_id == Job.node_id,
        _LATER.resource_key == Job.resource_key,
        _LATER.action == Job.action,
        _LATER.mode == JobMode.APPLY,
        _LATER.id > Job.id,
        or_(_LATER.state == JobState.SUCCEEDED, _LATER.state.in_(UNFINISHED), _LATER.state.in_(NEEDS_ATTENTION)),
    )
    is_parked = exists().where(_PARKED.job_id == Job.id)
    return (
        Job.state.in_(NEEDS_ATTENTION),
        Job.mode == JobMode.APPLY,
        ~and_(Job.action == ACTION_CONVERGE, is_history),
        ~is_parked,
    )


def _view_job(job: Job) -> AttentionItem:
    needs_decision = job.state is JobState.INDETERMINATE and job.semantics is Semantics.ONCE
    actions = [act("explain", "Tell all that is known of it.", f"jobs explain {job.id}", "GET", f"/jobs/{job.id}")]
    if needs_decision:
        path = f"/jobs/{job.id}/decide"
        actions.append(act("done", "It was done: close it.", f"jobs decide {job.id} --decision done", "POST", path))
        actions.append(act("again", "Run it again.", f"jobs decide {job.id} --decision again", "POST", path))
    else:
        actions.append(act("retry", "Ask again.", f"jobs retry {job.id}", "POST", f"/jobs/{job.id}/retry"))
    actions.append(act("discard", "Put it aside.", f"jobs discard {job.id}", "POST", f"/jobs/{job.id}/discard"))
    return AttentionItem(
        id=f"job.{job.id}",
        kind="job",
        severity=CRITICAL if job.state in _HANGING else WARNING,
        title=f"{job.label} is {job.state.value}",
        detail=job.error_message or "",
        since=job.finished_at or job.updated_at,
        node_id=job.node_id,
        node_name="",
        account_id=job.account_id,
        is_muted=False,
        actions=tuple(actions),
        fingerprint=make_fingerprint(job.state.value, job.error_code or ""),
    )


def _view_parked(row: ParkedResource) -> AttentionItem:
    base = f"/parked/{row.id}"
    return AttentionItem(
        id=f"parked.{row.id}",
        kind="parked",
        severity=CRITICAL if row.kind in _LARGE else WARNING,
        title=f"{row.key} is parked",
        detail=row.message,
        since=row.since,
        node_id=row.node_id,
        node_name="",
        account_id=row.account_id,
        is_muted=False,
        actions=(
            act("explain", "Tell all of its job.", f"jobs explain {row.job_id}", "GET", f"/jobs/{row.job_id}"),
            act("retry", "Try it again.", f"parked retry {row.id}", "POST", f"{base}/retry"),
            act("discard", "Want again what the node has.", f"parked discard {row.id}", "POST", f"{base}/discard"),
        ),
        fingerprint=make_fingerprint(row.code, row.message, str(row.generation)),
    )


def _view_node(node: Node, signals: NodeSignals) -> AttentionItem:
    reasons = [reason for reason in signals.reasons if reason["severity"] != "info"]
    codes = [str(reason["kind"]) for reason in reasons]
    return AttentionItem(
        id=f"node.{node.id}",
        kind="node",
        severity=CRITICAL if signals.status == "unhealthy" else WARNING,
        title=f"node {node.name} is {signals.status}: {', '.join(dict.fromkeys(codes))}",
        detail="; ".join(str(reason["message"]) for reason in reasons),
        since=signals.status_changed_at or signals.updated_at,
        node_id=node.id,
        node_name=node.name,
        account_id=None,
        is_muted=False,
        actions=(
            act("show", "Show the node.", f"nodes show {node.name}", "GET", f"/nodes/{node.id}"),
            act(
                "maintenance",
                "Say that somebody works on it.",
                f"nodes start-maintenance {node.name} --reason WORDS",
                "POST",
                f"/nodes/{node.id}/maintenance",
            ),
        ),
        fingerprint=make_fingerprint(signals.status, *sorted(codes)),
    )


def _view_pending(node: Node) -> AttentionItem:
    base = f"/nodes/{node.id}"
    return AttentionItem(
        id=f"approval.{node.id}",
        kind="approval",
        severity=WARNING,
        title=f"the machine {node.name} waits for approval",
        detail="Compare its six words with the ones that the machine shows.",
        since=node.created_at,
        node_id=node.id,
        node_name=node.name,
        account_id=None,
        is_muted=False,
        actions=(
            act("approve", "Let it in.", f"nodes approve {node.name}", "POST", f"{base}/approve"),
            act("reject", "Send it away.", f"nodes reject {node.name}", "POST", f"{base}/reject"),
        ),
        fingerprint=make_fingerprint("pending"),
    )


def _are_drift() -> Sequence[ColumnElement[bool]]:
    until = DriftFindingRow.ignored_until
    return (DriftFindingRow.is_repaired.is_(False), or_(until.is_(None), until <= NOW))


def _view_drift(row: DriftFindingRow) -> AttentionItem:
    base = f"/drift/{row.id}"
    return AttentionItem(
        id=f"drift.{row.id}",
        kind="drift",
        severity=WARNING,
        title=f"{row.key} is not as it was applied",
        detail=row.summary,
        since=row.found_at,
        node_id=row.node_id,
        node_name="",
        account_id=None,
        is_muted=False,
        actions=(
            act("repair", "Bring it back.", f"drift repair {row.id}", "POST", f"{base}/repair"),
            act("adopt", "Want what is there.", f"drift adopt {row.id}", "POST", f"{base}/adopt"),
            act(
                "ignore",
                "Live with it for a while.",
                f"drift ignore {row.id} --until TIME --reason WORDS",
                "POST",
                f"{base}/ignore",
            ),
        ),
        fingerprint=make_fingerprint(row.summary, row.diff),
    )


SOURCES: Final = (
    Source(
        kind="job",
        entities=select(Job).options(defer(Job.args)),
        where=_are_jobs,
        view=_view_job,
        id=Job.id,
        since=func.coalesce(Job.finished_at, Job.updated_at),
        is_critical=Job.state.in_(_HANGING),
        node_id=Job.node_id,
        account_id=Job.account_id,
    ),
    Source(
        kind="parked",
        entities=select(ParkedResource),
        where=tuple,
        view=_view_parked,
        id=ParkedResource.id,
        since=ParkedResource.since,
        is_critical=ParkedResource.kind.in_(_LARGE),
        node_id=ParkedResource.node_id,
        account_id=ParkedResource.account_id,
    ),
    Source(
        kind="node",
        entities=select(Node, NodeSignals).select_from(Node).join(NodeSignals, NodeSignals.id == Node.id),
        where=lambda: (Node.state == NodeState.ACTIVE, NodeSignals.status.in_(("unhealthy", "degraded"))),
        view=_view_node,
        id=Node.id,
        since=func.coalesce(NodeSignals.status_changed_at, NodeSignals.updated_at),
        is_critical=NodeSignals.status == "unhealthy",
        node_id=Node.id,
    ),
    Source(
        kind="approval",
        entities=select(Node),
        where=lambda: (Node.state == NodeState.PENDING,),
        view=_view_pending,
        id=Node.id,
        since=Node.created_at,
        is_critical=literal(value=False),
        node_id=Node.id,
    ),
    Source(
        kind="drift",
        entities=select(DriftFindingRow),
        where=_are_drift,
        view=_view_drift,
        id=DriftFindingRow.id,
        since=DriftFindingRow.found_at,
        is_critical=literal(value=False),
        node_id=DriftFindingRow.node_id,
    ),
)
