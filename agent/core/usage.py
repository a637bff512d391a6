"""What the accounts' homes on this node hold: counted in rounds, each within its time, none forgotten."""

from __future__ import annotations

import logging
import time
from typing import Final

from agent.core.context import NodeContext
from shared.errors import FleetError
from shared.protocol.local import HomeUse, UsageFound
from shared.specs.account import AccountSpec

ROUND_SECONDS: Final = 120.0
"""One answer takes no longer; accounts that were not reached come first in the next round."""
HOME_SECONDS: Final = 60.0
ACCOUNTS_DIR: Final = "/srv/accounts"

_log = logging.getLogger(__name__)


class UsageRounds:
    """One round at each request. Reads only."""

    def __init__(self, node: NodeContext, *, round_seconds: float = ROUND_SECONDS) -> None:
        self._node = node
        self._round_seconds = round_seconds
        self.after = ""
        """The account after which the next round begins; whoever asks says it, since this process comes and goes."""

    async def count(self) -> UsageFound:
        """Count as many homes as there is time for."""
        names = self._list_accounts()
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

    def _list_accounts(self) -> list[str]:
        ledger = self._node.ledger
        subjects = [subject for subject in ledger.list_subjects() if subject.startswith("account/")]
        specs = (held.spec for subject in subjects for held in ledger.holdings(subject).values())
        return sorted(str(spec.name) for spec in specs if isinstance(spec, AccountSpec))

    async def _count_home(self, name: str, timeout_seconds: float) -> HomeUse | None:
        try:
            found = await self._node.host.home_use(f"{ACCOUNTS_DIR}/{name}", timeout_seconds=timeout_seconds)
        except (FleetError, OSError, TimeoutError) as error:
            _log.warning("what %s uses is not known: %s", name, error)
            return None
        return None if found is None else HomeUse(account=name, disk_bytes=found.disk_bytes, inodes=found.inodes)
