"""What this process knows of held nodes without asking the database: events about them are marked as expected.

Invariant: read from the database, never written to it; a process is at most REFRESH_SECONDS behind.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from controller.db.base import utc_now
from controller.db.engine import Database
from controller.fleet.ports import Publisher
from controller.jobs.holds import NodeHold, list_holds
from controller.jobs.loops import Loops
from controller.jobs.waiting import render_hold
from shared.protocol.health import Quiet

REFRESH_SECONDS: Final = 2.0
QUIET_AHEAD: Final = timedelta(hours=12)
"""A node that hears nothing more of a hold repairs by itself again after this long."""
SAY_AGAIN: Final = timedelta(hours=1)
MUTED_EVENTS: Final = frozenset({"node.disconnected", "node.health"})

_log = structlog.get_logger("controller.fleet")

SendQuiet = Callable[[str, Quiet], Awaitable[bool]]
"""Node id and frame; False when this process has no session with the node."""


class HoldBook:
    """Holds by node, marks for events, and the word to the nodes that they shall not repair by themselves now."""

    def __init__(self, database: Database, send: SendQuiet, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._send = send
        self._clock = clock
        self._holds: dict[str, NodeHold] = {}
        self._said: dict[str, datetime] = {}
        """Node id to when it was last told to be quiet."""
        self._loops = Loops()

    async def start(self) -> None:
        """Read, and go on reading."""
        await self.refresh()
        self._loops.spawn(self._run(), name="holds")

    async def stop(self) -> None:
        """Read no more."""
        await self._loops.stop()

    async def _run(self) -> None:
        while await self._loops.pause(REFRESH_SECONDS * random.uniform(0.8, 1.2)):  # noqa: S311 - jitter
            try:
                await self.refresh()
            except (SQLAlchemyError, OSError) as error:
                _log.warning("holds.database", error=str(error))

    async def refresh(self) -> None:
        """Read the holds, and tell the nodes of this process what has changed."""
        async with self._database.read() as session:
            self._holds = {hold.node_id: hold for hold in reversed(await list_holds(session))}
        now = self._clock()
        for node_id, hold in self._holds.items():
            said = self._said.get(node_id)
            if said is None or said + SAY_AGAIN <= now:
                quiet = Quiet(until=(now + QUIET_AHEAD).timestamp(), reason=render_hold(hold)[:500])
                if await self._send(node_id, quiet):
                    self._said[node_id] = now
        for node_id in self._said.keys() - self._holds.keys():
            del self._said[node_id]
            await self._send(node_id, Quiet(until=0.0))

    def find(self, node_id: str) -> NodeHold | None:
        """The node's oldest hold, as far as this process knows."""
        return self._holds.get(node_id)

    def note_connected(self, node_id: str) -> None:
        """A new session knows nothing of what the last one was told."""
        self._said.pop(node_id, None)

    def mark(self, topic: str, event: str, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """The event's data; with `is_muted` and why, when it is about a node of which nobody expects anything else."""
        if topic != "nodes":
            return data
        node_id = str(data.get("id", ""))
        if event == "node.connected":
            self.note_connected(node_id)
        hold = self._holds.get(node_id)
        if hold is None or event not in MUTED_EVENTS:
            return data
        return {**data, "is_muted": True, "muted_by": hold.kind.value, "mute_reason": render_hold(hold)}


class MarkingPublisher:
    """A publisher that marks what the fleet says about held nodes."""

    def __init__(self, inner: Publisher) -> None:
        self._inner = inner
        self.book: HoldBook | None = None
        """Set once by bootstrap; the book needs the fleet, and the fleet a publisher."""

    def publish(self, topic: str, event: str, data: Mapping[str, Any]) -> None:
        """Pass it on."""
        self._inner.publish(topic, event, data if self.book is None else self.book.mark(topic, event, data))
