"""The nodes' latest samples for Prometheus, read from memory when somebody asks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from shared.protocol.frames import Metrics

GAUGES_PER_NODE_MAX: Final = 200
"""A node names its own gauges, so their number is bounded here."""
_NAME = re.compile(r"[a-z][a-z0-9_]{0,79}")


class NodeSamples(Collector):
    """`wcp360_node_gauge{node_id, name}`; what an agent reports per account stays with the agent."""

    def __init__(self, latest: Callable[[], Mapping[str, Metrics]]) -> None:
        self._latest = latest

    def collect(self) -> Iterable[Metric]:
        """One family with every plain gauge of every node connected to this process."""
        family = GaugeMetricFamily("wcp360_node_gauge", "Latest sample of a node.", labels=("node_id", "name"))
        for node_id, sample in sorted(self._latest().items()):
            plain = [(name, value) for name, value in sorted(sample.gauges.items()) if _NAME.fullmatch(name)]
            for name, value in plain[:GAUGES_PER_NODE_MAX]:
                family.add_metric((node_id, name), value)
        yield family
