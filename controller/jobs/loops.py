"""Loops that end between two rounds.

A task that is cancelled inside a write transaction leaves SQLite locked until its connection is torn down, seconds
later; so loops that write are asked to end, and cancelled only when they do not.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterable
from typing import Any, Final

import structlog

STOP_SECONDS: Final = 10.0

_log = structlog.get_logger("controller.loops")


class Loops:
    """Background tasks of one owner."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._awaited: list[asyncio.Event] = []

    @property
    def is_stopping(self) -> bool:
        """Whether rounds shall end."""
        return self._stopping.is_set()

    def spawn(self, work: Coroutine[Any, Any, None], *, name: str | None = None) -> None:
        """Run this beside everything else; it must not raise."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        """A loop that ends in an error is a mistake of ours, and silence would hide that nobody does its work now."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("loop.died", task=task.get_name(), exc_info=error)

    async def pause(self, seconds: float) -> bool:
        """Wait; False when the loop shall end instead of going on."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), timeout=seconds)
        return not self._stopping.is_set()

    async def pause_until(self, event: asyncio.Event, seconds: float) -> bool:
        """Wait for the event, but not longer than this; False when the loop shall end."""
        # `stop` sets the event too: two tasks for each round, one of them for the end, cost more than many a round.
        self._awaited.append(event)
        try:
            if not self._stopping.is_set():
                await _wait_for(event, seconds)
        finally:
            self._awaited.remove(event)
        return not self._stopping.is_set()

    async def stop(self) -> None:
        """Let every task end its round; cancel those that do not within STOP_SECONDS."""
        self._stopping.set()
        for event in self._awaited:
            event.set()
        await finish(self._tasks)
        self._stopping.clear()


async def _wait_for(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


async def finish(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Wait until the tasks have ended; cancel those that have not within STOP_SECONDS."""
    left = set(tasks)
    if not left:
        return
    _, late = await asyncio.wait(left, timeout=STOP_SECONDS)
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
