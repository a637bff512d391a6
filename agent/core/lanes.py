"""Who may run now: one at a time for each subject, in order, four subjects at once, and the node itself alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

MAX_LANES: Final = 4


@dataclass(eq=False)
class _Place:
    key: str
    order: float
    is_exclusive: bool
    granted: asyncio.Future[None]


class Lanes:
    """Fair locks by key with a common limit."""

    def __init__(self, limit: int = MAX_LANES) -> None:
        self._limit = limit
        self._waiting: list[_Place] = []
        self._holding: list[_Place] = []

    @asynccontextmanager
    async def hold(self, key: str, *, order: float, is_exclusive: bool = False) -> AsyncIterator[None]:
        """Wait for the lane, hold it, give it back.

        Args:
            key: The lane.
            order: Who comes first among those that wait: a job's number, or infinity.
            is_exclusive: Nobody else holds any lane at the same time.
        """
        place = _Place(key, order, is_exclusive, asyncio.get_running_loop().create_future())
        self._waiting.append(place)
        self._waiting.sort(key=lambda waiting: waiting.order)
        self._grant()
        try:
            await place.granted
            yield
        finally:
            for places in (self._waiting, self._holding):
                if place in places:
                    places.remove(place)
            self._grant()

    def _grant(self) -> None:
        """Let in everybody who may, in order; who waits blocks those behind in the same lane."""
        blocked = {place.key for place in self._holding}
        for place in tuple(self._waiting):
            is_alone = not self._holding
            if any(holder.is_exclusive for holder in self._holding) or len(self._holding) >= self._limit:
                return
            if place.is_exclusive and not is_alone:
                return
            if place.key in blocked or place.granted.cancelled():
                continue
            blocked.add(place.key)
            self._waiting.remove(place)
            self._holding.append(place)
            place.granted.set_result(None)
