"""Prometheus metrics of one controller, in a registry of its own (tests run many controllers in one process)."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, GCCollector, Histogram, ProcessCollector
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST, generate_latest

MEDIA_TYPE: Final = CONTENT_TYPE_LATEST

_LATENCY_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0)
_LAG_PERIOD_SECONDS: Final = 1.0


class HttpMetrics:
    """Requests by route template; a URL never becomes a label, so the number of series is bounded."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("method", "route", "status")
        self._requests = Counter("wcp360_http_requests", "Requests answered.", labels, registry=registry)
        self._seconds = Histogram(
            "wcp360_http_request_seconds",
            "Time from request to the end of the answer.",
            ("method", "route"),
            buckets=_LATENCY_BUCKETS,
            registry=registry,
        )
        self._readers = Gauge(
            "wcp360_readers", "Open answers that last: news, followed logs, exports.", registry=registry
        )

    def ask_readers(self, count: Callable[[], int]) -> None:
        """Who knows how many answers that last are open; asked when somebody wants the metrics."""
        self._readers.set_function(count)

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        known = method if method in _METHODS else "other"
        self._requests.labels(known, route, str(status)).inc()
        self._seconds.labels(known, route).observe(seconds)


_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

JobCounter = Callable[[], Awaitable[Mapping[str, int]]]
"""Returns state to number of jobs."""


_END: Final = b"# EOF\n"
_LINES_AT_ONCE: Final = 2000
"""Some milliseconds of the event loop; then everybody else has a turn."""


class LineSource(Protocol):
    """Families that are too many lines for objects; each line ends with a newline."""

    def lines(self) -> Iterator[str]: ...


def render_head(name: str, what: str) -> Iterator[str]:
    """The lines before the samples of a gauge.

    Source: OpenMetrics 1.0, section "MetricFamily".
    """
    yield f"# HELP {name} {what}\n"
    yield f"# TYPE {name} gauge\n"


def render_label(value: str) -> str:
    """A label's value between its quotes.

    Source: OpenMetrics 1.0, ABNF of "escaped-string".
    """
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


class ControllerMetrics:
    """All metrics of a controller. Gauges are filled when somebody asks, not on a timer."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self.http = HttpMetrics(self.registry)
        self._jobs = Gauge("wcp360_jobs", "Jobs by state.", ("state",), registry=self.registry)
        self._nodes = Gauge("wcp360_nodes_connected", "Agents connected to this process.", registry=self.registry)
        self._listeners = Gauge("wcp360_event_listeners", "Open event streams.", registry=self.registry)
        self._lag = Gauge(
            "wcp360_event_loop_lag_seconds", "How late the event loop woke up, last second.", registry=self.registry
        )
        self._sources: list[LineSource] = []
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def set_jobs(self, by_state: Mapping[str, int]) -> None:
        """Replace the numbers of jobs; states without jobs disappear."""
        self._jobs.clear()
        for state, count in by_state.items():
            self._jobs.labels(state).set(count)

    def set_connected(self, *, node_count: int, listener_count: int) -> None:
        """Replace the numbers of open connections."""
        self._nodes.set(node_count)
        self._listeners.set(listener_count)

    def add_lines(self, source: LineSource) -> None:
        """Another part of the text, after the registry's own."""
        self._sources.append(source)

    async def render(self) -> bytes:
        """The whole registry and all sources in the OpenMetrics text format; the event loop turns meanwhile."""
        text: bytes = generate_latest(self.registry)  # type: ignore[no-untyped-call] # upstream has no types here
        parts = [text.removesuffix(_END)]
        for source in self._sources:
            lines = source.lines()
            while some := "".join(itertools.islice(lines, _LINES_AT_ONCE)):
                parts.append(some.encode())
                await asyncio.sleep(0)
        return b"".join((*parts, _END))

    async def watch_event_loop(self) -> None:
        """Measure the loop's lag until cancelled."""
        while True:
            expected = time.monotonic() + _LAG_PERIOD_SECONDS
            await asyncio.sleep(_LAG_PERIOD_SECONDS)
            self._lag.set(max(0.0, time.monotonic() - expected))
