"""What the metrics of a thousand nodes cost the API: the same writes to two controllers in turn, one without them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time

from tests.bench.client import BenchClient, connected
from tests.bench.framework import Benchmark, Measurement, Options, percentile
from tests.bench.serving import Bench, serving

NODES = 1000
WRITES = 2000
BAR = 1.5
NEVER_SECONDS = "86400"
PERIOD_SECONDS = "30"
SETTLE_SECONDS = 60.0
NAME = "API write p99 beside the metrics of 1,000 nodes every 30 s"


async def _write(client: BenchClient, number: int, times: list[float]) -> None:
    body = {"name": f"Client {number}", "email": f"c{number}@example.com"}
    began = time.perf_counter()
    await client.call("POST", "/clients", body)
    times.append(time.perf_counter() - began)


async def _measure(with_metrics: Bench, without: Bench, nodes: int, writes: int, settle: float) -> tuple[float, float]:
    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(connected(bench.port, bench.ca_file, bench.token, connections=1))
            for bench in (with_metrics, without)
        ]
        for client in clients:
            await client.wait_connected(nodes, timeout_seconds=180)
        await asyncio.sleep(settle)
        times: tuple[list[float], list[float]] = ([], [])
        numbers = itertools.count(1)
        for _ in range(writes):
            for client, own in zip(clients, times, strict=True):
                await _write(client, next(numbers), own)
                await asyncio.sleep(0.005)
    return percentile(times[0], 0.99), percentile(times[1], 0.99)


def run(options: Options) -> list[Measurement]:
    """Both controllers at once, with as many sessions each."""
    nodes, writes = options.pick(NODES, 5), options.pick(WRITES, 20)
    with (
        serving(nodes, settings={"WCP360_METRICS_SECONDS": PERIOD_SECONDS}) as loaded,
        serving(nodes, settings={"WCP360_METRICS_SECONDS": NEVER_SECONDS}) as quiet,
    ):
        for bench in (loaded, quiet):
            bench.start_agents(0, nodes)
        ours, peer = asyncio.run(_measure(loaded, quiet, nodes, writes, float(options.pick(int(SETTLE_SECONDS), 1))))
    slower = ours / peer
    note = f"{writes} writes each, in turn; the peer is our own controller without metrics"
    return [
        Measurement(
            name=NAME, ours=ours * 1000, peer=peer * 1000, unit="ms", ratio=slower, bar="at most 1.5 times as long",
            met=slower <= BAR, note=note,
        )
    ]  # fmt: skip


BENCHMARK = Benchmark(name="metrics", bars=((NAME, "at most 1.5 times as long"),), run=run, limit_seconds=420)
