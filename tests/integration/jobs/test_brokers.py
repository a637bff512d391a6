"""Tasks through real brokers: ids may be lost, doubled and late, and every task still runs once."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest
from sqlalchemy import select

from controller.db.engine import Database
from controller.jobs import tasks as tasks_module
from controller.jobs.task_brokers import DramatiqCarrier
from controller.jobs.tasks import TaskKind, TaskRun, Tasks
from controller.jobs.work_models import Task, TaskState
from tests.integration.rabbitmq_server import RabbitServer
from tests.integration.redis_server import RedisServer

TIMEOUT_SECONDS = 60.0

Server = RedisServer | RabbitServer


class Workshop:
    """One process that only asks, two that work, all on one broker and one database."""

    def __init__(self, database: Database, server: Server, kind: str) -> None:
        self.database = database
        self.server = server
        self.runs: list[int] = []
        prefix = f"t{uuid.uuid4().hex[:8]}"
        self.carriers = [DramatiqCarrier(kind, server.url, prefix=prefix) for _ in range(3)]
        self.processes = [Tasks(database, carrier=carrier) for carrier in self.carriers]
        for process in self.processes:
            process.register(TaskKind(name="count", run=self._run))
            process.sweep_seconds = 0.2

    async def _run(self, run: TaskRun) -> str:
        self.runs.append(int(run.args["number"]))
        await asyncio.sleep(0)  # a task that gives others a turn
        return "done"

    async def start(self) -> None:
        for number, process in enumerate(self.processes):
            await process.start(works=number > 0)

    async def stop(self) -> None:
        await asyncio.gather(*(process.stop() for process in self.processes))

    async def ask(self, *numbers: int) -> list[str]:
        async with self.database.write() as session:
            return [str(await self.processes[0].add(session, "count", {"number": number})) for number in numbers]

    async def wait_done(self) -> None:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while await self._count_unfinished():  # noqa: ASYNC110 - it is asked of the database
                await asyncio.sleep(0.05)

    async def _count_unfinished(self) -> int:
        async with self.database.read() as session:
            found = await session.scalars(select(Task.id).where(Task.state != TaskState.SUCCEEDED))
            return len(found.all())

    @property
    def swept(self) -> int:
        """Ids that the sweeper, not the commit, had to bring on their way."""
        return sum(carrier.lost_count for carrier in self.carriers)


@pytest.fixture(params=["redis", "rabbitmq"])
def broker(request: pytest.FixtureRequest) -> tuple[str, Server]:
    name = "redis_server" if request.param == "redis" else "rabbit_server"
    return request.param, request.getfixturevalue(name)


@pytest.fixture
def quick_sweeper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lost messages are sent again after a second, so that nobody waits for the real time."""
    monkeypatch.setattr(tasks_module, "EMIT_AGAIN_AFTER", timedelta(seconds=1))


@pytest.fixture
async def workshop(database: Database, broker: tuple[str, Server]) -> AsyncIterator[Workshop]:
    kind, server = broker
    made = Workshop(database, server, kind)
    await made.start()
    yield made
    await made.stop()


async def test_tasks_run_once_each_in_a_process_that_did_not_ask(workshop: Workshop) -> None:
    await workshop.ask(*range(30))
    await workshop.wait_done()

    assert sorted(workshop.runs) == list(range(30))
    async with workshop.database.read() as session:
        holders = {holder for (holder,) in await session.execute(select(Task.message).distinct())}
    assert holders == {"done"}


async def test_messages_when_doubled_many_times_run_nothing_twice(workshop: Workshop) -> None:
    ids = await workshop.ask(1, 2, 3)
    for carrier in workshop.carriers:
        for _ in range(5):
            carrier.send(ids)
    await workshop.wait_done()
    for _ in range(5):
        workshop.carriers[0].send(ids)
    marker = await workshop.ask(4)
    workshop.carriers[0].send(marker)
    await workshop.wait_done()

    assert sorted(workshop.runs) == [1, 2, 3, 4]


@pytest.mark.usefixtures("quick_sweeper")
async def test_messages_when_all_are_lost_are_sent_again(workshop: Workshop) -> None:
    """FLUSHALL, a purged queue, a crash between commit and send: all look like this."""
    sends: list[Callable[..., None]] = []
    for process in workshop.processes[:1]:
        sends.append(process._emit)
        process._emit = lambda _ids: None  # type: ignore[method-assign]
    await workshop.ask(*range(5))
    await workshop.wait_done()

    assert sorted(workshop.runs) == list(range(5))


@pytest.mark.usefixtures("quick_sweeper")
async def test_broker_when_it_is_down_for_a_while_only_delays(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks_module, "DIRECT_AFTER", timedelta(seconds=2))
    await workshop.ask(0)
    await workshop.wait_done()
    workshop.server.stop()
    try:
        await workshop.ask(1, 2, 3)
        await workshop.wait_done()
    finally:
        await asyncio.to_thread(workshop.server.start)
    await workshop.ask(4)
    await workshop.wait_done()

    assert sorted(workshop.runs) == [0, 1, 2, 3, 4]


async def test_redis_when_flushed_loses_no_task(
    database: Database, redis_server: RedisServer, quick_sweeper: None
) -> None:
    made = Workshop(database, redis_server, "redis")
    await made.start()
    try:
        for number in range(10):
            await made.ask(number)
            redis_server.flush()
        await made.wait_done()
    finally:
        await made.stop()

    assert sorted(made.runs) == list(range(10))


def test_rabbitmq_confirms_what_it_took(rabbit_server: RabbitServer) -> None:
    carrier = DramatiqCarrier("rabbitmq", rabbit_server.url, prefix="confirm")
    assert carrier._broker.confirm_delivery is True
    carrier._broker.close()
