"""Who waits for a job to end, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class Waiters:
    """Wakes those who wait for a job; they look at the database themselves."""

    def __init__(self) -> None:
        self._events: dict[str, set[asyncio.Event]] = {}

    @contextmanager
    def watch(self, job_id: str) -> Iterator[asyncio.Event]:
        """An event that is set at each news of the job."""
        with self.watch_all((job_id,)) as event:
            yield event

    @contextmanager
    def watch_all(self, job_ids: Iterable[str]) -> Iterator[asyncio.Event]:
        """One event that is set at each news of any of the jobs."""
        event = asyncio.Event()
        watched = tuple(job_ids)
        for job_id in watched:
            self._events.setdefault(job_id, set()).add(event)
        try:
            yield event
        finally:
            for job_id in watched:
                self._forget(job_id, event)

    def _forget(self, job_id: str, event: asyncio.Event) -> None:
        watching = self._events.get(job_id, set())
        watching.discard(event)
        if not watching:
            self._events.pop(job_id, None)

    def wake(self, job_ids: Iterable[str]) -> None:
        """There is news of these jobs."""
        for job_id in job_ids:
            for event in self._events.get(job_id, ()):
                event.set()
