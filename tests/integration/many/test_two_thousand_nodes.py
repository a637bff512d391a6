"""Two thousand real mTLS sessions against one controller process: jobs, heartbeats, metrics, and a kill -9 in between."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.bench.client import BenchClient, connected
from tests.bench.serving import Bench, serving

NODES = 2000
GROUP = 500
CONNECT_SECONDS = 240.0
PING_SECONDS = 60.0


@pytest.fixture(scope="module")
def fleet() -> Iterator[Bench]:
    """A controller with all nodes enrolled and dialling."""
    settings = {"WCP360_HEARTBEAT_SECONDS": "5", "WCP360_METRICS_SECONDS": "10"}
    with serving(NODES, settings=settings) as bench:
        bench.start_agents(0, NODES, processes=2)
        yield bench


def query(bench: Bench, statement: str) -> list[tuple[object, ...]]:
    """The controller's rows as they are committed now."""
    with closing(sqlite3.connect(f"file:{bench.controller.data_dir}/controller.db?mode=ro", uri=True)) as database:
        return database.execute(statement).fetchall()


async def ping_all(bench: Bench, client: BenchClient) -> None:
    ids = bench.stock.node_ids
    for start in range(0, len(ids), GROUP):
        await client.ping(ids[start : start + GROUP], wait_seconds=PING_SECONDS)


def require_every_job_ended_once(bench: Bench) -> None:
    unfinished = query(
        bench, "SELECT state, count(*) FROM jobs WHERE state NOT IN ('succeeded', 'superseded') GROUP BY state"
    )
    twice = query(
        bench,
        "SELECT job_id FROM job_transitions WHERE to_state = 'succeeded' GROUP BY job_id HAVING count(*) > 1 LIMIT 5",
    )
    numbers = query(
        bench,
        "SELECT node_id FROM jobs WHERE seq IS NOT NULL GROUP BY node_id HAVING count(DISTINCT seq) != max(seq) LIMIT 5",
    )
    assert (unfinished, twice, numbers) == ([], [], [])


@pytest.mark.timeout(900)
def test_two_thousand_nodes_answer_signed_jobs_before_and_after_a_kill(fleet: Bench) -> None:
    async def work() -> None:
        async with connected(fleet.port, fleet.ca_file, fleet.token, connections=2) as client:
            await client.wait_connected(NODES, timeout_seconds=CONNECT_SECONDS)
            await ping_all(fleet, client)

    asyncio.run(work())
    fleet.kill_controller()
    fleet.start_controller()
    asyncio.run(work())

    require_every_job_ended_once(fleet)
    silent = query(
        fleet, "SELECT count(*) FROM nodes LEFT JOIN node_heartbeats USING (id) WHERE at IS NULL OR NOT is_connected"
    )
    assert silent == [(0,)]
