"""Memory of an idle node in the gateway, and ten thousand nodes that come back at once."""

from __future__ import annotations

import asyncio
import contextlib
import time

from tests.bench.client import BenchClient, connected
from tests.bench.framework import Benchmark, Measurement, Options, judge, percentile
from tests.bench.serving import Bench, serving

COUNTS = (2000, 10_000)
BARS_KIB = (80.0, 70.0)
BACK_BAR_SECONDS = 180.0
API_BAR_SECONDS = 1.0
SETTLE_SECONDS = 45.0
CONNECT_SECONDS = 900.0
API_PAUSE_SECONDS = 0.05
PROCESSES = 3
BACK = "10,000 nodes reconnect at once after kill -9: all back"
API = "API p99 while they do"


def _row(count: int) -> str:
    return f"gateway memory per idle node, {count:,} sessions"


async def _connect_more(bench: Bench, client: BenchClient, begin: int, end: int, settle_seconds: float) -> None:
    bench.start_agents(begin, end - begin, processes=PROCESSES)
    await client.wait_connected(end, timeout_seconds=CONNECT_SECONDS)
    await asyncio.sleep(settle_seconds)


async def _measure_memory(bench: Bench, counts: tuple[int, ...], settle_seconds: float) -> list[Measurement]:
    rows = []
    async with connected(bench.port, bench.ca_file, bench.token, connections=1) as client:
        await client.call("GET", "/nodes?limit=200")
        base, begin = bench.resident_bytes(), 0
        for count, name, bar in zip(counts, COUNTS, BARS_KIB, strict=True):
            await _connect_more(bench, client, begin, count, settle_seconds)
            each = (bench.resident_bytes() - base) / count / 1024
            note = f"{count} real mTLS sessions with heartbeats and metrics; resident memory less that of the empty process"
            rows.append(judge(_row(name), each, "KiB", bar=bar, note=note))
            begin = count
    return rows


async def _measure_return(bench: Bench, count: int) -> list[Measurement]:
    bench.kill_controller()
    await asyncio.to_thread(bench.start_controller)
    began = time.monotonic()
    async with connected(bench.port, bench.ca_file, bench.token, connections=2) as client:
        times: list[float] = []
        asking = asyncio.create_task(_ask_api(client, times))
        try:
            with contextlib.suppress(TimeoutError):
                await client.wait_connected(count, timeout_seconds=2 * BACK_BAR_SECONDS)
            seconds = time.monotonic() - began
            back = await client.count_connected()
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
    note = f"{back} of {count} were back; counted from the moment the controller serves"
    if back < count:
        seconds = max(seconds, 2 * BACK_BAR_SECONDS)
    return [
        judge(BACK, seconds, "s", bar=BACK_BAR_SECONDS, note=note),
        judge(API, percentile(times, 0.99), "s", bar=API_BAR_SECONDS, note=f"{len(times)} requests: list nodes"),
    ]


async def _ask_api(client: BenchClient, times: list[float]) -> None:
    while True:
        began = time.perf_counter()
        await client.call("GET", "/nodes?limit=20")
        times.append(time.perf_counter() - began)
        await asyncio.sleep(API_PAUSE_SECONDS)


def run(options: Options) -> list[Measurement]:
    """2,000 nodes, then 10,000, then their return."""
    counts = (options.pick(COUNTS[0], 10), options.pick(COUNTS[1], 20))
    with serving(counts[-1]) as bench:
        rows = asyncio.run(_measure_memory(bench, counts, float(options.pick(int(SETTLE_SECONDS), 2))))
        return rows + asyncio.run(_measure_return(bench, counts[-1]))


BENCHMARK = Benchmark(
    name="sessions",
    bars=(
        (_row(COUNTS[0]), "at most 80 KiB"),
        (_row(COUNTS[1]), "at most 70 KiB"),
        (BACK, "at most 180 s"),
        (API, "at most 1 s"),
    ),
    run=run,
    limit_seconds=2400,
)
