"""Jobs per second through one controller process, each signed, journalled, answered and committed; and its memory.

Jobs are asked for over the API, fifty nodes in a request, with as many requests under way as there are groups of nodes.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

from tests.bench.client import BenchClient, connected
from tests.bench.framework import Benchmark, Measurement, Options, judge
from tests.bench.postgres import durable_postgres
from tests.bench.serving import Bench, serving

NODES = 200
GROUP = 50
JOBS = 100_000
SETTLED_JOBS = 10_000
BAR_PER_SECOND = 300.0
GROWTH_BAR_PERCENT = 10.0
LIMIT_SECONDS = 420.0
KINDS = ("SQLite", "PostgreSQL")


class _Course:
    """One run: how many jobs are done, and how much memory the controller had at which of them."""

    def __init__(self, bench: Bench, jobs: int) -> None:
        self._bench = bench
        self._jobs = jobs
        self._settled = max(1, min(SETTLED_JOBS, jobs // 10))
        self.done = 0
        self.settled_bytes = 0
        self.began = time.monotonic()

    @property
    def is_over(self) -> bool:
        return self.done >= self._jobs or time.monotonic() - self.began > LIMIT_SECONDS

    def note(self, count: int) -> None:
        self.done += count
        if not self.settled_bytes and self.done >= self._settled:
            self.settled_bytes = self._bench.resident_bytes()

    async def ask(self, client: BenchClient, node_ids: tuple[str, ...]) -> None:
        while not self.is_over:
            await client.ping(node_ids)
            self.note(len(node_ids))


def _measure(kind: str, database_url: str, nodes: int, jobs: int) -> list[Measurement]:
    with serving(nodes, database_url=database_url) as bench:
        bench.start_agents(0, nodes, processes=2)
        course = asyncio.run(_run_course(bench, jobs))
        seconds = time.monotonic() - course.began
        rss = bench.resident_bytes()
    rate = course.done / seconds
    growth = 100 * (rss - course.settled_bytes) / course.settled_bytes if course.settled_bytes else 0.0
    note = f"{course.done} jobs in {seconds:.0f} s to {nodes} nodes, {GROUP} in a request; one process"
    memory = f"{course.settled_bytes / 2**20:.0f} MiB after a tenth of the jobs, {rss / 2**20:.0f} MiB at the end"
    return [
        judge(_rate_row(kind), rate, "jobs/s", bar=BAR_PER_SECOND, better="higher", note=note),
        judge(_memory_row(kind), max(growth, 0.0), "%", bar=GROWTH_BAR_PERCENT, note=memory),
    ]


async def _run_course(bench: Bench, jobs: int) -> _Course:
    ids = bench.stock.node_ids
    groups = [ids[start : start + GROUP] for start in range(0, len(ids), GROUP)]
    async with connected(bench.port, bench.ca_file, bench.token, connections=len(groups)) as client:
        await client.wait_connected(len(ids), timeout_seconds=120)
        for group in groups:
            with contextlib.suppress(RuntimeError):  # the nodes' first manifests come before
                await client.ping(group)
        course = _Course(bench, jobs)
        await asyncio.gather(*(course.ask(client, group) for group in groups))
    return course


def _rate_row(kind: str) -> str:
    return f"sustained jobs, one controller process, {kind}"


def _memory_row(kind: str) -> str:
    return f"memory over 100,000 jobs, {kind}: growth after the first 10,000"


def run(options: Options) -> list[Measurement]:
    """SQLite, then PostgreSQL."""
    nodes, jobs = options.pick(NODES, 10), options.pick(JOBS, 200)
    rows = _measure(KINDS[0], "", nodes, jobs)
    if not options.is_quick:
        with durable_postgres() as url:
            rows += _measure(KINDS[1], url, nodes, jobs)
    return rows


BENCHMARK = Benchmark(
    name="throughput",
    bars=tuple(
        row for kind in KINDS for row in ((_rate_row(kind), "at least 300 jobs/s"), (_memory_row(kind), "at most 10 %"))
    ),
    run=run,
    limit_seconds=1300,
)
