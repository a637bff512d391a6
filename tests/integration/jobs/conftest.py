"""Brokers of the test session's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.rabbitmq_server import RabbitServer, find_rabbitmq, start_rabbitmq
from tests.integration.redis_server import RedisServer, find_redis, start_redis


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A throwaway Redis."""
    if find_redis() is None:
        pytest.skip("no Redis server is installed")
    with start_redis() as server:
        yield server


@pytest.fixture(scope="session")
def rabbit_server() -> Iterator[RabbitServer]:
    """A throwaway RabbitMQ."""
    if find_rabbitmq() is None:
        pytest.skip("no RabbitMQ server is installed")
    with start_rabbitmq() as server:
        yield server
