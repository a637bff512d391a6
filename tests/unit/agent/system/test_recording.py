"""What ran for a job."""

from __future__ import annotations

import asyncio

from agent.system.recording import OUTPUT_MAX_CHARACTERS, RUNS_MAX, current_recorder, not_recording, recording
from agent.system.runner import run
from shared.protocol.job import CommandPurpose


async def test_recording_keeps_what_ran_with_its_resource_and_words() -> None:
    with recording() as recorder:
        recorder.resource = "site/a"
        await run(("/bin/sh", "-c", "echo said; exit 3"), timeout_seconds=10, accepted_codes=(3,))

    (kept,) = recorder.runs
    assert (kept.resource, kept.purpose, kept.exit_code, kept.output) == ("site/a", CommandPurpose.COMMAND, 3, "said")
    assert kept.argv[0] == "/bin/sh"
    assert kept.seconds > 0
    assert current_recorder() is None


async def test_recording_follows_into_tasks_and_stops_where_it_is_told_to() -> None:
    async def work() -> None:
        await run(("/bin/true",), timeout_seconds=10)

    with recording() as recorder:
        await asyncio.create_task(work())
        with not_recording():
            await asyncio.create_task(work())

    assert [kept.argv for kept in recorder.runs] == [("/bin/true",)]


async def test_recording_when_there_is_too_much_is_bounded() -> None:
    with recording() as recorder:
        for _ in range(RUNS_MAX + 5):
            recorder.note(("/bin/x",), exit_code=0, seconds=0.1, output="y" * 10_000)

    assert len(recorder.runs) == RUNS_MAX
    assert recorder.dropped_count == 5
    assert len(recorder.runs[0].output) == OUTPUT_MAX_CHARACTERS
    assert sum(len(kept.output) for kept in recorder.runs) <= 64 * 1024
