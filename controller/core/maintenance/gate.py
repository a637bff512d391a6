"""Refuses changes while the controller is in maintenance. Asked before a request is read, and in its transaction."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.context import Actor, Role
from controller.core.maintenance.models import ControllerMaintenance
from controller.db.engine import Database
from controller.db.prepared import Prepared, param
from shared.errors import UnavailableError

OVERRIDE_HEADER: Final = "x-wcp-during-maintenance"
OVERRIDE_VALUE: Final = "yes"
_MACHINES: Final = frozenset({"system", "node", "enrolment"})
"""What the controller and its nodes do by themselves; that no new machine comes in is the affair of `require_open`."""
_ASK_AGAIN_SECONDS: Final = 60
"""Retry-After of a maintenance that ends when somebody ends it; and the longest one of all others is an hour."""
_RETRY_AFTER_MAX: Final = 3600


class MaintenanceError(UnavailableError):
    """The controller is in maintenance. A class of its own: its answer says when to come back."""

    code = "maintenance"

    def __init__(self, message: str, *, retry_after_seconds: int) -> None:
        super().__init__(message, hint="Reading works. Try the change again then; GET /api/v1/maintenance says more.")
        self.retry_after_seconds = retry_after_seconds


class _Now(NamedTuple):
    reason: str
    ends_at: datetime | None


_ACTIVE: Final = Prepared(
    select(ControllerMaintenance.reason, ControllerMaintenance.ends_at).where(
        or_(ControllerMaintenance.ends_at.is_(None), ControllerMaintenance.ends_at > param("now"))
    ),
    _Now,
)


async def require_open(database: Database, *, now: datetime) -> None:
    """Pass when there is no maintenance now; for requests, before anything of them is read.

    Raises:
        MaintenanceError
    """
    rows: list[_Now] = await database.glance(_ACTIVE, now=now)
    if rows:
        raise _refusal(rows[0].reason, rows[0].ends_at, now)


async def require_change_allowed(session: AsyncSession, actor: Actor, *, now: datetime) -> None:
    """Pass when the actor may change something now; for the transaction of the change.

    Raises:
        MaintenanceError
    """
    if actor.kind in _MACHINES or may_override(actor):
        return
    row = (await session.execute(select(ControllerMaintenance.reason, ControllerMaintenance.ends_at))).first()
    if row is not None and (row.ends_at is None or row.ends_at > now):
        raise _refusal(row.reason, row.ends_at, now)


def may_override(actor: Actor) -> bool:
    """Whether this request said that it comes on purpose, and root sent it."""
    return actor.overrides_maintenance and actor.role is Role.ROOT


def _refusal(reason: str, ends_at: datetime | None, now: datetime) -> MaintenanceError:
    if ends_at is None:
        return MaintenanceError(
            f"the controller is in maintenance until somebody ends it: {reason}",
            retry_after_seconds=_ASK_AGAIN_SECONDS,
        )
    wait = math.ceil((ends_at - now).total_seconds())
    return MaintenanceError(
        f"the controller is in maintenance until {ends_at:%Y-%m-%dT%H:%M:%SZ}: {reason}",
        retry_after_seconds=max(1, min(wait, _RETRY_AFTER_MAX)),
    )
