"""Which events somebody may be told: those about rows that they reach."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final

from sqlalchemy import select

from controller.core.accounts.models import Account
from controller.core.clients.models import Client
from controller.core.context import Actor, ReachKind
from controller.core.events.publisher import Notice, Topic
from controller.core.operations import FleetContext, Operations
from controller.core.packages.models import Package
from controller.db.base import Model

KNOWN_SECONDS: Final = 10.0
"""An account that goes to another owner is heard of by the old one for so long at most."""
_KNOWN_MAX: Final = 1000


@dataclass(slots=True)
class Sight:
    """Of one listener."""

    operations: Operations
    actor: Actor
    clock: Callable[[], float] = monotonic
    _known: OrderedDict[str, tuple[float, bool]] = field(default_factory=OrderedDict)
    """Id of a row to until when the answer holds, and whether they reach it."""

    def become(self, actor: Actor) -> None:
        """The listener may do something else by now, or reach other rows: what was known of them counts no more."""
        self.actor = actor
        self._known.clear()

    async def sees(self, notice: Notice) -> bool:
        """Whether it is about a row that the listener reaches. What names none of a tenant is the platform's."""
        if self.actor.reach.is_everything:
            return True
        found = subjects_of(notice)
        if self.actor.reach.kind is not ReachKind.MEMBER:
            found = found[-1:]  # a team member sees its client, and only some of the client's accounts
        return bool(found) and all([await self._reaches(entity, row_id) for entity, row_id in found])

    async def _reaches(self, entity: type[Model], row_id: str) -> bool:
        now = self.clock()
        until, is_own = self._known.get(row_id, (now, False))
        if until > now:
            return is_own

        async def look(ctx: FleetContext) -> bool:
            return (await ctx.session.scalars(select(entity.id).where(entity.id == row_id))).first() is not None

        is_own = await self.operations.read(self.actor, "events", look)
        self._known[row_id] = (now + KNOWN_SECONDS, is_own)
        while len(self._known) > _KNOWN_MAX:
            self._known.popitem(last=False)
        return is_own


def subjects_of(notice: Notice) -> tuple[tuple[type[Model], str], ...]:
    """Whose the event is: an account's and then its client's, or of a package; none: of no tenant.

    The client says more than the account: one that changes hands has two events, and each is of one side alone.
    """
    data: Mapping[str, Any] = notice.data
    named = (("account_id", Account), ("client_id", Client))
    found = tuple((entity, data[name]) for name, entity in named if isinstance(data.get(name), str))
    if not found and notice.topic == Topic.PACKAGES.value and isinstance(data.get("id"), str):
        return ((Package, data["id"]),)
    return found
