"""Tasks without a broker: the table alone is the truth, whatever happens to those who work on it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.bootstrap import Controller
from controller.db.engine import Database
from controller.jobs import task_store
from controller.jobs.task_store import backoff
from controller.jobs.tasks import DEATHS_MAX, TaskKind, TaskRun, Tasks
from controller.jobs.work_models import Task, TaskState
from shared.errors import BugError

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class Clock:
    """A clock that stands until somebody moves it."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class Work:
    """Counts its runs and does what it is told."""

    def __init__(self) -> None:
        self.runs: list[TaskRun] = []
        self.act: Callable[[TaskRun], Awaitable[str | None]] | None = None

    async def __call__(self, run: TaskRun) -> str | None:
        self.runs.append(run)
        return await self.act(run) if self.act is not None else "done"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def work() -> Work:
    return Work()


def make(database: Database, work: Work, clock: Callable[[], datetime], *, attempts_max: int = 3) -> Tasks:
    tasks = Tasks(database, clock=clock)
    tasks.register(TaskKind(name="count", run=work, attempts_max=attempts_max))
    return tasks


async def add(database: Database, tasks: Tasks, *, dedup_key: str | None = None, **args: Any) -> str | None:
    async with database.write() as session:
        return await tasks.add(session, "count", args, dedup_key=dedup_key)


async def read(database: Database, task_id: str | None) -> Task:
    assert task_id is not None
    async with database.read() as session:
        return await task_store.get_task(session, task_id)


async def test_task_runs_once_with_its_arguments(database: Database, work: Work, clock: Clock) -> None:
    tasks = make(database, work, clock)
    task_id = await add(database, tasks, number=7)

    assert await tasks.run_due() == 1
    assert await tasks.run_due() == 0

    assert [run.args for run in work.runs] == [{"number": 7}]
    row = await read(database, task_id)
    assert (row.state, row.message, row.attempts) == (TaskState.SUCCEEDED, "done", 1)


async def test_add_when_rolled_back_leaves_no_task_and_no_message(database: Database, work: Work, clock: Clock) -> None:
    tasks = make(database, work, clock)
    sent: list[str] = []
    tasks._emit = sent.extend  # type: ignore[method-assign,assignment]

    async def fail_after_adding() -> None:
        async with database.write() as session:
            await tasks.add(session, "count", {})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail_after_adding()
    await add(database, tasks)

    assert len(sent) == 1
    assert await tasks.run_due() == 1


async def test_run_when_ten_get_the_same_message_at_once_happens_once(
    database: Database, work: Work, clock: Clock
) -> None:
    processes = [make(database, work, clock) for _ in range(5)]
    task_id = await add(database, processes[0])

    await asyncio.gather(*(process.run_one(str(task_id)) for process in processes for _ in range(2)))
    await asyncio.gather(*(process.run_one(str(task_id)) for process in processes))

    assert len(work.runs) == 1


async def test_failure_is_tried_again_later_and_then_shown(database: Database, work: Work, clock: Clock) -> None:
    async def fail(_run: TaskRun) -> str:
        raise ValueError("the moon is in the way")

    work.act = fail
    tasks = make(database, work, clock, attempts_max=3)
    task_id = await add(database, tasks)

    assert await tasks.run_due() == 1
    assert (await read(database, task_id)).state is TaskState.QUEUED
    assert await tasks.run_due() == 0
    clock.move(4)
    assert await tasks.run_due() == 1
    clock.move(7)
    assert await tasks.run_due() == 1

    row = await read(database, task_id)
    assert (row.state, row.message, row.attempts) == (TaskState.FAILED, "ValueError: the moon is in the way", 3)
    assert [run.attempts for run in work.runs] == [1, 2, 3]
    clock.move(100_000)
    assert await tasks.run_due() == 0


@pytest.mark.parametrize(("attempts", "low", "high"), [(1, 2, 3), (2, 4, 6), (3, 8, 12), (20, 300, 450)])
def test_backoff_grows_and_is_bounded(attempts: int, low: float, high: float) -> None:
    assert low <= backoff(attempts).total_seconds() <= high


async def test_task_when_its_process_died_is_taken_over(database: Database, work: Work, clock: Clock) -> None:
    dead, alive = make(database, work, clock), make(database, work, clock)
    task_id = await add(database, dead)
    assert await dead._claim(str(task_id)) is not None  # and then nothing more is heard of it

    clock.move(59)
    await alive.sweep()
    assert await alive.run_due() == 0
    clock.move(2)
    await alive.sweep()
    await asyncio.gather(*alive._running.values())

    assert len(work.runs) == 1
    assert (await read(database, task_id)).state is TaskState.SUCCEEDED


async def test_run_when_its_process_slept_past_the_lease_records_nothing(
    database: Database, work: Work, clock: Clock
) -> None:
    sleeper, other = make(database, work, clock), make(database, work, clock)
    task_id = await add(database, sleeper)
    claim = await sleeper._claim(str(task_id))
    assert claim is not None
    clock.move(61)
    async with database.write() as session:
        assert await task_store.free_dead(session, now=clock.now) == [task_id]
    assert await other.run_due() == 1

    async with database.write() as session:
        assert not await task_store.finish_task(session, claim, message="much too late", now=clock.now)
        assert not await task_store.fail_task(session, claim, message="late", attempts_max=1, now=clock.now)
        assert not await task_store.give_back(session, claim, now=clock.now)
        assert not await task_store.renew_lease(session, claim, until=clock.now)

    assert (await read(database, task_id)).message == "done"


async def test_task_that_kills_its_process_again_and_again_is_given_up(
    database: Database, work: Work, clock: Clock
) -> None:
    tasks = make(database, work, clock, attempts_max=2)
    task_id = await add(database, tasks)
    for _ in range(2 + DEATHS_MAX):
        assert await tasks._claim(str(task_id)) is not None
        clock.move(61)
        async with database.write() as session:
            await task_store.free_dead(session, now=clock.now)

    assert await tasks.run_due() == 1

    row = await read(database, task_id)
    assert (row.state, work.runs) == (TaskState.FAILED, [])
    assert "died" in row.message


async def test_same_work_when_asked_twice_is_queued_once(database: Database, work: Work, clock: Clock) -> None:
    tasks = make(database, work, clock)
    assert await add(database, tasks, dedup_key="k") is not None
    assert await add(database, tasks, dedup_key="k") is None
    assert await tasks.run_due() == 1
    assert await add(database, tasks, dedup_key="k") is not None
    assert await tasks.run_due() == 1


async def test_same_work_when_asked_while_it_runs_runs_once_more(database: Database, work: Work, clock: Clock) -> None:
    tasks = make(database, work, clock)

    async def ask_again(_run: TaskRun) -> str:
        if len(work.runs) == 1:
            assert await add(database, tasks, dedup_key="k") is None
            assert await add(database, tasks, dedup_key="k") is None
        return "done"

    work.act = ask_again
    await add(database, tasks, dedup_key="k")

    assert await tasks.run_due() == 2
    assert len(work.runs) == 2


@pytest.mark.parametrize(("is_due", "count"), [(True, 1), (False, 0)])
async def test_add_when_due_asked_twice_queues_one_task_only_if_there_is_work(
    database: Database, work: Work, clock: Clock, is_due: bool, count: int
) -> None:
    tasks = make(database, work, clock)

    async def look(_session: AsyncSession) -> bool:
        return is_due

    for _ in range(2):
        assert await tasks.add_when_due(look, "count") is is_due

    assert await tasks.run_due() == count
    assert [run.args for run in work.runs] == [{}] * count


async def test_stop_gives_back_what_does_not_end(
    database: Database, work: Work, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.jobs.loops.STOP_SECONDS", 0.2)
    begun, never = asyncio.Event(), asyncio.Event()

    async def hang(_run: TaskRun) -> str:
        begun.set()
        await never.wait()
        return "never"

    work.act = hang
    tasks = make(database, work, clock)
    task_id = await add(database, tasks)
    await tasks.start()
    await asyncio.wait_for(begun.wait(), timeout=10)
    await tasks.stop()

    row = await read(database, task_id)
    assert (row.state, row.attempts, row.claimed_by) == (TaskState.QUEUED, 0, None)


async def test_task_when_it_is_committed_starts_at_once(database: Database, work: Work) -> None:
    ran = asyncio.Event()

    async def note(_run: TaskRun) -> str:
        ran.set()
        return "done"

    work.act = note
    tasks = Tasks(database)
    tasks.sweep_seconds = 3600.0  # so only the commit's hint can have started it
    tasks.register(TaskKind(name="count", run=work))
    await tasks.start()
    try:
        await add(database, tasks)
        await asyncio.wait_for(ran.wait(), timeout=10)
    finally:
        await tasks.stop()


async def test_hundred_tasks_run_once_each_in_two_processes(database: Database, work: Work) -> None:
    processes = [make(database, work, lambda: datetime.now(UTC)) for _ in range(2)]
    for process in processes:
        process.sweep_seconds = 0.05
        await process.start()
    try:
        async with database.write() as session:
            for number in range(100):
                await processes[0].add(session, "count", {"number": number})
        async with asyncio.timeout(60):
            while await _count_unfinished(database):  # noqa: ASYNC110 - it is asked of the database
                await asyncio.sleep(0.05)
    finally:
        await asyncio.gather(*(process.stop() for process in processes))

    assert sorted(run.args["number"] for run in work.runs) == list(range(100))


async def _count_unfinished(database: Database) -> int:
    async with database.read() as session:
        found = await session.scalars(select(Task.id).where(Task.state != TaskState.SUCCEEDED))
        return len(found.all())


async def test_finished_tasks_are_forgotten_after_a_week(database: Database, work: Work, clock: Clock) -> None:
    tasks = make(database, work, clock)
    await add(database, tasks)
    await tasks.run_due()
    assert await tasks.forget_finished(timedelta(days=7)) is None
    clock.move(8 * 86_400)
    assert await tasks.forget_finished(timedelta(days=7)) == "1 finished tasks removed"


async def test_add_when_nobody_knows_the_kind_is_a_bug(database: Database, work: Work, clock: Clock) -> None:
    tasks = make(database, work, clock)
    async with database.write() as session:
        with pytest.raises(BugError):
            await tasks.add(session, "unknown", {})


async def test_api_shows_a_failed_task_and_retries_it(controller: Controller, client: httpx.AsyncClient) -> None:
    outcomes: list[Exception | None] = [ValueError("first"), None]

    async def run(_run: TaskRun) -> str:
        error = outcomes.pop(0)
        if error is not None:
            raise error
        return "second"

    controller.tasks.register(TaskKind(name="flaky", run=run, attempts_max=1))
    async with controller.database.write() as session:
        task_id = await controller.tasks.add(session, "flaky", {"x": 1})
    await controller.tasks.run_due()

    (item,) = (await client.get("/api/v1/tasks?state=failed")).json()["items"]
    assert (item["id"], item["kind"], item["message"]) == (task_id, "flaky", "ValueError: first")
    assert (await client.post(f"/api/v1/tasks/{task_id}/retry")).status_code == 200
    await controller.tasks.run_due()

    shown = (await client.get(f"/api/v1/tasks/{task_id}")).json()
    assert (shown["state"], shown["message"]) == ("succeeded", "second")
    again = await client.post(f"/api/v1/tasks/{task_id}/retry")
    assert again.status_code == 409
    assert (await client.post("/api/v1/tasks/nothing/retry")).status_code == 404
