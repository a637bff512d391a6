"""Hints between processes, through PostgreSQL and Redis; losing all of them costs time and nothing else."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from controller.core.events.publisher import EventPublisher, Topic
from controller.jobs.hint_carriers import PostgresCarrier, RedisCarrier
from controller.jobs.hints import PENDING_MAX, CarrierError, Channel, HintCarrier, Hints
from tests.integration.live import wait_until
from tests.integration.redis_server import RedisServer

MakeCarrier = Callable[[], HintCarrier]


@pytest.fixture(params=[pytest.param("postgresql", marks=pytest.mark.postgresql), "redis"])
def make_carrier(request: pytest.FixtureRequest) -> MakeCarrier:
    if request.param == "postgresql":
        url: str = request.getfixturevalue("postgres_url")
        return lambda: PostgresCarrier(url)
    server: RedisServer = request.getfixturevalue("redis_server")
    prefix = uuid.uuid4().hex
    return lambda: RedisCarrier(server.url, prefix=prefix)


class Ear:
    """Remembers what it heard."""

    def __init__(self, hints: Hints, channel: Channel) -> None:
        self.items: list[str] = []
        self.calls = 0
        hints.on(channel, self._hear)

    def _hear(self, items: Sequence[str]) -> None:
        self.items += items
        self.calls += 1


async def start(make_carrier: MakeCarrier) -> Hints:
    """One process's hints, once they really arrive."""
    hints = Hints(make_carrier())
    await hints.start()
    return hints


@pytest.fixture
async def pair(make_carrier: MakeCarrier) -> AsyncIterator[tuple[Hints, Hints]]:
    """Two processes that hear each other."""
    one, two = await start(make_carrier), await start(make_carrier)
    for speaker, listener in ((one, two), (two, one)):
        ear = Ear(listener, Channel.STREAMS)
        async with asyncio.timeout(20):
            while not ear.items:
                speaker.send(Channel.STREAMS, ["ready?"])
                await asyncio.sleep(0.05)
    yield one, two
    await asyncio.gather(one.stop(), two.stop())


async def test_hint_reaches_the_other_process_and_comes_once_here(pair: tuple[Hints, Hints]) -> None:
    one, two = pair
    here, there = Ear(one, Channel.WORK), Ear(two, Channel.WORK)

    one.send(Channel.WORK, ["node-1", "node-2"])
    assert here.items == ["node-1", "node-2"]
    await wait_until(lambda: bool(there.items))
    two.send(Channel.WORK, ["back"])
    await wait_until(lambda: "back" in here.items)

    assert sorted(there.items) == ["back", "node-1", "node-2"]
    assert here.items == ["node-1", "node-2", "back"]


async def test_hints_of_one_moment_travel_together(pair: tuple[Hints, Hints]) -> None:
    one, two = pair
    there = Ear(two, Channel.CHANGED)

    for number in range(500):
        one.send(Channel.CHANGED, [f"{number % 50:036d}"])
    await wait_until(lambda: len(set(there.items)) == 50)

    assert len(there.items) == 50
    assert there.calls <= 2


async def test_hints_larger_than_a_message_arrive_in_several(pair: tuple[Hints, Hints]) -> None:
    one, two = pair
    there = Ear(two, Channel.WORK)
    items = [f"{number:036d}" for number in range(2000)]

    one.send(Channel.WORK, items)
    await wait_until(lambda: len(there.items) == 2000)

    assert sorted(there.items) == items


async def test_event_reaches_listeners_of_another_process(pair: tuple[Hints, Hints]) -> None:
    publishers = [EventPublisher(hints) for hints in pair]
    with publishers[0].subscribe() as here, publishers[1].subscribe() as there:
        here.topics = there.topics = frozenset({"jobs"})
        publishers[0].publish(Topic.JOBS, "job.succeeded", {"id": "1"})
        publishers[0].publish(Topic.NODES, "node.connected", {"id": "2"})
        publishers[0].publish(Topic.JOBS, "job.failed", {"id": "3", "log": "x" * 50_000})

        heard = [await there.next(20.0), await there.next(20.0)]
        assert [notice.event for notice in heard if notice] == ["job.succeeded", "job.failed"]
        assert heard[1] is not None
        assert heard[1].data == {"id": "3", "is_shortened": True}
        assert [notice.data["id"] for notice in (await here.next(1.0), await here.next(1.0)) if notice] == ["1", "3"]


async def test_redis_when_it_is_restarted_carries_again(redis_server: RedisServer) -> None:
    prefix = uuid.uuid4().hex
    one = await start(lambda: RedisCarrier(redis_server.url, prefix=prefix))
    two = await start(lambda: RedisCarrier(redis_server.url, prefix=prefix))
    there = Ear(two, Channel.WORK)
    try:
        for round_name in ("before", "after"):
            async with asyncio.timeout(30):
                while round_name not in there.items:
                    one.send(Channel.WORK, [round_name])
                    await asyncio.sleep(0.05)
            if round_name == "before":
                redis_server.stop()
                one.send(Channel.WORK, ["into the void"])
                await one.flush()
                assert one.lost_count >= 1
                redis_server.start()
    finally:
        await asyncio.gather(one.stop(), two.stop())


class DeadCarrier:
    """A carrier whose other side is gone."""

    payload_bytes_max = 100

    async def listen(self, deliver: Callable[[str], None]) -> None:
        raise CarrierError("nobody there")

    async def send(self, payloads: Sequence[str]) -> None:
        raise CarrierError("nobody there")

    async def close(self) -> None:
        """Nothing to close."""


async def test_hints_when_the_carrier_is_dead_still_work_in_the_process() -> None:
    hints = Hints(DeadCarrier())
    ear = Ear(hints, Channel.WORK)
    await hints.start()

    hints.send(Channel.WORK, (str(number) for number in range(PENDING_MAX + 10)))
    await wait_until(lambda: hints.lost_count >= PENDING_MAX + 10)
    await hints.stop()

    assert len(ear.items) == PENDING_MAX + 10


async def test_packet_of_a_stranger_is_ignored() -> None:
    hints = Hints(DeadCarrier())
    ear = Ear(hints, Channel.WORK)
    for payload in ("", "{}", "[1,2,3]", '["other","nonsense",["x"]]', '["other","work",[1]]', "\udcff"):
        hints._receive(payload)
    assert ear.items == []
    hints._receive('["other","work",["x"]]')
    assert ear.items == ["x"]
