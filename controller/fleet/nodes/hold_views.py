"""Holds and health of nodes as the API shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from controller.fleet.nodes.health import HealthReason, thaw_reasons
from controller.fleet.nodes.health_models import ModuleHealthRow, NodeSignals
from controller.jobs.holds import HoldKind, NodeHold


class HoldView(msgspec.Struct, frozen=True, kw_only=True):
    """Why a node gets no work now."""

    kind: HoldKind
    reason: str
    since: datetime
    until: Annotated[
        datetime | None,
        Meta(description="Maintenance: when it ends by itself. Drain: its deadline. Null: when somebody ends it."),
    ]
    by: Annotated[str, Meta(description="kind/ID of who asked for it.")]
    by_name: str


class HealthReasonView(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is not as it should be."""

    code: Annotated[str, Meta(examples=["offline", "module_unhealthy", "disk_full"])]
    severity: Annotated[str, Meta(description="critical, warning or info.")]
    message: str
    since: datetime | None


class NodeHealthView(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a node is well."""

    status: Annotated[str, Meta(description="healthy, degraded, unhealthy, or unknown until something was heard.")]
    is_muted: Annotated[bool, Meta(description="Somebody works on it, so nobody shall be called for it.")]
    changed_at: datetime | None
    reasons: tuple[HealthReasonView, ...]


class HealthCheckView(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at."""

    name: Annotated[str, Meta(description="service, listening, config, promise or look.")]
    is_good: bool
    note: str = ""


class ModuleHealthView(msgspec.Struct, frozen=True, kw_only=True):
    """The last look at a module."""

    is_healthy: bool
    checks: tuple[HealthCheckView, ...]
    version: Annotated[str, Meta(description="Of the service's package on the node.")]
    last_reload_at: Annotated[datetime | None, Meta(description="When the service last started or reloaded.")]
    checked_at: datetime
    changed_at: Annotated[datetime, Meta(description="Since when it is healthy, or is not.")]


def render_hold_view(hold: NodeHold) -> HoldView:
    """The view of a hold."""
    return HoldView(
        kind=hold.kind,
        reason=hold.reason,
        since=hold.since,
        until=hold.until,
        by=hold.actor,
        by_name=hold.actor_name,
    )


def render_health(signals: NodeSignals | None, *, is_muted: bool, is_connected: bool) -> NodeHealthView:
    """The view of a judgement. A node of which nothing bad was ever said has none, and is well while it is there."""
    if signals is None:
        status = "healthy" if is_connected else "unknown"
        return NodeHealthView(status=status, is_muted=is_muted, changed_at=None, reasons=())
    return NodeHealthView(
        status=signals.status,
        is_muted=is_muted,
        changed_at=signals.status_changed_at,
        reasons=tuple(_view_reason(reason) for reason in thaw_reasons(signals.reasons)),
    )


def render_module_health(row: ModuleHealthRow) -> ModuleHealthView:
    """The view of a look."""
    return ModuleHealthView(
        is_healthy=row.is_healthy,
        checks=msgspec.convert(row.checks, tuple[HealthCheckView, ...]),
        version=row.version,
        last_reload_at=row.last_reload_at,
        checked_at=row.checked_at,
        changed_at=row.changed_at,
    )


def _view_reason(reason: HealthReason) -> HealthReasonView:
    return HealthReasonView(code=reason.kind, severity=reason.severity, message=reason.message, since=reason.since)
