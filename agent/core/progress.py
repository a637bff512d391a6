"""How far a running job is, told not more often than anybody wants to hear it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from shared.protocol.local import JobProgress

PROGRESS_SECONDS: Final = 0.5
"""At most two a second for a job (frames.Progress)."""


def make_reporter(job_id: str, tell: Callable[[JobProgress], None]) -> Callable[[int, int, str], None]:
    """Progress of one job, thinned out: done, total and a message."""
    loop = asyncio.get_running_loop()
    number = 0
    silent_until = 0.0

    def report(done: int, total: int, message: str) -> None:
        nonlocal number, silent_until
        if loop.time() < silent_until:
            return
        number += 1
        silent_until = loop.time() + PROGRESS_SECONDS
        tell(JobProgress(job_id=job_id, number=number, done=done, total=total, message=message))

    return report
