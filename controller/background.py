"""What joins the processes of a controller: hints, tasks and who is there, made from the settings."""

from __future__ import annotations

from datetime import timedelta

from controller.core.events.publisher import EventPublisher
from controller.core.policies.book import read_now
from controller.db.base import utc_now
from controller.db.engine import Database
from controller.fleet.gateway.gateway import OFFLINE_GRACE_SECONDS
from controller.fleet.gateway.presence import notice_missing
from controller.jobs.hint_carriers import PostgresCarrier, RedisCarrier
from controller.jobs.hints import HintCarrier, Hints
from controller.jobs.retention import PERIOD_SECONDS, JobRetention
from controller.jobs.schedules import Schedule, Schedules
from controller.jobs.task_brokers import DramatiqCarrier
from controller.jobs.tasks import TaskCarrier, Tasks
from controller.settings import Settings

PRESENCE_SECONDS = 15.0


def make_hint_carrier(settings: Settings) -> HintCarrier | None:
    """What wakes other processes; None where there are none.

    Raises:
        InvalidInputError: Its library is not installed.
    """
    if settings.effective_hints == "redis":
        return RedisCarrier(settings.redis_url, prefix=settings.redis_prefix)
    if settings.effective_hints == "postgresql":
        return PostgresCarrier(settings.effective_database_url)
    return None


def make_tasks(settings: Settings, database: Database, hints: Hints) -> Tasks:
    """The controller's own work, with the carrier that the settings name.

    Raises:
        InvalidInputError: A library is not installed.
    """
    return Tasks(database, hints=hints, carrier=_make_task_carrier(settings))


def _make_task_carrier(settings: Settings) -> TaskCarrier | None:
    if settings.broker == "none":
        return None
    return DramatiqCarrier(settings.broker, settings.broker_url or settings.redis_url, prefix=settings.redis_prefix)


def add_background(
    schedules: Schedules, tasks: Tasks, database: Database, settings: Settings, publisher: EventPublisher
) -> None:
    """Schedules of this file's own."""

    async def notice() -> str | None:
        now = utc_now()
        lease = timedelta(seconds=2 * settings.heartbeat_seconds + OFFLINE_GRACE_SECONDS)
        gone = await notice_missing(database, now=now, silent_since=now - lease)
        for node_id in gone:
            publisher.publish("nodes", "node.disconnected", {"id": node_id})
        return f"{len(gone)} nodes are not connected any more" if gone else None

    schedules.add(Schedule(name="nodes.presence", every_seconds=PRESENCE_SECONDS, run=notice))

    async def read_job_days() -> float:
        return (await read_now(database)).job_retention_days

    async def forget_tasks() -> str | None:
        return await tasks.forget_finished(timedelta(days=(await read_now(database)).task_retention_days))

    retention = JobRetention(database, read_job_days)
    schedules.add(Schedule(name="jobs.forget", every_seconds=PERIOD_SECONDS, run=retention.run))
    schedules.add(Schedule(name="tasks.forget", every_seconds=3600.0, run=forget_tasks))
