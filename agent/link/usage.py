"""What the accounts use, for the node's samples: asked of the executor now and then, which may look there."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import Final

from agent.link.port import ExecutorPort
from shared.errors import UnavailableError
from shared.protocol.local import RequestUsage, TrafficUse, UsageFound

WATCH_SECONDS: Final = 20.0
PAUSE_SECONDS: Final = 60.0
"""Between two questions while the executor is there anyway."""
REST_SECONDS: Final = 600.0
"""After that time it is asked even if that starts it."""
SHARE: Final = 0.05
"""Of the time, at most, that counting may take: a node with a million files is counted less often."""

_log = logging.getLogger(__name__)


class UsageWatch:
    """Asks, and keeps the latest answer of each account."""

    def __init__(self, executor: ExecutorPort, *, watch_seconds: float = WATCH_SECONDS) -> None:
        self._executor = executor
        self._watch_seconds = watch_seconds
        self._after = ""
        self._latest: dict[str, tuple[int, int]] = {}
        self._round: set[str] = set()
        self._traffic: tuple[TrafficUse, ...] = ()
        self._asked_at: float | None = None
        self._took_seconds = 0.0

    def take(self, found: UsageFound) -> None:
        """The executor's answer; an account that no round finds any more is forgotten."""
        if self._asked_at is not None:
            self._took_seconds = time.monotonic() - self._asked_at
        self._traffic = found.traffic or self._traffic
        self._after = found.homes[-1].account if found.homes else ""
        self._latest.update({home.account: (home.disk_bytes, home.inodes) for home in found.homes})
        self._round |= {home.account for home in found.homes}
        if found.is_complete:
            self._latest = {name: use for name, use in self._latest.items() if name in self._round}
            self._round = set()

    def gauges(self) -> dict[str, float]:
        """`accounts.NAME.{disk_bytes,inodes}` and, for each month, `accounts.NAME.traffic_bytes.MONTH.SOURCE`."""
        values: dict[str, float] = {}
        for name, (disk_bytes, inodes) in self._latest.items():
            values[f"accounts.{name}.disk_bytes"] = float(disk_bytes)
            values[f"accounts.{name}.inodes"] = float(inodes)
        for use in self._traffic:
            values[f"accounts.{use.account}.traffic_bytes.{use.month}.{use.source}"] = float(use.traffic_bytes)
        return values

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            await asyncio.sleep(self._watch_seconds * random.uniform(0.9, 1.1))  # noqa: S311 - spreads a fleet in time
            if not self._is_time():
                continue
            try:
                await self.ask()
            except UnavailableError as error:
                _log.warning("what the accounts use is not known: %s", error)

    async def ask(self) -> None:
        """Have the homes counted now.

        Raises:
            UnavailableError: The executor cannot be reached.
        """
        self._asked_at = time.monotonic()
        await self._executor.send(RequestUsage(after=self._after))

    def _is_time(self) -> bool:
        if self._asked_at is None:
            return True
        pause = PAUSE_SECONDS if self._executor.is_connected else REST_SECONDS
        return time.monotonic() - self._asked_at >= max(pause, self._took_seconds / SHARE)
