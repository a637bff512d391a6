"""The judgement about a node: one reason after the other."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controller.fleet.models import Node, NodeState
from controller.fleet.nodes.health import NodeFacts, freeze_reasons, judge_node, thaw_reasons
from controller.fleet.nodes.health_keeper import Judged, disk_percent
from controller.fleet.nodes.health_models import ModuleHealthRow, NodeSignals
from controller.fleet.nodes.metrics import NodeHealthSamples
from shared.version import __version__

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def make_facts(
    *, node: dict[str, Any] | None = None, signals: dict[str, Any] | None = None, **options: Any
) -> NodeFacts:
    values: dict[str, Any] = {
        "id": "n", "name": "web1", "state": NodeState.ACTIVE, "is_connected": True, "created_at": NOW,
        "last_seen_at": NOW, "agent_version": __version__, "agent_build": "", "observed_status": "ok",
    }  # fmt: skip
    said: dict[str, Any] = {
        "id": "n", "clock_skew_seconds": 0.0, "seq_gaps": 0, "disk_used_percent": None, "quarantine": "",
    }  # fmt: skip
    return NodeFacts(node=Node(**(values | (node or {}))), signals=NodeSignals(**(said | (signals or {}))), **options)


def codes(facts: NodeFacts) -> tuple[str, list[str]]:
    status, reasons = judge_node(facts, now=NOW)
    return status, [reason.kind for reason in reasons]


def test_judge_node_without_a_complaint_is_healthy() -> None:
    assert codes(make_facts(certificate_not_after=NOW + timedelta(days=5))) == ("healthy", [])


@pytest.mark.parametrize(
    ("options", "status", "code"),
    [
        ({"node": {"is_connected": False, "last_seen_at": NOW - timedelta(minutes=5)}}, "unhealthy", "offline"),
        ({"node": {"is_connected": False, "last_seen_at": None}}, "unhealthy", "offline"),
        ({"signals": {"quarantine": "an undo failed"}}, "unhealthy", "quarantined"),
        ({"signals": {"clock_skew_seconds": -300.0}}, "unhealthy", "clock_skew"),
        ({"signals": {"disk_used_percent": 92.0}}, "degraded", "disk_full"),
        ({"signals": {"disk_used_percent": 98.0}}, "unhealthy", "disk_full"),
        ({"signals": {"seq_gaps": 2}}, "degraded", "seq_gaps"),
        ({"certificate_not_after": NOW + timedelta(days=1)}, "degraded", "certificate_expiring"),
        ({"certificate_not_after": NOW - timedelta(days=1)}, "unhealthy", "certificate_expired"),
        ({"parked_modules": ("php",)}, "degraded", "module_parked"),
        ({"node": {"observed_status": "failed"}}, "degraded", "manifest_failed"),
        ({"node": {"agent_version": "0.0.1"}}, "healthy", "agent_outdated"),
        ({"node": {"agent_build": "b1"}, "newest_build": "b2"}, "healthy", "agent_outdated"),
    ],
)
def test_judge_node_with_one_complaint_names_it(options: dict[str, Any], status: str, code: str) -> None:
    assert codes(make_facts(**options)) == (status, [code])


def test_judge_node_with_a_sick_module_tells_which_check_failed() -> None:
    checks = [
        {"name": "service", "is_good": False, "note": "nginx.service is not running"},
        {"name": "config", "is_good": True, "note": ""},
    ]
    row = ModuleHealthRow(node_id="n", name="web", is_healthy=False, checks=checks, changed_at=NOW)

    status, (reason,) = judge_node(make_facts(modules=(row,)), now=NOW)

    assert (status, reason.kind) == ("unhealthy", "module_unhealthy")
    assert reason.message == "module web: service: nginx.service is not running"


def test_judge_node_that_just_went_away_waits_a_moment() -> None:
    facts = make_facts(node={"is_connected": False, "last_seen_at": NOW - timedelta(seconds=20)})

    assert codes(facts) == ("healthy", [])


def test_judge_node_with_several_complaints_tells_the_worst_first() -> None:
    facts = make_facts(node={"agent_version": "0"}, signals={"seq_gaps": 1, "quarantine": "broken"})

    assert codes(facts) == ("unhealthy", ["quarantined", "seq_gaps", "agent_outdated"])


@pytest.mark.parametrize("state", [NodeState.PENDING, NodeState.REVOKED])
def test_judge_node_that_is_not_active_says_nothing(state: NodeState) -> None:
    assert codes(make_facts(node={"state": state, "is_connected": False})) == ("unknown", [])


def test_freeze_reasons_thawed_are_the_same() -> None:
    _, reasons = judge_node(make_facts(node={"is_connected": False, "last_seen_at": None}), now=NOW)

    assert thaw_reasons(freeze_reasons(reasons)) == reasons


def test_disk_percent_is_that_of_the_fuller_disk() -> None:
    gauges = {
        "disk_root_total_bytes": 100.0, "disk_root_used_bytes": 20.0,
        "disk_accounts_total_bytes": 10.0, "disk_accounts_used_bytes": 9.0,
    }  # fmt: skip

    assert disk_percent(gauges) == 90.0
    assert disk_percent({}) is None


def test_node_health_samples_show_each_judgement_and_each_problem() -> None:
    judged = {"n1": Judged("web1", "unhealthy", ("offline", "clock_skew")), "n2": Judged("web2", "healthy", ())}

    lines = [line for line in NodeHealthSamples(lambda: judged).lines() if not line.startswith("#")]

    assert lines == [
        'wcp360_node_health{node="web1",node_id="n1"} 0.0\n',
        'wcp360_node_health{node="web2",node_id="n2"} 1.0\n',
        'wcp360_node_problem{code="offline",node="web1",node_id="n1"} 1.0\n',
        'wcp360_node_problem{code="clock_skew",node="web1",node_id="n1"} 1.0\n',
    ]
