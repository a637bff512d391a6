"""The nodes' samples as Prometheus sees them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from controller.fleet.metrics import GAUGES_PER_NODE_MAX, NodeSamples
from shared.protocol.frames import Metrics


def render(samples: dict[str, Metrics]) -> list[str]:
    registry = CollectorRegistry()
    registry.register(NodeSamples(lambda: samples))
    return [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]


def test_collect_names_node_and_gauge() -> None:
    lines = render({"n1": Metrics(at=1.0, gauges={"cpu_percent": 3.5})})

    assert lines == ['wcp360_node_gauge{name="cpu_percent",node_id="n1"} 3.5']


def test_collect_leaves_out_names_that_would_grow_without_end() -> None:
    assert render({"n1": Metrics(at=1.0, gauges={"accounts.ada.memory_bytes": 1.0, "x\n": 2.0})}) == []


def test_collect_bounds_what_one_node_can_add() -> None:
    many = {f"g{number}": 1.0 for number in range(GAUGES_PER_NODE_MAX + 50)}

    assert len(render({"n1": Metrics(at=1.0, gauges=many)})) == GAUGES_PER_NODE_MAX
