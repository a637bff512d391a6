"""A bench whose process really dies at a fault point, and the next one that finds what it left."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable

from shared.faults import EXIT_STATUS, VARIABLE, forget_hits
from shared.protocol.job import Job
from tests.integration.executor.bench import Bench

__all__ = ["EXIT_STATUS", "MakeBench", "Work", "die_at", "run_job", "start_again"]

CHILD_SECONDS = 120
FAILED_STATUS = 99

MakeBench = Callable[[], Bench]
Work = Callable[[Bench], Awaitable[None]]


def die_at(fault: str | None, make: MakeBench, work: Work) -> int:
    """Do the work in a child with this fault armed; its exit status: 0, or EXIT_STATUS where it died.

    Raises:
        AssertionError: The child failed in any other way; its traceback is on stderr.
    """
    pid = os.fork()
    if pid == 0:
        status = FAILED_STATUS
        signal.alarm(CHILD_SECONDS)
        try:
            os.environ.pop(VARIABLE, None)
            if fault is not None:
                os.environ[VARIABLE] = fault
            forget_hits()
            asyncio.run(_work(make, work))
            status = 0
        except BaseException:  # noqa: BLE001 - a forked child: its traceback is shown and it ends here
            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in {0, EXIT_STATUS}, f"the child ended with {status} at {fault}"
    return status


async def _work(make: MakeBench, work: Work) -> None:
    await work(make())


def run_job(job: Job) -> Work:
    async def work(bench: Bench) -> None:
        await bench.executor.start()
        bench.submit(job)
        await bench.settle(CHILD_SECONDS / 2)

    return work


async def start_again(bench: Bench) -> None:
    await bench.executor.start()
    await bench.settle(CHILD_SECONDS / 2)
