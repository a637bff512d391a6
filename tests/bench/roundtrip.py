"""A signed no-op from the API's client to the committed result, against Salt's test.ping from its client to the answer.

Ours: one POST /api/v1/nodes/ping over a kept TLS connection, answered once the results are committed; SQLite with
synchronous=FULL, the real controller process, simulated nodes in a process of their own, everything by TLS on loopback.
Both sides take turns in one run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path

from tests.bench.client import BenchClient, connected
from tests.bench.framework import Benchmark, Measurement, Options, compare, failed, judge, percentile
from tests.bench.salt_peer import SaltFleet, salt_fleet
from tests.bench.serving import Bench, serving

ONE = "round trip of a signed no-op, one node, p50"
ONE_P99 = "round trip of a signed no-op, one node, p99"
MANY = "the same to 20 nodes at once, p50"
TIMES = 20.0
P99_BAR_MS = 50.0
NODES = 20
OURS_PER_TURN = 10
WARM_UP = 30


async def measure(bench: Bench, salt: SaltFleet | None, turns: int) -> tuple[list[float], list[float]]:
    """Seconds of ours and of Salt's, all nodes of each at once, taking turns."""
    ours: list[float] = []
    theirs: list[float] = []
    async with connected(bench.port, bench.ca_file, bench.token, connections=1) as client:
        await _warm_up(bench, client)
        for _ in range(turns):
            ours += [await client.ping(bench.stock.node_ids) for _ in range(OURS_PER_TURN)]
            if salt is not None:
                seconds, answered = await asyncio.to_thread(salt.ping, salt.names)
                if answered == len(salt.names):
                    theirs.append(seconds)
    return ours, theirs


async def _warm_up(bench: Bench, client: BenchClient) -> None:
    await client.wait_connected(len(bench.stock.node_ids), timeout_seconds=60)
    deadline = time.monotonic() + 60
    done = 0
    while done < WARM_UP and time.monotonic() < deadline:
        with contextlib.suppress(RuntimeError):  # the nodes' first manifests come before
            await client.ping(bench.stock.node_ids)
            done += 1


def run_side_by_side(folder: Path, count: int, turns: int, *, with_salt: bool) -> tuple[list[float], list[float], str]:
    """Times of ours, times of Salt's, and why there are none of Salt's."""
    reason = ""
    with contextlib.ExitStack() as stack:
        salt: SaltFleet | None = None
        if with_salt:
            try:
                salt = stack.enter_context(salt_fleet(folder, count))
            except (RuntimeError, OSError, TimeoutError) as error:
                reason = f"Salt could not be run here: {error}"
        bench = stack.enter_context(serving(count))
        # As many processes as there are cores: the nodes of a fleet do not wait for each other, and neither do minions.
        bench.start_agents(0, count, processes=min(count, os.cpu_count() or 1))
        ours, theirs = asyncio.run(measure(bench, salt, turns))
    return ours, theirs, reason


def _row(name: str, ours: list[float], theirs: list[float], reason: str) -> Measurement:
    value = percentile(ours, 0.5) * 1000
    if not theirs:
        row = failed(name, f"at least {TIMES:g} times faster than Salt", reason or "Salt was left out")
        return Measurement(**{**_fields(row), "ours": value, "unit": "ms"})
    peer = percentile(theirs, 0.5) * 1000
    note = f"Salt 3007 LocalClient.cmd in a long-lived process; {len(ours)} of ours, {len(theirs)} of Salt's"
    return compare(name, value, peer, "ms", times=TIMES, note=note)


def _fields(row: Measurement) -> dict[str, object]:
    return {name: getattr(row, name) for name in row.__struct_fields__}


def run(options: Options) -> list[Measurement]:
    """One node, then twenty."""
    with_salt = not options.is_quick
    turns = options.pick(60, 3)
    ours, theirs, reason = run_side_by_side(options.work_dir / "one", 1, turns, with_salt=with_salt)
    rows = [
        _row(ONE, ours, theirs, reason),
        judge(ONE_P99, percentile(ours, 0.99) * 1000, "ms", bar=P99_BAR_MS),
    ]
    count = options.pick(NODES, 3)
    ours, theirs, reason = run_side_by_side(options.work_dir / "many", count, options.pick(40, 3), with_salt=with_salt)
    return [*rows, _row(MANY, ours, theirs, reason)]


BENCHMARK = Benchmark(
    name="roundtrip",
    bars=((ONE, "at least 20 times faster than Salt"), (ONE_P99, "at most 50 ms"), (MANY, "at least 20 times faster")),
    run=run,
    limit_seconds=900,
)
