"""Nodes, modules, tokens and drift as the API shows them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from controller.fleet.limits import FAILURES_MAX
from controller.fleet.models import ApprovalMode, DriftFindingRow, EnrolmentTokenRow, Node, NodeModule, NodeState
from controller.fleet.nodes.health_models import ModuleHealthRow, NodeSignals
from controller.fleet.nodes.hold_views import (
    HoldView,
    ModuleHealthView,
    NodeHealthView,
    render_health,
    render_hold_view,
    render_module_health,
)
from controller.fleet.nodes.metrics import NodeSample
from controller.jobs.holds import NodeHold
from shared.specs.base import Presence
from shared.specs.manifest import DriftPolicy


class NodeView(msgspec.Struct, frozen=True, kw_only=True):
    """One machine of the fleet."""

    id: str
    name: str
    state: NodeState
    quarantine_reason: Annotated[str, Meta(description="Why nobody may use its identity now; empty when one may.")]
    roles: list[str]
    labels: dict[str, str]
    is_cordoned: Annotated[bool, Meta(description="No new accounts are placed on it.")]
    drift_policy: DriftPolicy
    holds: Annotated[tuple[HoldView, ...], Meta(description="Why it gets no work now: maintenance, drain.")]
    health: NodeHealthView
    is_connected: bool
    connected_at: datetime | None
    last_seen_at: datetime | None
    facts: Annotated[dict[str, str], Meta(description="As the machine said when it enrolled.")]
    agent_version: str
    agent_build: Annotated[str, Meta(description="The release that it runs; empty for agents without an updater.")]
    modules_available: Annotated[dict[str, str], Meta(description="Module to version, of all that its agent can run.")]
    desired_generation: Annotated[int, Meta(description="Of the node's own manifest.")]
    observed_generation: int
    observed_status: Annotated[str, Meta(description="unknown, ok, parked or failed.")]
    observed_at: datetime | None
    certificate_not_after: Annotated[datetime | None, Meta(description="When its newest certificate ends.")]
    fingerprint_words: Annotated[
        str | None, Meta(description="Set while it waits for approval: compare with what the machine shows.")
    ]
    created_at: datetime


class NodeMetricsView(msgspec.Struct, frozen=True, kw_only=True):
    """How a node is doing."""

    at: Annotated[datetime, Meta(description="When the controller heard it.")]
    gauges: Annotated[
        dict[str, float],
        Meta(
            description="By name: cpu_percent, load_1, memory_used_bytes, disk_accounts_used_bytes, uptime_seconds "
            "and others; accounts.NAME.memory_bytes and the like for each account that runs something."
        ),
    ]


class NodeDetailView(NodeView, frozen=True, kw_only=True):
    """One machine of the fleet, and how it is doing."""

    metrics: Annotated[
        NodeMetricsView | None,
        Meta(description="The last sample; none while it is not connected, or when the last one is old."),
    ]


class NodePage(msgspec.Struct, frozen=True, kw_only=True):
    """Nodes, newest first."""

    items: tuple[NodeView, ...]
    next_cursor: str | None


class NodeUpdate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may change about a node; what is left out stays."""

    roles: Annotated[list[str], Meta(max_length=16)] | msgspec.UnsetType = msgspec.UNSET
    """A new role brings its modules; taking one away leaves them and only stops placement."""
    labels: Annotated[dict[str, str], Meta(max_length=100)] | msgspec.UnsetType = msgspec.UNSET
    is_cordoned: bool | msgspec.UnsetType = msgspec.UNSET
    drift_policy: DriftPolicy | msgspec.UnsetType = msgspec.UNSET


class NodeModuleView(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a module a node shall have, and what it said about it."""

    name: str
    node_id: str
    presence: Annotated[Presence, Meta(description="What is wanted: absent, disabled or enabled.")]
    settings: dict[str, str]
    observed_status: Annotated[str, Meta(description="unknown, absent, disabled, enabled or parked.")]
    observed_note: str
    observed_at: datetime | None
    health: Annotated[
        ModuleHealthView | None, Meta(description="The last look at it; none while it is not enabled.")
    ] = None


class NodeModuleList(msgspec.Struct, frozen=True, kw_only=True):
    """Modules of one node, by name."""

    items: tuple[NodeModuleView, ...]
    next_cursor: str | None = None


class NodeModuleSet(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much of a module the node shall have."""

    presence: Presence
    settings: Annotated[dict[str, str], Meta(max_length=64)] = msgspec.field(default_factory=dict)


class EnrolmentTokenView(msgspec.Struct, frozen=True, kw_only=True):
    """An enrolment token, without its secret."""

    id: str
    name: str
    state: Annotated[str, Meta(description="open, used, expired or locked (too many wrong uses).")]
    approval: ApprovalMode
    roles: list[str]
    allowed_networks: list[str]
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None
    failures: int


class EnrolmentTokenPage(msgspec.Struct, frozen=True, kw_only=True):
    """Enrolment tokens, newest first."""

    items: tuple[EnrolmentTokenView, ...]
    next_cursor: str | None


class DriftFindingView(msgspec.Struct, frozen=True, kw_only=True):
    """One resource that is not as it was applied."""

    id: str
    node_id: str
    subject: Annotated[str, Meta(examples=["account/ada"])]
    key: Annotated[str, Meta(examples=["site/example.com"])]
    summary: str
    diff: str
    is_repaired: Annotated[bool, Meta(description="The node put it right by itself, by policy.")]
    found_at: datetime
    checked_at: datetime
    is_ignored: Annotated[
        bool, Meta(description="Somebody decided to live with it for now; it does not count as open.")
    ]
    ignored_until: datetime | None
    ignored_by: Annotated[str, Meta(description="user/ID or token/ID.")]
    ignore_reason: str


class DriftIgnore(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Until when a finding is nothing to be told of."""

    until: Annotated[
        datetime, Meta(tz=True, description="When it is open again, 90 days from now at most; earlier if it changes.")
    ]
    reason: Annotated[
        str, Meta(min_length=1, max_length=500, examples=["Vendor's hotfix, replaced with the next release."])
    ]


class DriftPage(msgspec.Struct, frozen=True, kw_only=True):
    """Findings, newest first."""

    items: tuple[DriftFindingView, ...]
    next_cursor: str | None


def render_node(
    node: Node,
    *,
    not_after: datetime | None = None,
    words: str | None = None,
    holds: Sequence[NodeHold] = (),
    signals: NodeSignals | None = None,
) -> NodeView:
    """The view of a node."""
    return NodeView(
        id=node.id,
        name=node.name,
        state=node.state,
        quarantine_reason=node.quarantine_reason,
        roles=list(node.roles),
        labels=dict(node.labels),
        is_cordoned=node.is_cordoned,
        drift_policy=node.drift_policy,
        holds=tuple(render_hold_view(hold) for hold in holds),
        health=render_health(signals, is_muted=bool(holds), is_connected=node.is_connected),
        is_connected=node.is_connected,
        connected_at=node.connected_at,
        last_seen_at=node.last_seen_at,
        facts=dict(node.facts),
        agent_version=node.agent_version,
        agent_build=node.agent_build,
        modules_available=dict(node.modules_available),
        desired_generation=node.desired_generation,
        observed_generation=node.observed_generation,
        observed_status=node.observed_status,
        observed_at=node.observed_at,
        certificate_not_after=not_after,
        fingerprint_words=words,
        created_at=node.created_at,
    )


def render_node_detail(view: NodeView, sample: NodeSample | None) -> NodeDetailView:
    """The view of a node with its last sample."""
    metrics = None if sample is None else NodeMetricsView(at=sample.at, gauges=dict(sorted(sample.gauges.items())))
    return NodeDetailView(**msgspec.structs.asdict(view), metrics=metrics)


def render_module(row: NodeModule, health: ModuleHealthRow | None = None) -> NodeModuleView:
    """The view of a node's module."""
    return NodeModuleView(
        name=row.name,
        node_id=row.node_id,
        presence=row.presence,
        settings=dict(row.settings),
        observed_status=row.observed_status,
        observed_note=row.observed_note,
        observed_at=row.observed_at,
        health=render_module_health(health) if health is not None else None,
    )


def render_token(row: EnrolmentTokenRow, *, now: datetime) -> EnrolmentTokenView:
    """The view of a token."""
    is_used, is_locked = row.used_at is not None, row.failures >= FAILURES_MAX
    state = "used" if is_used else "locked" if is_locked else "expired" if row.expires_at <= now else "open"
    return EnrolmentTokenView(
        id=row.id,
        name=row.name,
        state=state,
        approval=row.approval,
        roles=list(row.roles),
        allowed_networks=list(row.allowed_networks),
        created_at=row.created_at,
        expires_at=row.expires_at,
        used_at=row.used_at,
        failures=row.failures,
    )


def render_finding(row: DriftFindingRow, *, now: datetime) -> DriftFindingView:
    """The view of a finding."""
    return DriftFindingView(
        id=row.id,
        node_id=row.node_id,
        subject=row.subject,
        key=row.key,
        summary=row.summary,
        diff=row.diff,
        is_repaired=row.is_repaired,
        found_at=row.found_at,
        checked_at=row.checked_at,
        is_ignored=row.is_ignored(now),
        ignored_until=row.ignored_until,
        ignored_by=row.ignored_by,
        ignore_reason=row.ignore_reason,
    )
