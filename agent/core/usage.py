"""What the accounts on this node use (homes, traffic): counted in rounds, each within its time, none forgotten."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from typing import Final

import msgspec

from agent.core.context import NodeContext
from agent.core.traffic import ROUND_SECONDS as TRAFFIC_SECONDS
from agent.core.traffic import count_traffic
from shared.errors import FleetError
from shared.protocol.local import HomeUse, TrafficUse, UsageFound
from shared.specs.account import AccountSpec

ROUND_SECONDS: Final = 120.0
"""One answer takes no longer; accounts that were not reached come first in the next round."""
HOME_SECONDS: Final = 60.0
TRAFFIC_SLACK_SECONDS: Final = 30.0
"""A round over the logs ends by itself; one that hangs (a dead disk) is not waited for any longer."""
ACCOUNTS_DIR: Final = "/srv/accounts"

_log = logging.getLogger(__name__)


class UsageRounds:
    """One round at each request. Changes nothing but its own notes of how far logs were counted."""

    def __init__(self, node: NodeContext, *, round_seconds: float = ROUND_SECONDS) -> None:
        self._node = node
        self._round_seconds = round_seconds
        self.after = ""
        """The account after which the next round begins; whoever asks says it, since this process comes and goes."""
        self._counting: asyncio.Task[tuple[TrafficUse, ...]] | None = None

    async def count(self) -> UsageFound:
        """Count as much as there is time for."""
        accounts = self._list_accounts()
        found = await self._count_homes(sorted(accounts))
        return msgspec.structs.replace(found, traffic=await self._count_traffic(accounts))

    async def _count_homes(self, names: list[str]) -> UsageFound:
        names = [name for name in names if name > self.after] + [name for name in names if name <= self.after]
        until = time.monotonic() + self._round_seconds
        homes: list[HomeUse] = []
        for name in names:
            left = until - time.monotonic()
            if homes and left <= 0:
                return UsageFound(homes=tuple(homes), is_complete=False)
            found = await self._count_home(name, min(HOME_SECONDS, max(left, 1.0)))
            if found is not None:
                homes.append(found)
        return UsageFound(homes=tuple(homes))

    async def _count_traffic(self, accounts: dict[str, int]) -> tuple[TrafficUse, ...]:
        """Empty when it cannot be counted now: what the controller knows stays true."""
        terms = self._node.traffic
        if terms is None:
            return ()
        if self._counting is None:
            self._counting = asyncio.create_task(asyncio.to_thread(count_traffic, terms, accounts.items()))
        done, _ = await asyncio.wait({self._counting}, timeout=TRAFFIC_SECONDS + TRAFFIC_SLACK_SECONDS)
        if not done:
            _log.warning("the logs of the sites are still being counted")
            return ()
        counting, self._counting = self._counting, None
        try:
            return counting.result()
        except (OSError, sqlite3.Error) as error:
            _log.warning("traffic was not counted this time: %s", error)
            return ()

    def _list_accounts(self) -> dict[str, int]:
        """Name to uid."""
        ledger = self._node.ledger
        subjects = [subject for subject in ledger.list_subjects() if subject.startswith("account/")]
        specs = (held.spec for subject in subjects for held in ledger.holdings(subject).values())
        return {str(spec.name): spec.uid for spec in specs if isinstance(spec, AccountSpec)}

    async def _count_home(self, name: str, timeout_seconds: float) -> HomeUse | None:
        try:
            found = await self._node.host.home_use(f"{ACCOUNTS_DIR}/{name}", timeout_seconds=timeout_seconds)
        except (FleetError, OSError, TimeoutError) as error:
            _log.warning("what %s uses is not known: %s", name, error)
            return None
        return None if found is None else HomeUse(account=name, disk_bytes=found.disk_bytes, inodes=found.inodes)
