"""Who runs when: order within a lane, the common limit, the exclusive lane."""

from __future__ import annotations

import asyncio

import pytest

from agent.core.lanes import Lanes


class Track:
    """Starts holders, lets them go, and knows who is in."""

    def __init__(self, lanes: Lanes) -> None:
        self.lanes = lanes
        self.inside: list[str] = []
        self.leave: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def enter(self, name: str, key: str, order: float, *, is_exclusive: bool = False) -> None:
        self.leave[name] = asyncio.Event()

        async def hold() -> None:
            async with self.lanes.hold(key, order=order, is_exclusive=is_exclusive):
                self.inside.append(name)
                await self.leave[name].wait()
                self.inside.remove(name)

        self.tasks[name] = asyncio.create_task(hold())
        await turn()

    async def end(self, name: str) -> None:
        self.leave[name].set()
        await self.tasks[name]
        await turn()


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_hold_when_the_lane_is_taken_waits_in_order() -> None:
    track = Track(Lanes())
    await track.enter("first", "a", 1)
    await track.enter("third", "a", 3)
    await track.enter("second", "a", 2)
    assert track.inside == ["first"]

    await track.end("first")
    assert track.inside == ["second"]
    await track.end("second")
    assert track.inside == ["third"]


async def test_hold_when_lanes_differ_runs_at_once_up_to_the_limit() -> None:
    track = Track(Lanes(limit=2))
    for order, key in enumerate("abc"):
        await track.enter(key, key, order)
    assert track.inside == ["a", "b"]

    await track.end("a")
    assert track.inside == ["b", "c"]


async def test_hold_when_exclusive_waits_for_all_and_keeps_all_out() -> None:
    track = Track(Lanes())
    await track.enter("a", "a", 1)
    await track.enter("node", "node", 2, is_exclusive=True)
    await track.enter("b", "b", 3)
    assert track.inside == ["a"]

    await track.end("a")
    assert track.inside == ["node"]
    await track.end("node")
    assert track.inside == ["b"]


async def test_hold_when_a_waiting_one_is_cancelled_lets_the_next_in() -> None:
    track = Track(Lanes())
    await track.enter("first", "a", 1)
    await track.enter("second", "a", 2)
    await track.enter("third", "a", 3)

    track.tasks["second"].cancel()
    with pytest.raises(asyncio.CancelledError):
        await track.tasks["second"]
    await track.end("first")

    assert track.inside == ["third"]
