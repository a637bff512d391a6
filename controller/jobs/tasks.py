"""What the controller itself has to do once, after a commit: the table is the truth, a carrier only makes it quick.

A task is added in the transaction of the change that needs it. After the commit its id goes to a carrier: an event in
this process, or a broker. Whoever gets the id claims the row; doubled and late messages find it claimed. What no
message reached is found by the sweeper. Retries and their back-off are in the table, never in a broker.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

import structlog
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from controller.db.base import utc_now
from controller.db.engine import Database
from controller.jobs import task_store
from controller.jobs.hints import Channel, Hints
from controller.jobs.loops import Loops, finish
from controller.jobs.task_store import Claim
from shared.errors import BugError

LEASE_SECONDS: Final = 60.0
SWEEP_SECONDS: Final = 5.0
RUNNING_MAX: Final = 4
"""Tasks that one process runs at a time."""
EMIT_AGAIN_AFTER: Final = timedelta(seconds=15)
"""So long a message may be under way before another one is sent for the same task."""
DIRECT_AFTER: Final = timedelta(seconds=45)
"""A task that no message has started for so long is run without one: a broker that is down delays, no more."""
DEATHS_MAX: Final = 3
"""Runs beyond a kind's attempts that ended without a word, before the task counts as one that kills its process."""
_BATCH: Final = 100

_log = structlog.get_logger("controller.tasks")


@dataclass(frozen=True, slots=True)
class TaskRun:
    """What a task's function is given."""

    task_id: str
    args: dict[str, Any]
    attempts: int
    """1 at the first try."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskKind:
    """A kind of work."""

    name: str
    run: Callable[[TaskRun], Awaitable[str | None]]
    """Safe to run again from the beginning. What it returns is shown as the task's message."""
    attempts_max: int = 8


class TaskCarrier(Protocol):
    """Brings ids of tasks to the processes that run them; may lose, double and reorder them."""

    def send(self, task_ids: Sequence[str]) -> None:
        """Never waits and never fails."""
        ...

    async def start(self, run: Callable[[str], Awaitable[None]] | None) -> None:
        """Begin to send, and to call `run` for what arrives; None: this process only sends."""
        ...

    async def stop(self) -> None: ...


class Tasks:
    """Adds tasks in every process; runs them where `start(works=True)` was called."""

    def __init__(
        self,
        database: Database,
        *,
        hints: Hints | None = None,
        carrier: TaskCarrier | None = None,
        clock: Callable[[], datetime] = utc_now,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        """Without a carrier the processes that work look into the table themselves, at once when they are hinted."""
        self._database = database
        self._hints = hints or Hints()
        self._carrier = carrier
        self._clock = clock
        self._lease = timedelta(seconds=lease_seconds)
        self._kinds: dict[str, TaskKind] = {}
        self._loops = Loops()
        self._wake = asyncio.Event()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._is_closing = False
        self._room = asyncio.Semaphore(RUNNING_MAX)
        self.sweep_seconds = SWEEP_SECONDS
        self.holder = f"{socket.gethostname()[:30]}/{os.getpid()}/{uuid.uuid4().hex[:8]}"
        self._hints.on(Channel.TASKS, lambda _: self._wake.set())

    def register(self, kind: TaskKind) -> None:
        """Before `start`, in every process.

        Raises:
            BugError: Another kind has this name.
        """
        if kind.name in self._kinds:
            raise BugError(f"two kinds of tasks are called {kind.name}")
        self._kinds[kind.name] = kind

    async def add(
        self, session: AsyncSession, kind: str, args: dict[str, Any], *, dedup_key: str | None = None
    ) -> str | None:
        """Add a task in the caller's transaction; it is sent on its way by the commit.

        Returns:
            Its id; None when the same work (by its key) waits already, or will run once more.

        Raises:
            BugError: Nobody can run this kind.
        """
        if kind not in self._kinds:
            raise BugError(f"there is no kind of task called {kind}")
        task_id = await task_store.add_task(session, kind, args, dedup_key=dedup_key, now=self._clock())
        self.send_after_commit(session, task_id)
        return task_id

    async def add_when_due(
        self,
        is_due: Callable[[AsyncSession], Awaitable[bool]],
        kind: str,
        args: dict[str, Any] | None = None,
        *,
        dedup_key: str | None = None,
    ) -> bool:
        """Look for work, and add the task of it in a transaction of its own; to look costs a read and nothing else.

        Without a key the kind's name is the key: one task at a time does all there is.

        Returns:
            Whether there is work, also when a task for it waits already.

        Raises:
            BugError: Nobody can run this kind.
        """
        async with self._database.read() as session:
            if not await is_due(session):
                return False
        async with self._database.write() as session:
            await self.add(session, kind, args or {}, dedup_key=dedup_key or kind)
        return True

    def send_after_commit(self, session: AsyncSession, task_id: str | None) -> None:
        """Hint at the task once the transaction is committed; a crash before that is the sweeper's business."""
        if task_id is not None:
            sent: str = task_id
            event.listen(session.sync_session, "after_commit", lambda _session: self._emit((sent,)), once=True)

    # --- life ---------------------------------------------------------------------------------------------------------

    async def start(self, *, works: bool = True) -> None:
        """Begin to send; if it works, begin to run."""
        self._is_closing = False
        if self._carrier is not None:
            await self._carrier.start(self.run_one if works else None)
        if works:
            self._loops.spawn(self._run_sweeper(), name="tasks")

    async def stop(self) -> None:
        """Take nothing more; what runs gets a moment, then it is given back."""
        self._is_closing = True
        await self._loops.stop()
        if self._carrier is not None:
            await self._carrier.stop()
        await finish(self._running.values())

    def _emit(self, task_ids: Iterable[str]) -> None:
        ids = list(task_ids)
        if self._carrier is not None:
            self._carrier.send(ids)
        else:
            self._hints.send(Channel.TASKS, ids)

    async def _run_sweeper(self) -> None:
        is_going_on = True
        while is_going_on:
            self._wake.clear()
            try:
                await self.sweep()
            except (SQLAlchemyError, OSError) as error:
                _log.warning("tasks.database", error=str(error))
            seconds = self.sweep_seconds * random.uniform(0.8, 1.2)  # noqa: S311 - jitter
            is_going_on = await self._loops.pause_until(self._wake, seconds)

    async def sweep(self) -> None:
        """Free what the dead had, see to what is due: send its ids (again), or run it here."""
        now = self._clock()
        async with self._database.read() as session:
            if not await task_store.has_work(session, now=now):
                return
        async with self._database.write() as session:
            await task_store.free_dead(session, now=now)
            ids: Sequence[str] = []
            if self._carrier is not None:
                silent_since = now - EMIT_AGAIN_AFTER
                ids = await task_store.claim_emissions(session, now=now, silent_since=silent_since, limit=_BATCH)
        if ids:
            self._emit(ids)
        due_since = now if self._carrier is None else now - DIRECT_AFTER
        async with self._database.read() as session:
            due = await task_store.find_due(session, now=now, limit=_BATCH, due_since=due_since)
        for task_id in due:
            self._spawn(task_id)

    def _spawn(self, task_id: str) -> None:
        if task_id in self._running:
            return
        task = asyncio.create_task(self.run_one(task_id), name=f"task-{task_id}")
        self._running[task_id] = task  # at once: the next sweep may come before its first step

    # --- a run --------------------------------------------------------------------------------------------------------

    async def run_due(self) -> int:
        """Run everything that is due now to its end, one after the other; for tests and commands."""
        count = 0
        while True:
            async with self._database.read() as session:
                due = await task_store.find_due(session, now=self._clock(), limit=1)
            if not due:
                return count
            await self.run_one(due[0])
            count += 1

    async def run_one(self, task_id: str) -> None:
        """Run the task if it is due and nobody else has it. Never raises for what the task does."""
        current = asyncio.current_task()
        if current is not None:
            self._running[task_id] = current
        try:
            async with self._room:
                claim = None if self._is_closing else await self._claim(task_id)
                if claim is not None:
                    await self._run(claim)
        except (SQLAlchemyError, OSError) as error:
            # The lease ends by itself, and the task runs again.
            _log.warning("tasks.database", task_id=task_id, error=str(error))
        finally:
            if self._running.get(task_id) is current:
                del self._running[task_id]

    async def _claim(self, task_id: str) -> Claim | None:
        async with self._database.write() as session:
            return await task_store.claim_task(
                session, task_id, holder=self.holder, lease=self._lease, now=self._clock()
            )

    async def _run(self, claim: Claim) -> None:
        """A boundary: one task's mistake must not end the others."""
        kind = self._kinds.get(claim.kind)
        if kind is None:
            await self._settle(claim, f"this release has no task {claim.kind}", attempts_max=claim.attempts + 1)
            return
        if claim.attempts > kind.attempts_max + DEATHS_MAX:
            message = f"its process died, or slept, {claim.attempts} times over it"
            await self._settle(claim, message, attempts_max=kind.attempts_max)
            return
        work = asyncio.ensure_future(kind.run(TaskRun(claim.task_id, dict(claim.args), claim.attempts)))
        lease = asyncio.create_task(self._keep_lease(claim, work))
        try:
            message = await work or ""
        except asyncio.CancelledError:
            async with self._database.write() as session:
                await task_store.give_back(session, claim, now=self._clock())
            self._emit((claim.task_id,))
            return
        except Exception as error:  # noqa: BLE001 - the job wrapper's boundary; the error is logged whole
            _log.exception("task.failed", task_id=claim.task_id, kind=claim.kind, attempts=claim.attempts)
            await self._settle(claim, f"{type(error).__name__}: {error}", attempts_max=kind.attempts_max)
            return
        finally:
            lease.cancel()
        async with self._database.write() as session:
            is_mine = await task_store.finish_task(session, claim, message=message, now=self._clock())
        _log.info("task.done" if is_mine else "task.lost", task_id=claim.task_id, kind=claim.kind, note=message)
        self._wake.set()  # it may be wanted again

    async def _settle(self, claim: Claim, message: str, *, attempts_max: int) -> None:
        async with self._database.write() as session:
            await task_store.fail_task(session, claim, message=message, attempts_max=attempts_max, now=self._clock())

    async def _keep_lease(self, claim: Claim, work: asyncio.Future[Any]) -> None:
        while True:
            await asyncio.sleep(self._lease.total_seconds() / 3)
            try:
                async with self._database.write() as session:
                    until = self._clock() + self._lease
                    is_mine = await task_store.renew_lease(session, claim, until=until)
            except (SQLAlchemyError, OSError) as error:
                _log.warning("tasks.database", task_id=claim.task_id, error=str(error))
                continue
            if not is_mine:
                _log.warning("task.lost", task_id=claim.task_id, kind=claim.kind)
                work.cancel()
                return

    async def forget_finished(self, keep: timedelta) -> str | None:
        """For a schedule: remove what succeeded longer ago than this."""
        async with self._database.write() as session:
            before = self._clock() - keep
            count = await task_store.forget_finished(session, before=before, limit=1000)
        return f"{count} finished tasks removed" if count else None
