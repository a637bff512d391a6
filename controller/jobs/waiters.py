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
        event = asyncio.Event()
        self._events.setdefault(job_id, set()).add(event)
        try:
            yield event
        finally:
            watching = self._events[job_id]
            watching.discard(event)
            if not watching:
                del self._events[job_id]

    def wake(self, job_ids: Iterable[str]) -> None:
        """There is news of these jobs."""
        for job_id in job_ids:
            for event in self._events.get(job_id, ()):
                event.set()
