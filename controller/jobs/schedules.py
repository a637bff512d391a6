"""What comes back: each tick runs in exactly one of the processes, whichever claims it first.

A tick is claimed by one conditional UPDATE and a lease. The holder renews the lease while it works; if it dies, the
lease ends and another process takes the tick over. A holder that was away for longer than its lease is stopped at the
next renewal and can record nothing any more: what a schedule runs must be safe to run again.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from sqlalchemy import CursorResult, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from controller.db.base import new_id, utc_now
from controller.db.engine import Database
from controller.jobs.loops import Loops, finish
from controller.jobs.work_models import ScheduleRow
from shared.errors import BugError, NotFoundError

LEASE_SECONDS: Final = 60.0
POLL_SECONDS: Final = 5.0
JITTER: Final = 0.1
"""Share of the period by which a tick comes earlier or later, so that schedules of one period do not stay together."""
MESSAGE_LENGTH: Final = 1000

_log = structlog.get_logger("controller.schedules")


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Something that comes back."""

    name: str
    """Unique in the controller; shown to people, for example `certificates.renew`."""
    every_seconds: float
    run: Callable[[], Awaitable[str | None]]
    """Safe to run again from the beginning. What it returns is shown as the outcome's message."""
    first_after_seconds: float | None = None
    """Before its very first tick; None: some time within one period, a minute at most."""


@dataclass(frozen=True, slots=True)
class _Tick:
    """A claim that this process has."""

    row_id: str
    number: int
    schedule: Schedule


class Schedules:
    """Runs the schedules that were added, in turn with all other processes on the same database."""

    def __init__(
        self,
        database: Database,
        *,
        clock: Callable[[], datetime] = utc_now,
        lease_seconds: float = LEASE_SECONDS,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._database = database
        self._clock = clock
        self._lease = timedelta(seconds=lease_seconds)
        self._poll_seconds = poll_seconds
        self._schedules: dict[str, Schedule] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._loops = Loops()
        self._wake = asyncio.Event()
        self.holder = f"{socket.gethostname()[:30]}/{os.getpid()}/{uuid.uuid4().hex[:8]}"
        """How this process signs its claims."""

    def add(self, schedule: Schedule) -> None:
        """Before `start`.

        Raises:
            BugError: Another one has this name.
        """
        if schedule.name in self._schedules:
            raise BugError(f"two schedules are called {schedule.name}")
        self._schedules[schedule.name] = schedule

    @property
    def names(self) -> frozenset[str]:
        """What this process would run."""
        return frozenset(self._schedules)

    async def prepare(self) -> None:
        """Write the rows of schedules that are new."""
        async with self._database.write() as session:
            for schedule in self._schedules.values():
                await _ensure_row(session, schedule, now=self._clock())

    async def start(self) -> None:
        """Begin to claim ticks."""
        await self.prepare()
        self._loops.spawn(self._run(), name="schedules")

    async def stop(self) -> None:
        """Claim nothing more; give running ticks a moment, then interrupt them: another process takes them over."""
        await self._loops.stop()
        await finish(self._running)

    def look_soon(self) -> None:
        """A hint: something may be due."""
        self._wake.set()

    async def run_due(self) -> int:
        """Claim what is due and run it to its end; returns how many ticks this process had."""
        ticks = await self._claim_due()
        await asyncio.gather(*(self._run_tick(tick) for tick in ticks))
        return len(ticks)

    async def _run(self) -> None:
        is_going_on = True
        while is_going_on:
            self._wake.clear()
            try:
                for tick in await self._claim_due():
                    task = asyncio.create_task(self._run_tick(tick), name=f"schedule-{tick.schedule.name}")
                    self._running.add(task)
                    task.add_done_callback(self._running.discard)
            except (SQLAlchemyError, OSError) as error:
                _log.warning("schedules.database", error=str(error))
            seconds = self._poll_seconds * random.uniform(0.8, 1.2)  # noqa: S311 - jitter
            is_going_on = await self._loops.pause_until(self._wake, seconds)

    async def _claim_due(self) -> list[_Tick]:
        now = self._clock()
        is_free = or_(ScheduleRow.claimed_until.is_(None), ScheduleRow.claimed_until <= now)
        is_due = (ScheduleRow.name.in_(self._schedules), ScheduleRow.next_at <= now, is_free)
        async with self._database.read() as session:
            due = list((await session.execute(select(ScheduleRow.id).where(*is_due))).scalars())
        ticks = []
        for row_id in due:
            claim = update(ScheduleRow).where(ScheduleRow.id == row_id, *is_due)
            claim = claim.values(
                claimed_by=self.holder,
                claimed_until=now + self._lease,
                runs=ScheduleRow.runs + 1,
                last_started_at=now,
                last_outcome="running",
                last_run_by=self.holder,
            )
            async with self._database.write() as session:
                found = (await session.execute(_quietly(claim.returning(ScheduleRow.name, ScheduleRow.runs)))).first()
            if found is not None:
                ticks.append(_Tick(row_id, found.runs, self._schedules[found.name]))
        return ticks

    async def _run_tick(self, tick: _Tick) -> None:
        """A boundary: one schedule's mistake must not end the others."""
        work = asyncio.ensure_future(tick.schedule.run())
        lease = asyncio.create_task(self._keep_lease(tick, work))
        outcome, message = "ok", ""
        try:
            message = await work or ""
        except asyncio.CancelledError:
            outcome, message = "interrupted", "the process ended, or was away for longer than its lease"
        except Exception as error:  # noqa: BLE001 - the job wrapper's boundary; the error is logged whole
            outcome, message = "failed", f"{type(error).__name__}: {error}"
            _log.exception("schedule.failed", schedule=tick.schedule.name)
        finally:
            lease.cancel()
        try:
            await self._finish(tick, outcome, message)
        except (SQLAlchemyError, OSError) as error:
            # The lease ends by itself, and the tick is run again.
            _log.warning("schedules.database", schedule=tick.schedule.name, error=str(error))

    async def _keep_lease(self, tick: _Tick, work: asyncio.Future[Any]) -> None:
        while True:
            await asyncio.sleep(self._lease.total_seconds() / 3)
            try:
                values = {"claimed_until": self._clock() + self._lease}
                is_held = await self._update_claim(tick, values)
            except (SQLAlchemyError, OSError) as error:
                _log.warning("schedules.database", schedule=tick.schedule.name, error=str(error))
                continue
            if not is_held:
                _log.warning("schedule.lost", schedule=tick.schedule.name)
                work.cancel()
                return

    async def _finish(self, tick: _Tick, outcome: str, message: str) -> None:
        now = self._clock()
        every = tick.schedule.every_seconds * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - jitter
        is_over = outcome != "interrupted"
        values = {
            "claimed_by": None,
            "claimed_until": None,
            "last_finished_at": now,
            "last_outcome": outcome,
            "last_message": message[:MESSAGE_LENGTH],
            "failures": ScheduleRow.failures + 1 if outcome == "failed" else 0,
            **({"next_at": now + timedelta(seconds=every)} if is_over else {}),
        }
        if not await self._update_claim(tick, values):
            _log.warning("schedule.lost", schedule=tick.schedule.name, outcome=outcome)

    async def _update_claim(self, tick: _Tick, values: dict[str, Any]) -> bool:
        """Change the row if the tick is still this process's own."""
        mine = (
            ScheduleRow.id == tick.row_id,
            ScheduleRow.claimed_by == self.holder,
            ScheduleRow.runs == tick.number,
        )
        async with self._database.write() as session:
            result = await session.execute(_quietly(update(ScheduleRow).where(*mine).values(values)))
        return isinstance(result, CursorResult) and result.rowcount == 1


async def _ensure_row(session: AsyncSession, schedule: Schedule, *, now: datetime) -> None:
    wait = schedule.first_after_seconds
    if wait is None:
        wait = random.uniform(0, min(schedule.every_seconds, 60.0))  # noqa: S311 - jitter
    values = {
        "id": new_id(),
        "name": schedule.name,
        "every_seconds": schedule.every_seconds,
        "next_at": now + timedelta(seconds=wait),
    }
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    await session.execute(insert(ScheduleRow).values(values).on_conflict_do_nothing(index_elements=["name"]))
    # A release that wants it more often need not wait for the old period to end.
    latest = now + timedelta(seconds=schedule.every_seconds * (1 + JITTER))
    sooner = update(ScheduleRow).where(ScheduleRow.name == schedule.name, ScheduleRow.next_at > latest)
    await session.execute(_quietly(sooner.values(next_at=latest)))
    renamed = update(ScheduleRow).where(
        ScheduleRow.name == schedule.name, ScheduleRow.every_seconds != schedule.every_seconds
    )
    await session.execute(_quietly(renamed.values(every_seconds=schedule.every_seconds)))


async def list_schedules(session: AsyncSession) -> list[ScheduleRow]:
    """All of them, by name."""
    return list(await session.scalars(select(ScheduleRow).order_by(ScheduleRow.name)))


async def make_due(session: AsyncSession, name: str, *, now: datetime) -> ScheduleRow:
    """Let it come back now; one that runs already runs once more afterwards only if it was to.

    Raises:
        NotFoundError: There is no such schedule.
    """
    row = await session.scalar(select(ScheduleRow).where(ScheduleRow.name == name).with_for_update())
    if row is None:
        raise NotFoundError(f"there is no schedule {name[:80]!r}")
    row.next_at = min(row.next_at, now)
    return row


def _quietly(statement: Any) -> Any:
    return statement.execution_options(synchronize_session=False)
