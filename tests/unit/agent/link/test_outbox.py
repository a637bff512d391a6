"""What goes out first, and what may be dropped."""

from __future__ import annotations

import asyncio

from agent.link.outbox import MAX_LOSSY, MAX_PROGRESS_JOBS, Outbox
from shared.protocol.frames import AckJob, Frame, Heartbeat, LogLine, Metrics, Progress
from shared.protocol.job import JobState
from shared.protocol.streams import StreamCredit, StreamData


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


async def test_outbox_when_chunks_wait_sends_everything_else_first_and_streams_in_turns() -> None:
    outbox = Outbox()
    outbox.open()
    chunks = [StreamData(sid=sid, offset=offset, data=b"x") for offset in (0, 1) for sid in (1, 2)]
    first = [asyncio.create_task(outbox.put_chunk(chunk)) for chunk in chunks[:2]]
    await asyncio.sleep(0)
    outbox.put(Metrics(at=1.0, gauges={}))
    outbox.put(LogLine(at=1.0, level="info", message="m"))
    outbox.put(StreamCredit(sid=1, upto=5))
    outbox.put(Heartbeat(clock=1.0))

    taken = [type(await outbox.take()) for _ in range(4)]
    turns = [await outbox.take(), await outbox.take()]
    await asyncio.gather(*first)

    assert taken == [StreamCredit, Heartbeat, LogLine, Metrics]
    assert turns == chunks[:2]


async def test_outbox_when_a_stream_is_ended_forgets_the_chunk_that_waits() -> None:
    outbox = Outbox()
    outbox.open()
    waiting = asyncio.create_task(outbox.put_chunk(StreamData(sid=1, offset=0, data=b"x")))
    await asyncio.sleep(0)

    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    outbox.put(Heartbeat(clock=1.0))
    beat = await outbox.take()
    nothing = asyncio.create_task(outbox.take())
    await asyncio.sleep(0)

    assert isinstance(beat, Heartbeat)
    assert not nothing.done()
    nothing.cancel()
