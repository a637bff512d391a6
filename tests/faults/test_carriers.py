"""Fault 27: whoever carries hints and messages between the controller's processes stops, forgets, or comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.faults.invariants import check_invariants
from tests.faults.stage import Stage
from tests.faults.workload import work
from tests.integration.redis_server import RedisServer, find_redis, start_redis


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A Redis that may be hurt."""
    if find_redis() is None:
        pytest.skip("no Redis server is installed")
    with start_redis() as server:
        yield server


async def test_fault_27_redis_restarted_and_emptied_under_work_only_delays(
    stage: Stage, kind: str, redis_server: RedisServer
) -> None:
    await stage.start_all(redis_url=redis_server.url, hints="redis", broker="redis")
    working = asyncio.create_task(work(stage, rounds=6))
    for _ in range(3):
        await asyncio.to_thread(redis_server.flush)
        await asyncio.to_thread(redis_server.stop)
        await asyncio.to_thread(redis_server.start)
    await working

    await stage.settle()
    await check_invariants(stage)


async def test_fault_27_redis_that_never_comes_back_stops_nothing(
    stage: Stage, kind: str, redis_server: RedisServer
) -> None:
    await stage.start_all(redis_url=redis_server.url, hints="redis", broker="redis")
    await asyncio.to_thread(redis_server.stop)

    await work(stage)

    await stage.settle()
    await check_invariants(stage)
