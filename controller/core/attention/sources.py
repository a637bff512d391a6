"""Where items come from: jobs, parked resources, nodes, drift, usage."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Final

import msgspec
from msgspec import Meta
from sqlalchemy import and_, exists, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from controller.core.accounts.models import Account
from controller.core.audit.witness_models import AuditContradiction
from controller.core.limits.registry import LimitRegistry
from controller.core.packages.rollouts.models import PackageRollout
from controller.core.parked.models import ParkedResource
from controller.core.resellers.caps import list_over, read_promised
from controller.core.tenancy.models import Reseller
from controller.core.usage.models import AccountUsage
from controller.core.webhooks.models import WebhookEndpoint
from controller.fleet.models import DriftFindingRow, Node, NodeState
from controller.fleet.nodes.health_models import NodeSignals
from controller.fleet.rollouts.models import RolloutState
from controller.jobs.holds import held_node_ids
from controller.jobs.models import Job
from controller.jobs.states import NEEDS_ATTENTION, UNFINISHED, JobState
from shared.protocol.job import ACTION_CONVERGE, JobMode, Semantics

PER_SOURCE_MAX: Final = 1000
CRITICAL: Final = "critical"
WARNING: Final = "warning"
RESELLER: Final = "reseller"
"""Kind of what a reseller is told of itself, too; other items without an account are the platform's."""


class AttentionAction(msgspec.Struct, frozen=True, kw_only=True):
    """Something that may be done about an item."""

    name: Annotated[str, Meta(examples=["retry", "discard", "explain"])]
    description: str
    command: Annotated[str, Meta(description="The same on the command line.")]
    method: str
    path: Annotated[str, Meta(description="Below /api/v1.")]


class AttentionItem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a person should look at."""

    id: Annotated[str, Meta(description="kind.ID, the same as long as it is there.")]
    kind: Annotated[
        str, Meta(description="job, parked, node, approval, drift, usage, reseller, package_rollout, webhook or audit.")
    ]
    severity: Annotated[str, Meta(description="critical or warning.")]
    title: str
    detail: str
    since: datetime
    node_id: str | None
    node_name: str
    account_id: str | None
    is_muted: Annotated[bool, Meta(description="Its node is in maintenance, or being drained.")]
    actions: tuple[AttentionAction, ...]
    fingerprint: Annotated[str, Meta(description="Of what it says; another one is a new item.")]
    dismissed_by: str | None = None
    dismiss_note: str | None = None


async def read_items(session: AsyncSession, limits: LimitRegistry, *, now: datetime) -> list[AttentionItem]:
    """Everything there is, in no order."""
    names = {row[0]: row[1] for row in (await session.execute(select(Node.id, Node.name))).all()}
    held = await held_node_ids(session)
    found = [
        *await _of_jobs(session),
        *await _of_parked(session),
        *await _of_nodes(session),
        *await _of_drift(session, now),
        *await _of_usage(session),
        *await _of_resellers(session, limits),
        *await _of_webhooks(session),
        *await _of_audit(session),
        *await _of_package_rollouts(session),
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
    actions = [_action("explain", "Tell all that is known of it.", f"jobs explain {job.id}", "GET", f"/jobs/{job.id}")]
    if needs_decision:
        path = f"/jobs/{job.id}/decide"
        actions.append(_action("done", "It was done: close it.", f"jobs decide {job.id} --decision done", "POST", path))
        actions.append(_action("again", "Run it again.", f"jobs decide {job.id} --decision again", "POST", path))
    else:
        actions.append(_action("retry", "Ask again.", f"jobs retry {job.id}", "POST", f"/jobs/{job.id}/retry"))
    actions.append(_action("discard", "Put it aside.", f"jobs discard {job.id}", "POST", f"/jobs/{job.id}/discard"))
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
        fingerprint=_fingerprint(job.state.value, job.error_code or ""),
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
            _action("explain", "Tell all of its job.", f"jobs explain {row.job_id}", "GET", f"/jobs/{row.job_id}"),
            _action("retry", "Try it again.", f"parked retry {row.id}", "POST", f"{base}/retry"),
            _action("discard", "Want again what the node has.", f"parked discard {row.id}", "POST", f"{base}/discard"),
        ),
        fingerprint=_fingerprint(row.code, row.message, str(row.generation)),
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
            _action("show", "Show the node.", f"nodes show {node.name}", "GET", f"/nodes/{node.id}"),
            _action(
                "maintenance",
                "Say that somebody works on it.",
                f"nodes start-maintenance {node.name} --reason WORDS",
                "POST",
                f"/nodes/{node.id}/maintenance",
            ),
        ),
        fingerprint=_fingerprint(signals.status, *sorted(codes)),
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
            _action("approve", "Let it in.", f"nodes approve {node.name}", "POST", f"{base}/approve"),
            _action("reject", "Send it away.", f"nodes reject {node.name}", "POST", f"{base}/reject"),
        ),
        fingerprint=_fingerprint("pending"),
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
            _action("repair", "Bring it back.", f"drift repair {row.id}", "POST", f"{base}/repair"),
            _action("adopt", "Want what is there.", f"drift adopt {row.id}", "POST", f"{base}/adopt"),
            _action(
                "ignore",
                "Live with it for a while.",
                f"drift ignore {row.id} --until TIME --reason WORDS",
                "POST",
                f"{base}/ignore",
            ),
        ),
        fingerprint=_fingerprint(row.summary, row.diff),
    )


async def _of_usage(session: AsyncSession) -> list[AttentionItem]:
    """Accounts that are over a limit of their package, or over the value from which on somebody is warned."""
    statement = (
        select(AccountUsage, Account)
        .join(Account, Account.id == AccountUsage.account_id)
        .where(
            Account.deleted_at.is_(None),
            or_(AccountUsage.over_since.is_not(None), AccountUsage.near_since.is_not(None)),
        )
        .order_by(AccountUsage.id.desc())
        .limit(PER_SOURCE_MAX)
    )
    return [_view_usage(row, account) for row, account in (await session.execute(statement)).all()]


def _view_usage(row: AccountUsage, account: Account) -> AttentionItem:
    is_over = row.over_since is not None
    words = "is over its limit of" if is_over else "nears its limit of"
    base = f"/accounts/{account.id}"
    return AttentionItem(
        id=f"usage.{row.id}",
        kind="usage",
        severity=CRITICAL if is_over else WARNING,
        title=f"account {account.name} {words} {row.limit_key}",
        detail=f"{row.used} used; warned above {row.soft if row.soft is not None else 'none'}, "
        f"allowed {row.hard if row.hard is not None else 'any number'}",
        since=row.over_since or row.near_since or row.measured_at,
        node_id=account.node_id,
        node_name="",
        account_id=account.id,
        is_muted=False,
        actions=(
            _action("show", "Show all it uses.", f"accounts list-usage {account.name}", "GET", f"{base}/usage"),
            _action(
                "change-package",
                "Give it a larger package.",
                f"accounts update {account.name} --package-id NAME",
                "PATCH",
                base,
            ),
        ),
        fingerprint=_fingerprint("over" if is_over else "near", row.limit_key),
    )


async def _of_package_rollouts(session: AsyncSession) -> list[AttentionItem]:
    """Edits of packages that stopped by themselves on their way over the accounts."""
    statement = select(PackageRollout).where(PackageRollout.state == RolloutState.HALTED)
    rows = await session.scalars(statement.order_by(PackageRollout.id.desc()).limit(PER_SOURCE_MAX))
    return [_view_package_rollout(row) for row in rows]


def _view_package_rollout(row: PackageRollout) -> AttentionItem:
    base, call = f"/package-rollouts/{row.id}", f"package-rollouts resume {row.id}"
    back = "Take the edit back everywhere."
    return AttentionItem(
        id=f"package_rollout.{row.id}",
        kind="package_rollout",
        severity=CRITICAL,
        title=f"version {row.version} of the package {row.package_name} is halted in wave {row.wave + 1}",
        detail=row.blocked_by,
        since=row.updated_at,
        node_id=None,
        node_name="",
        account_id=None,
        is_muted=False,
        actions=(
            _action("retry", "Try the accounts that failed again.", f"{call} --is-retrying", "POST", f"{base}/resume"),
            _action("resume", "Go on without them.", call, "POST", f"{base}/resume"),
            _action("return", back, f"package-rollouts return {row.id}", "POST", f"{base}/return"),
        ),
        fingerprint=_fingerprint(row.blocked_by, str(row.updated_at)),
    )


async def _of_resellers(session: AsyncSession, limits: LimitRegistry) -> list[AttentionItem]:
    """Resellers whose accounts were promised more than they have to hand out."""
    rows = (await session.scalars(select(Reseller).where(Reseller.deleted_at.is_(None)))).all()
    capped = [row for row in rows if row.caps]
    promised = await read_promised(session, limits, [row.id for row in capped])
    over = [(row, list_over(row, promised[row.id])) for row in capped]
    return [_view_reseller(row, keys) for row, keys in over if keys]


def _view_reseller(row: Reseller, keys: Sequence[str]) -> AttentionItem:
    base = f"/resellers/{row.id}"
    return AttentionItem(
        id=f"reseller.{row.id}",
        kind=RESELLER,
        severity=WARNING,
        title=f"reseller {row.name} handed out more than it has",
        detail=f"more than the cap allows of {', '.join(keys)}; nothing more of it is promised",
        since=row.updated_at,
        node_id=None,
        node_name="",
        account_id=None,
        is_muted=False,
        actions=(
            _action("show", "Show all it handed out.", f"resellers list-usage {row.id}", "GET", f"{base}/usage"),
            _action("raise", "Give it more.", f"resellers update {row.id} --caps KEY=AMOUNT", "PATCH", base),
        ),
        fingerprint=_fingerprint(*keys),
    )


async def _of_webhooks(session: AsyncSession) -> list[AttentionItem]:
    statement = select(WebhookEndpoint).where(
        WebhookEndpoint.paused_at.is_not(None), WebhookEndpoint.is_enabled.is_(True)
    )
    rows = await session.scalars(statement.order_by(WebhookEndpoint.id.desc()).limit(PER_SOURCE_MAX))
    return [_view_webhook(row) for row in rows]


def _view_webhook(row: WebhookEndpoint) -> AttentionItem:
    base, call = f"/webhooks/{row.id}", f"webhooks resume {row.id}"
    return AttentionItem(
        id=f"webhook.{row.id}",
        kind="webhook",
        severity=WARNING,
        title=f"the webhook {row.url[:200]} is paused",
        detail=row.pause_reason,
        since=row.paused_at or row.updated_at,
        node_id=None,
        node_name="",
        account_id=None,
        is_muted=False,
        actions=(
            _action("resume", "Send it what was kept, and go on.", call, "POST", f"{base}/resume"),
            _action("delete", "Nobody needs it.", f"webhooks delete {row.id}", "DELETE", base),
        ),
        fingerprint=_fingerprint(str(row.paused_at), row.pause_reason),
    )


async def _of_audit(session: AsyncSession) -> list[AttentionItem]:
    """It never goes away by itself: somebody has to look, and to put it aside."""
    statement = select(AuditContradiction).order_by(AuditContradiction.id.desc()).limit(PER_SOURCE_MAX)
    return [_view_contradiction(row) for row in await session.scalars(statement)]


def _view_contradiction(row: AuditContradiction) -> AttentionItem:
    return AttentionItem(
        id=f"audit.{row.id}",
        kind="audit",
        severity=CRITICAL,
        title="a node was shown another audit log before",
        detail=f"{row.code}: shown {row.shown_number} entries, and it knows an end at {row.known_number}. "
        "A restored backup, or somebody rewrote the log: compare with an export.",
        since=row.at,
        node_id=row.node_id,
        node_name="",
        account_id=None,
        is_muted=False,
        actions=(_action("verify", "Walk along the whole log.", "audit verify", "GET", "/audit/verify"),),
        fingerprint=_fingerprint(row.code, str(row.known_number)),
    )


def _action(name: str, description: str, command: str, method: str, path: str) -> AttentionAction:
    return AttentionAction(name=name, description=description, command=f"wcp360 {command}", method=method, path=path)


def _fingerprint(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
