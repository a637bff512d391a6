"""Each tick of a schedule runs in exactly one process; a process that dies or sleeps does not take it along."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from controller.bootstrap import Controller
from controller.db.engine import Database
from controller.jobs.schedules import Schedule, Schedules, list_schedules
from controller.jobs.work_models import ScheduleRow
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


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def make(
    database: Database, clock: Clock, run: Callable[[], Awaitable[str | None]], *, lease_seconds: float = 60.0
) -> Schedules:
    """One process's schedules with one entry that is due at once; nothing runs by itself."""
    schedules = Schedules(database, clock=clock, lease_seconds=lease_seconds, poll_seconds=0.02)
    schedules.add(Schedule(name="tick", every_seconds=100.0, run=run, first_after_seconds=0.0))
    await schedules.prepare()
    return schedules


async def read_row(database: Database) -> ScheduleRow:
    async with database.read() as session:
        return (await list_schedules(session))[0]


async def test_tick_when_ten_processes_look_at_once_runs_once(database: Database, clock: Clock) -> None:
    ran: list[int] = []

    def counter(number: int) -> Callable[[], Awaitable[str | None]]:
        async def run() -> str:
            ran.append(number)
            return f"by {number}"

        return run

    processes = [Schedules(database, clock=clock) for _ in range(10)]
    for number, process in enumerate(processes):
        process.add(Schedule(name="tick", every_seconds=100.0, run=counter(number), first_after_seconds=0.0))
        await process.prepare()

    counts = await asyncio.gather(*(process.run_due() for process in processes))

    assert sum(counts) == 1
    assert len(ran) == 1
    row = await read_row(database)
    assert (row.last_outcome, row.last_message) == ("ok", f"by {ran[0]}")
    assert row.last_run_by == processes[ran[0]].holder


async def test_tick_when_done_comes_back_after_its_period(database: Database, clock: Clock) -> None:
    ran: list[datetime] = []

    async def run() -> None:
        ran.append(clock.now)

    schedules = await make(database, clock, run)
    assert await schedules.run_due() == 1
    assert await schedules.run_due() == 0
    clock.move(89)
    assert await schedules.run_due() == 0
    clock.move(22)
    assert await schedules.run_due() == 1
    assert len(ran) == 2


async def test_tick_when_its_process_dies_is_taken_over_after_the_lease(database: Database, clock: Clock) -> None:
    never = asyncio.Event()
    taken: list[str] = []

    async def hang() -> None:
        await never.wait()

    async def run() -> str:
        taken.append("second")
        return "second"

    dead = await make(database, clock, hang)
    alive = await make(database, clock, run)
    # Claimed, and then nothing more is heard of it: what a SIGKILL leaves.
    assert len(await dead._claim_due()) == 1

    clock.move(59)
    assert await alive.run_due() == 0
    clock.move(2)
    assert await alive.run_due() == 1
    assert taken == ["second"]


async def test_tick_when_its_process_slept_past_the_lease_records_nothing(database: Database, clock: Clock) -> None:
    async def run() -> str:
        return "second"

    sleeper = await make(database, clock, run)
    other = await make(database, clock, run)
    (tick,) = await sleeper._claim_due()
    clock.move(61)
    assert await other.run_due() == 1
    before = (await read_row(database)).last_finished_at

    await sleeper._finish(tick, "ok", "first, much too late")

    row = await read_row(database)
    assert (row.last_message, row.last_finished_at) == ("second", before)


async def test_tick_when_it_takes_longer_than_the_lease_keeps_it(database: Database, clock: Clock) -> None:
    release = asyncio.Event()

    async def run() -> str:
        await release.wait()
        return "long"

    holder = await make(database, clock, run, lease_seconds=0.6)
    other = await make(database, clock, run, lease_seconds=0.6)
    work = asyncio.create_task(holder.run_due())
    async with asyncio.timeout(60):
        for _ in range(5):
            # The clock moves only after the holder has renewed, so a slow machine cannot make it late.
            while (await read_row(database)).claimed_until != clock.now + timedelta(seconds=0.6):  # noqa: ASYNC110 - see above
                await asyncio.sleep(0.02)
            clock.move(0.5)
            assert await other.run_due() == 0
    release.set()

    assert await work == 1
    assert (await read_row(database)).runs == 1


async def test_failure_is_recorded_and_tried_again_at_the_next_tick(database: Database, clock: Clock) -> None:
    async def run() -> str:
        raise ValueError("no such thing")

    schedules = await make(database, clock, run)
    await schedules.run_due()
    clock.move(200)
    await schedules.run_due()

    row = await read_row(database)
    assert (row.last_outcome, row.last_message) == ("failed", "ValueError: no such thing")
    assert (row.failures, row.runs) == (2, 2)


async def test_stop_interrupts_what_runs_and_leaves_it_to_others(
    database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.jobs.loops.STOP_SECONDS", 0.2)
    never = asyncio.Event()
    begun = asyncio.Event()

    async def hang() -> None:
        begun.set()
        await never.wait()

    async def run() -> str:
        return "other"

    first = Schedules(database, clock=clock, poll_seconds=0.02)
    first.add(Schedule(name="tick", every_seconds=100.0, run=hang, first_after_seconds=0.0))
    await first.start()
    await asyncio.wait_for(begun.wait(), timeout=10)
    await first.stop()
    assert (await read_row(database)).last_outcome == "interrupted"

    second = Schedules(database, clock=clock)
    second.add(Schedule(name="tick", every_seconds=100.0, run=run, first_after_seconds=0.0))
    await second.prepare()
    await second.run_due()
    assert (await read_row(database)).last_message == "other"


async def test_add_when_the_name_is_taken_is_a_bug(database: Database) -> None:
    async def run() -> None:
        return None

    schedules = Schedules(database)
    schedules.add(Schedule(name="tick", every_seconds=1.0, run=run))
    with pytest.raises(BugError):
        schedules.add(Schedule(name="tick", every_seconds=2.0, run=run))


async def test_api_shows_schedules_and_makes_one_due(controller: Controller, client: httpx.AsyncClient) -> None:
    ran = asyncio.Event()

    async def run() -> str:
        ran.set()
        return "done"

    schedules = controller.schedules
    schedules.add(Schedule(name="test.tick", every_seconds=86_400.0, run=run, first_after_seconds=3600.0))
    await schedules.start()
    try:
        assert not ran.is_set()
        answer = await client.post("/api/v1/schedules/test.tick/run")
        assert answer.status_code == 200
        await asyncio.wait_for(ran.wait(), timeout=10)

        async def outcome() -> str:
            items = (await client.get("/api/v1/schedules")).json()["items"]
            return str(next(item for item in items if item["name"] == "test.tick")["last_outcome"])

        async with asyncio.timeout(20):
            while await outcome() != "ok":  # noqa: ASYNC110 - it is asked over HTTP
                await asyncio.sleep(0.02)
    finally:
        await schedules.stop()


async def test_api_when_the_schedule_is_unknown_answers_404(client: httpx.AsyncClient) -> None:
    assert (await client.post("/api/v1/schedules/nothing/run")).status_code == 404
