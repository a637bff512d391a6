"""Rate limits and figures of the API's use: put together from the settings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from controller.api.lifespan import Lifespan
from controller.core.api_usage.recorder import UsageRecorder, UsageRetention
from controller.core.rate_limits.counters import Counters, MemoryCounters, RedisCounters
from controller.db.engine import Database
from controller.jobs.schedules import Schedule, Schedules
from controller.settings import Settings


def make_counters(settings: Settings) -> Counters:
    """Where rate limits are counted: for all processes in Redis, if there is one.

    Raises:
        InvalidInputError: Its library is not installed.
    """
    if settings.redis_url:
        return RedisCounters(settings.redis_url, prefix=settings.redis_prefix)
    return MemoryCounters()


def make_usage(database: Database, schedules: Schedules) -> UsageRecorder:
    """Who counts the requests of this process; what is old is forgotten once for all."""
    schedules.add(Schedule(name="api-usage.forget", every_seconds=3600.0, run=UsageRetention(database).run))
    return UsageRecorder(database)


def keep_usage(usage: UsageRecorder, counters: Counters) -> Lifespan:
    """Part of the application's lifespan: what was counted is written, and Redis left in order."""

    @asynccontextmanager
    async def run() -> AsyncIterator[None]:
        async with usage.running():
            yield
        await counters.close()

    return run
