"""The nodes' latest samples for Prometheus, read from memory when somebody asks.

Lines of text, not objects of prometheus_client: ten thousand nodes have a hundred thousand of them, which took the
event loop a second and more for each scrape.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final, Protocol

import msgspec

from controller.metrics.registry import render_head, render_label
from shared.protocol.frames import Metrics

GAUGES_PER_NODE_MAX: Final = 200
"""A node names its own gauges, so their number is bounded here."""
GAUGES_KEPT_MAX: Final = 20_000
"""Nine for each account, and the node's own."""
STALE_AFTER_INTERVALS: Final = 3
"""A sample that is older than so many periods says nothing about now."""
_HEALTH_VALUES: Final = {"healthy": 1.0, "degraded": 0.5, "unhealthy": 0.0}
_NAME = re.compile(r"[a-z][a-z0-9_]{0,79}")
_KEPT_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,159}")


class NodeSample(msgspec.Struct, frozen=True, kw_only=True):
    """What a node said about itself last."""

    at: datetime
    """When it came in, by the controller's clock: the node's may be wrong."""
    gauges: dict[str, float]


class Judgement(Protocol):
    """What health_keeper knows of a node."""

    @property
    def name(self) -> str: ...

    @property
    def status(self) -> str: ...

    @property
    def codes(self) -> tuple[str, ...]: ...


class SampleKeeper:
    """The latest sample of each connected node, as long as it says something about now. In memory only."""

    def __init__(self, interval_seconds: float, clock: Callable[[], datetime]) -> None:
        self._lifetime = timedelta(seconds=interval_seconds * STALE_AFTER_INTERVALS)
        self._clock = clock
        self._samples: dict[str, NodeSample] = {}

    def put(self, node_id: str, frame: Metrics) -> NodeSample:
        """Replace the node's sample; what is no number or has no proper name is left out."""
        good = ((name, value) for name, value in frame.gauges.items() if _KEPT_NAME.fullmatch(name))
        finite = ((name, value) for name, value in good if math.isfinite(value))
        sample = NodeSample(at=self._clock(), gauges=dict(itertools.islice(finite, GAUGES_KEPT_MAX)))
        self._samples[node_id] = sample
        return sample

    def drop(self, node_id: str) -> None:
        """The node is gone."""
        self._samples.pop(node_id, None)

    def find(self, node_id: str) -> NodeSample | None:
        """The node's sample; None when there is none, or only an old one."""
        sample = self._samples.get(node_id)
        return sample if sample is not None and self._is_fresh(sample) else None

    def list_fresh(self) -> dict[str, NodeSample]:
        """Node id to its sample, without the old ones."""
        return {node_id: sample for node_id, sample in self._samples.items() if self._is_fresh(sample)}

    def _is_fresh(self, sample: NodeSample) -> bool:
        return self._clock() - sample.at <= self._lifetime


class NodeHealthSamples:
    """`wcp360_node_health` (1 healthy, 0.5 degraded, 0 unhealthy) and `wcp360_node_problem{code}` of each node."""

    def __init__(self, latest: Callable[[], Mapping[str, Judgement]]) -> None:
        self._latest = latest

    def lines(self) -> Iterator[str]:
        """Two families, from what this process judged last."""
        judged = sorted(self._latest().items())
        yield from render_head("wcp360_node_health", "1 healthy, 0.5 degraded, 0 unhealthy.")
        for node_id, one in judged:
            value = _HEALTH_VALUES.get(one.status)
            if value is not None:
                yield f'wcp360_node_health{{node="{render_label(one.name)}",node_id="{node_id}"}} {value}\n'
        yield from render_head("wcp360_node_problem", "1 for each thing that is wrong with a node.")
        for node_id, one in judged:
            if one.status in _HEALTH_VALUES:
                labels = f'node="{render_label(one.name)}",node_id="{node_id}"'
                yield from (f'wcp360_node_problem{{code="{code}",{labels}}} 1.0\n' for code in one.codes)


class NodeSamples:
    """`wcp360_node_gauge{node_id, name}`; what an agent reports per account stays with the agent."""

    def __init__(self, latest: Callable[[], Mapping[str, NodeSample]]) -> None:
        self._latest = latest

    def lines(self) -> Iterator[str]:
        """One family with every plain gauge of every node connected to this process."""
        yield from render_head("wcp360_node_gauge", "Latest sample of a node.")
        for node_id, sample in sorted(self._latest().items()):
            plain = [(name, value) for name, value in sorted(sample.gauges.items()) if _NAME.fullmatch(name)]
            for name, value in plain[:GAUGES_PER_NODE_MAX]:
                yield f'wcp360_node_gauge{{name="{name}",node_id="{node_id}"}} {float(value)}\n'
