"""The nodes' samples as Prometheus sees them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from prometheus_client.openmetrics.parser import text_string_to_metric_families

from controller.fleet.nodes.health_keeper import Judged
from controller.fleet.nodes.metrics import (
    GAUGES_KEPT_MAX,
    GAUGES_PER_NODE_MAX,
    NodeHealthSamples,
    NodeSample,
    NodeSamples,
    SampleKeeper,
)
from controller.metrics.registry import ControllerMetrics
from shared.protocol.frames import Metrics

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def render(gauges: dict[str, float]) -> list[str]:
    source = NodeSamples(lambda: {"n1": NodeSample(at=NOW, gauges=gauges)})
    return [line.rstrip("\n") for line in source.lines() if not line.startswith("#")]


def test_collect_names_node_and_gauge() -> None:
    lines = render({"cpu_percent": 3.5})

    assert lines == ['wcp360_node_gauge{name="cpu_percent",node_id="n1"} 3.5']


def test_collect_leaves_out_names_that_would_grow_without_end() -> None:
    assert render({"accounts.ada.memory_bytes": 1.0, "x\n": 2.0}) == []


def test_collect_bounds_what_one_node_can_add() -> None:
    many = {f"g{number}": 1.0 for number in range(GAUGES_PER_NODE_MAX + 50)}

    assert len(render(many)) == GAUGES_PER_NODE_MAX


async def test_metrics_when_many_nodes_report_are_openmetrics_that_its_own_parser_reads() -> None:
    metrics = ControllerMetrics()
    metrics.add_lines(
        NodeSamples(lambda: {f"n{number}": NodeSample(at=NOW, gauges={"a": 1.5}) for number in range(3000)})
    )
    judged = {"n1": Judged('we"b\\1', "unhealthy", ("offline",)), "n2": Judged("web2", "unknown", ("offline",))}
    metrics.add_lines(NodeHealthSamples(lambda: judged))

    text = (await metrics.render()).decode()
    families = {family.name: family.samples for family in text_string_to_metric_families(text)}

    assert len(families["wcp360_node_gauge"]) == 3000
    assert {sample.value for sample in families["wcp360_node_gauge"]} == {1.5}
    assert [(sample.labels, sample.value) for sample in families["wcp360_node_health"]] == [
        ({"node": 'we"b\\1', "node_id": "n1"}, 0.0)
    ]
    assert [sample.labels["code"] for sample in families["wcp360_node_problem"]] == ["offline"]


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


def test_keeper_when_three_periods_have_passed_has_nothing_to_say() -> None:
    clock = Clock()
    keeper = SampleKeeper(30.0, clock)
    keeper.put("n1", Metrics(at=1.0, gauges={"cpu_percent": 3.5}))

    clock.now = NOW + timedelta(seconds=90)
    assert keeper.find("n1") == NodeSample(at=NOW, gauges={"cpu_percent": 3.5})
    assert set(keeper.list_fresh()) == {"n1"}

    clock.now = NOW + timedelta(seconds=91)
    assert keeper.find("n1") is None
    assert keeper.list_fresh() == {}


def test_keeper_leaves_out_what_is_no_number_or_has_no_proper_name() -> None:
    sample = SampleKeeper(30.0, Clock()).put(
        "n1",
        Metrics(
            at=1.0,
            gauges={"load_1": float("nan"), "load_5": float("inf"), "a\x1b[2J": 1.0, "accounts.ada-x.processes": 2.0},
        ),
    )

    assert sample.gauges == {"accounts.ada-x.processes": 2.0}


def test_keeper_bounds_what_one_node_can_make_it_keep() -> None:
    many = {f"g{number}": 1.0 for number in range(GAUGES_KEPT_MAX + 1)}

    assert len(SampleKeeper(30.0, Clock()).put("n1", Metrics(at=1.0, gauges=many)).gauges) == GAUGES_KEPT_MAX
