"""Deployments on a throwaway PostgreSQL, with and without Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.faults.processes import Zygote
from tests.integration.redis_server import RedisServer, find_redis, start_redis
from tests.integration.scale.deployment import Deployment, deployment


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    made = Zygote()
    yield made
    made.close()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A throwaway Redis."""
    if find_redis() is None:
        pytest.skip("no Redis server is installed")
    with start_redis() as server:
        yield server


@pytest.fixture
async def split(zygote: Zygote, tmp_path: Path, postgres_url: str) -> AsyncIterator[Deployment]:
    """One process of each role on PostgreSQL alone."""
    async with deployment(zygote, tmp_path, postgres_url) as made:
        for role in ("api", "gateway", "worker"):
            await made.start(role)
        yield made
