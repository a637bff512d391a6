"""Which tier of the rate limits a client has: the best of the packages of its accounts, since it pays for that one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from time import monotonic
from typing import Any, Final, Literal

from controller.core.auth.package_policy import read_package_options
from controller.db.engine import Database

Tier = Literal["low", "standard", "high"]

OPTION: Final = "security.api_rate_tier"
KNOWN_SECONDS: Final = 30.0
"""Another package of an account counts after so long at most."""
_KNOWN_MAX: Final = 10_000
_ORDER: Final[tuple[Tier, ...]] = ("low", "standard", "high")


class TierBook:
    """Asked for every request of a client's people, so it remembers."""

    def __init__(self, database: Database, clock: Callable[[], float] = monotonic) -> None:
        self._database = database
        self._clock = clock
        self._known: OrderedDict[str, tuple[float, Tier | None]] = OrderedDict()

    async def find_tier(self, client_id: str) -> Tier | None:
        """None: no account of the client has a package."""
        now = self._clock()
        until, tier = self._known.get(client_id, (now, None))
        if until > now:
            return tier
        async with self._database.read() as session:
            tier = best_tier(await read_package_options(session, client_id))
        self._known[client_id] = (now + KNOWN_SECONDS, tier)
        self._known.move_to_end(client_id)
        while len(self._known) > _KNOWN_MAX:
            self._known.popitem(last=False)
        return tier


def best_tier(options: Iterable[Mapping[str, Any]]) -> Tier | None:
    """The highest of these; a package that says nothing has the standard one."""
    found = {each.get(OPTION, "standard") for each in options}
    return next((tier for tier in reversed(_ORDER) if tier in found), None)
