"""Where items come from: jobs, parked resources, nodes, drift, usage."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec
from sqlalchemy import and_, exists, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from controller.core.attention.business_sources import (
    list_of_audit,
    list_of_package_rollouts,
    list_of_resellers,
    list_of_rules,
    list_of_usage,
    list_of_webhooks,
)
from controller.core.attention.items import (
    CRITICAL,
    PER_SOURCE_MAX,
    WARNING,
    AttentionItem,
    act,
    make_fingerprint,
)
from controller.core.limits.registry import LimitRegistry
from controller.core.parked.models import ParkedResource
from controller.fleet.models import DriftFindingRow, Node, NodeState
from controller.fleet.nodes.health_models import NodeSignals
from controller.jobs.holds import held_node_ids
from controller.jobs.models import Job
from controller.jobs.states import NEEDS_ATTENTION, UNFINISHED, JobState
from shared.protocol.job import ACTION_CONVERGE, JobMode, Semantics


async def read_items(session: AsyncSession, limits: LimitRegistry, *, now: datetime) -> list[AttentionItem]:
    """Everything there is, in no order."""
    names = {row[0]: row[1] for row in (await session.execute(select(Node.id, Node.name))).all()}
    held = await held_node_ids(session)
    found = [
        *await _of_jobs(session),
        *await _of_parked(session),
        *await _of_nodes(session),
        *await _of_drift(session, now),
        *await list_of_usage(session),
        *await list_of_resellers(session, limits),
        *await list_of_rules(session),
        *await list_of_webhooks(session),
        *await list_of_audit(session),
        *await list_of_package_rollouts(session),
    ]
    return [_with_node(item, names, held) for item in found]


def _with_node(item: AttentionItem, names: Mapping[str, str], held: frozenset[str]) -> AttentionItem:
    if item.node_id is None:
        return item
    return msgspec.structs.replace(
        item, node_name=names.get(item.node_id, ""), is_muted=item.node_id in held and item.kind in ("node", "drift")
    )


async def _of_jobs(session: AsyncSession) -> list[AttentionItem]:
    """Jobs that failed, unless a newer one of the same subject made them history, or the parked list has more."""
    later = aliased(Job)
    is_history = exists().where(
        later.node_id == Job.node_id,
        later.resource_key == Job.resource_key,
        later.action == Job.action,
        later.mode == JobMode.APPLY,
        later.id > Job.id,
        or_(later.state == JobState.SUCCEEDED, later.state.in_(UNFINISHED), later.state.in_(NEEDS_ATTENTION)),
    )
    is_parked = exists().where(ParkedResource.job_id == Job.id)
    statement = select(Job).where(
        Job.state.in_(NEEDS_ATTENTION),
        Job.mode == JobMode.APPLY,
        ~and_(Job.action == ACTION_CONVERGE, is_history),
        ~is_parked,
    )
    rows = await session.scalars(statement.order_by(Job.id.desc()).limit(PER_SOURCE_MAX))
    return [_view_job(job) for job in rows]


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
        severity=CRITICAL if job.state in (JobState.STUCK, JobState.INDETERMINATE) else WARNING,
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


async def _of_parked(session: AsyncSession) -> list[AttentionItem]:
    statement = select(ParkedResource).order_by(ParkedResource.id.desc()).limit(PER_SOURCE_MAX)
    return [_view_parked(row) for row in await session.scalars(statement)]


def _view_parked(row: ParkedResource) -> AttentionItem:
    base = f"/parked/{row.id}"
    return AttentionItem(
        id=f"parked.{row.id}",
        kind="parked",
        severity=CRITICAL if row.kind in ("account", "module", "node") else WARNING,
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


async def _of_nodes(session: AsyncSession) -> list[AttentionItem]:
    statement = (
        select(Node, NodeSignals)
        .join(NodeSignals, NodeSignals.id == Node.id)
        .where(Node.state == NodeState.ACTIVE, NodeSignals.status.in_(("unhealthy", "degraded")))
        .order_by(Node.id.desc())
        .limit(PER_SOURCE_MAX)
    )
    items = [_view_node(node, signals) for node, signals in (await session.execute(statement)).all()]
    pending = select(Node).where(Node.state == NodeState.PENDING).order_by(Node.id.desc()).limit(PER_SOURCE_MAX)
    return [*items, *(_view_pending(node) for node in await session.scalars(pending))]


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


async def _of_drift(session: AsyncSession, now: datetime) -> list[AttentionItem]:
    until = DriftFindingRow.ignored_until
    statement = select(DriftFindingRow).where(
        DriftFindingRow.is_repaired.is_(False), or_(until.is_(None), until <= now)
    )
    rows = await session.scalars(statement.order_by(DriftFindingRow.id.desc()).limit(PER_SOURCE_MAX))
    return [_view_drift(row) for row in rows]


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
