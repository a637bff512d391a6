"""A full disk, on either side of the executor's socket: what could not be kept is kept later, and the news is told.

A node that refused a job for want of room is behind what is wanted; a new session makes the controller look and ask for
it again (see its reconvergence), so that is what is done once there is room.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from agent.link.port import ExecutorPort
from shared.errors import UnavailableError
from shared.protocol.local import JobAccepted, JobFinished

DISK_FULL_CODE: Final = "disk_full"
"""The executor's code for it (docs/errors.md)."""
LOOK_SECONDS: Final = 15.0
MAX_UNKEPT: Final = 64
"""Results held in memory; more of them stay with the executor, which offers them at its next connection."""

_log = logging.getLogger(__name__)


class RoomWatch:
    """Waits for room.

    Args:
        executor: Asked whether it has room again.
        keep: Takes a result that could not be kept before.
    """

    def __init__(
        self,
        executor: ExecutorPort,
        keep: Callable[[JobFinished], Awaitable[None]],
        *,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._executor = executor
        self._keep = keep
        self._look_seconds = look_seconds
        self._unkept: dict[str, JobFinished] = {}
        self._is_behind = False
        self._is_wanted = asyncio.Event()

    def note_answer(self, frame: JobAccepted) -> None:
        """The executor took a job, or refused it: perhaps because its disk is full."""
        if frame.error is not None and frame.error.code == DISK_FULL_CODE:
            self._is_behind = True
            self._is_wanted.set()

    def note_unkept(self, frame: JobFinished) -> None:
        """A result could not be written down."""
        if len(self._unkept) < MAX_UNKEPT:
            self._unkept[frame.result.job_id] = frame
        self._is_wanted.set()

    async def run(self, reconnect: Callable[[], Awaitable[None]]) -> None:
        """Until cancelled: look now and then while there is something to look for."""
        while True:
            await self._is_wanted.wait()
            await asyncio.sleep(self._look_seconds)
            self._is_wanted.clear()
            frames, self._unkept = list(self._unkept.values()), {}
            for frame in frames:
                await self._keep(frame)
            if self._is_behind:
                await self._look(reconnect)

    async def _look(self, reconnect: Callable[[], Awaitable[None]]) -> None:
        try:
            status = await self._executor.request_status()
        except UnavailableError as error:
            _log.warning("nobody says whether there is room: %s", error)
            self._is_wanted.set()
            return
        if not status.has_room:
            self._is_wanted.set()
            return
        _log.info("there is room again: connecting anew, so that what was refused is asked for once more")
        self._is_behind = False
        await reconnect()
