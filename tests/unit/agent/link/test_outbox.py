"""What goes out first, and what may be dropped."""

from __future__ import annotations

import asyncio

from agent.link.outbox import MAX_LOSSY, MAX_PROGRESS_JOBS, Outbox
from shared.protocol.frames import AckJob, Frame, Metrics, Progress
from shared.protocol.job import JobState


def ack(number: int) -> AckJob:
    return AckJob(job_id=f"j{number}", seq=number, state=JobState.RECEIVED)


def progress(job: str, number: int) -> Progress:
    return Progress(job_id=job, number=number, done=number, total=9, message="")


def metrics(at: float) -> Metrics:
    return Metrics(at=at, gauges={})


async def drain(outbox: Outbox, count: int) -> list[Frame]:
    async with asyncio.timeout(5):
        return [await outbox.take() for _ in range(count)]


def open_outbox() -> Outbox:
    outbox = Outbox()
    outbox.open()
    return outbox


async def test_take_gives_answers_before_progress_before_metrics() -> None:
    outbox = open_outbox()
    for frame in (metrics(1), progress("a", 1), ack(1)):
        outbox.put(frame)

    assert await drain(outbox, 3) == [ack(1), progress("a", 1), metrics(1)]


async def test_progress_of_one_job_is_replaced_by_the_latest() -> None:
    outbox = open_outbox()
    for number in (1, 2, 3):
        outbox.put(progress("a", number))
    outbox.put(progress("b", 1))

    assert await drain(outbox, 2) == [progress("a", 3), progress("b", 1)]


async def test_what_may_be_lost_is_bounded_and_answers_are_not() -> None:
    outbox = open_outbox()
    for number in range(1000):
        outbox.put(metrics(number))
        outbox.put(progress(f"j{number}", 1))
        outbox.put(ack(number))

    frames = await drain(outbox, 1000 + MAX_PROGRESS_JOBS + MAX_LOSSY)

    assert frames[:1000] == [ack(number) for number in range(1000)]
    assert frames[-1] == metrics(999)


async def test_put_when_closed_keeps_nothing_for_the_next_session() -> None:
    outbox = open_outbox()
    outbox.put(ack(1))
    outbox.close()
    outbox.put(ack(2))

    outbox.open()
    outbox.put(ack(3))

    assert await drain(outbox, 1) == [ack(3)]


async def test_take_waits_for_the_next_frame() -> None:
    outbox = open_outbox()
    taking = asyncio.create_task(outbox.take())
    await asyncio.sleep(0)

    outbox.put(ack(1))

    async with asyncio.timeout(5):
        assert await taking == ack(1)
