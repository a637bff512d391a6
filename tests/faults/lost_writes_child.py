"""Runs one job over real files, watched by strace: `python -m tests.faults.lost_writes_child BASE SCENARIO`.

Says on its standard output when the job was acknowledged and when its result went out.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from agent.core.executor import Executor
from shared.protocol.job import JobState
from shared.protocol.local import JobFinished
from tests.faults.test_node_files import SCENARIOS, open_bench
from tests.integration.executor.bench import job

ACKNOWLEDGED, FINISHED = b"acknowledged\n", b"finished\n"
JOB_ID = "01a20000-0000-7000-8000-000000000001"


def the_job(scenario: str):
    return job(SCENARIOS[scenario][1], seq=2, job_id=JOB_ID)


async def main(base: Path, scenario: str) -> None:
    bench = open_bench(base)
    executor: Executor = bench.executor

    def listen(frame: object) -> None:
        if isinstance(frame, JobFinished) and frame.result.job_id == JOB_ID:
            os.write(1, FINISHED)

    executor.subscribe(listen)
    await executor.start()
    assert bench.submit(the_job(scenario)).state is JobState.RECEIVED
    os.write(1, ACKNOWLEDGED)
    await bench.settle(60.0)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
