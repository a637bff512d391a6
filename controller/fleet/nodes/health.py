"""Whether a node is well, and why not: the one place where that is judged. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from controller.fleet.models import Node, NodeState
from controller.fleet.nodes.health_models import ModuleHealthRow, NodeSignals
from shared.version import __version__

CLOCK_SKEW_SECONDS: Final = 120.0
"""What a node's acceptance of jobs allows (agent.core.acceptance)."""
DISK_WARNING_PERCENT: Final = 90.0
DISK_CRITICAL_PERCENT: Final = 97.0
CERTIFICATE_WARNING: Final = timedelta(days=2)
"""Seven days, renewed at half of it: less than this means that renewing fails."""
OFFLINE_PATIENCE: Final = timedelta(seconds=60)
"""A restart of the controller or of an agent is no illness."""
CRITICAL: Final = "critical"
WARNING: Final = "warning"
INFO: Final = "info"


class HealthReason(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is not as it should be."""

    kind: str
    """offline, quarantined, clock_skew, disk_full, certificate_expiring, certificate_expired, module_unhealthy,
    module_parked, manifest_failed, seq_gaps or agent_outdated."""
    severity: str
    """critical, warning or info."""
    message: str
    since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What a judgement rests on."""

    node: Node
    signals: NodeSignals | None = None
    modules: Sequence[ModuleHealthRow] = ()
    parked_modules: Sequence[str] = ()
    certificate_not_after: datetime | None = None
    newest_build: str = ""
    """Of the release that nodes shall run; empty: not known."""
    extra: Sequence[HealthReason] = field(default_factory=tuple)


def judge_node(facts: NodeFacts, *, now: datetime) -> tuple[str, tuple[HealthReason, ...]]:
    """healthy, degraded or unhealthy (pending and revoked nodes: unknown), and the reasons, the worst first."""
    if facts.node.state is not NodeState.ACTIVE:
        return "unknown", ()
    reasons = [*_of_connection(facts, now), *_of_signals(facts), *_of_certificate(facts, now), *_of_modules(facts)]
    reasons += [*_of_agent(facts), *facts.extra]
    order = {CRITICAL: 0, WARNING: 1, INFO: 2}
    reasons.sort(key=lambda reason: order.get(reason.severity, 3))
    worst = reasons[0].severity if reasons else INFO
    status = {CRITICAL: "unhealthy", WARNING: "degraded"}.get(worst, "healthy")
    return status, tuple(reasons)


def freeze_reasons(reasons: Sequence[HealthReason]) -> list[dict[str, Any]]:
    """As the column keeps them."""
    frozen: list[dict[str, Any]] = msgspec.to_builtins(list(reasons))
    return frozen


def thaw_reasons(raw: Sequence[dict[str, Any]]) -> tuple[HealthReason, ...]:
    """What freeze_reasons made."""
    return msgspec.convert(raw, tuple[HealthReason, ...])


def _of_connection(facts: NodeFacts, now: datetime) -> list[HealthReason]:
    node = facts.node
    if node.is_connected:
        return []
    if node.last_seen_at is None:
        message = "it has never connected"
        return [HealthReason(kind="offline", severity=CRITICAL, message=message, since=node.created_at)]
    if node.last_seen_at > now - OFFLINE_PATIENCE:
        return []
    message = f"offline since {node.last_seen_at:%Y-%m-%d %H:%M} UTC"
    return [HealthReason(kind="offline", severity=CRITICAL, message=message, since=node.last_seen_at)]


def _of_signals(facts: NodeFacts) -> list[HealthReason]:
    signals = facts.signals
    if signals is None:
        return []
    reasons = []
    if signals.quarantine:
        message = f"its executor takes no jobs: {signals.quarantine}"
        reasons.append(HealthReason(kind="quarantined", severity=CRITICAL, message=message))
    if abs(signals.clock_skew_seconds) > CLOCK_SKEW_SECONDS:
        message = f"its clock is {signals.clock_skew_seconds:+.0f} s off: jobs may be refused"
        reasons.append(HealthReason(kind="clock_skew", severity=CRITICAL, message=message))
    if signals.disk_used_percent is not None and signals.disk_used_percent >= DISK_WARNING_PERCENT:
        severity = CRITICAL if signals.disk_used_percent >= DISK_CRITICAL_PERCENT else WARNING
        message = f"a disk is {signals.disk_used_percent:.0f} % full"
        reasons.append(HealthReason(kind="disk_full", severity=severity, message=message))
    if signals.seq_gaps:
        message = f"{signals.seq_gaps} job numbers never arrived there: something between us drops frames"
        reasons.append(HealthReason(kind="seq_gaps", severity=WARNING, message=message))
    return reasons


def _of_certificate(facts: NodeFacts, now: datetime) -> list[HealthReason]:
    end = facts.certificate_not_after
    if end is None or end > now + CERTIFICATE_WARNING:
        return []
    if end <= now:
        message = f"its certificate ended at {end:%Y-%m-%d %H:%M} UTC"
        return [HealthReason(kind="certificate_expired", severity=CRITICAL, message=message, since=end)]
    message = f"its certificate ends at {end:%Y-%m-%d %H:%M} UTC and should have been renewed"
    return [HealthReason(kind="certificate_expiring", severity=WARNING, message=message)]


def _of_modules(facts: NodeFacts) -> list[HealthReason]:
    reasons = []
    for row in facts.modules:
        if row.is_healthy:
            continue
        bad = "; ".join(f"{check['name']}: {check.get('note', '')}" for check in row.checks if not check["is_good"])
        message = f"module {row.name}: {bad}"[:500]
        reasons.append(HealthReason(kind="module_unhealthy", severity=CRITICAL, message=message, since=row.changed_at))
    for name in facts.parked_modules:
        reasons.append(HealthReason(kind="module_parked", severity=WARNING, message=f"module {name} is parked"))  # noqa: PERF401 - reads better
    if facts.node.observed_status == "failed":
        message = "its own manifest could not be applied"
        reasons.append(HealthReason(kind="manifest_failed", severity=WARNING, message=message))
    return reasons


def _of_agent(facts: NodeFacts) -> list[HealthReason]:
    node = facts.node
    if facts.newest_build and node.agent_build and node.agent_build != facts.newest_build:
        message = f"its agent is build {node.agent_build}, the newest is {facts.newest_build}"
        return [HealthReason(kind="agent_outdated", severity=INFO, message=message)]
    if node.agent_version and node.agent_version != __version__:
        message = f"its agent is {node.agent_version}, the controller {__version__}"
        return [HealthReason(kind="agent_outdated", severity=INFO, message=message)]
    return []
