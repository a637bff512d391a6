"""Use cases: begin, end and show the controller's maintenance."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from controller.core.audit.chain import record
from controller.core.context import SYSTEM, Change, OpContext
from controller.core.fields import require_text
from controller.core.maintenance.models import MAINTENANCE_ID, ControllerMaintenance
from controller.core.operations import FleetContext, Operations
from shared.errors import ConflictError, InvalidInputError

MAX_AHEAD: Final = timedelta(days=90)
UPKEEP_SECONDS: Final = 15.0
_REQUEST_ID: Final = "schedule/controller.maintenance"


class MaintenanceView(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the controller takes changes now."""

    is_active: bool
    reason: str
    since: datetime | None
    ends_at: Annotated[datetime | None, Meta(description="Null while it is active: until somebody ends it.")]
    started_by: str


_NONE: Final = MaintenanceView(is_active=False, reason="", since=None, ends_at=None, started_by="")


async def show(ctx: OpContext) -> MaintenanceView:
    """What is now.

    Raises:
        ForbiddenError
    """
    ctx.actor.require("maintenance", "read")
    row = await _find(ctx)
    return _view(row) if row is not None and not _is_over(row, ctx.now) else _NONE


async def start(ctx: OpContext, *, reason: str, ends_at: datetime | None) -> MaintenanceView:
    """Refuse changes until then. Again: new reason and end.

    Raises:
        ForbiddenError, InvalidInputError
    """
    ctx.actor.require("maintenance", "write")
    if ends_at is not None and not ctx.now < ends_at <= ctx.now + MAX_AHEAD:
        raise InvalidInputError(f"ends_at must be in the next {MAX_AHEAD.days} days", field="ends_at")
    words = require_text("reason", reason, low=1, high=500)
    row = await _find(ctx)
    before = _state(row) if row is not None else None
    if row is None:
        row = ControllerMaintenance(id=MAINTENANCE_ID, since=ctx.now)
        ctx.session.add(row)
    elif _is_over(row, ctx.now):
        row.since = ctx.now
    row.reason, row.ends_at = words, ends_at
    row.actor, row.actor_name, row.updated_at = ctx.actor.reference, ctx.actor.name, ctx.now
    await ctx.session.flush()
    _note(ctx, "maintenance.start", before, _state(row))
    return _view(row)


async def end(ctx: OpContext) -> MaintenanceView:
    """Take changes again.

    Raises:
        ForbiddenError
        ConflictError: The controller is not in maintenance.
    """
    ctx.actor.require("maintenance", "write")
    row = await _find(ctx)
    if row is None or _is_over(row, ctx.now):
        raise ConflictError("the controller is not in maintenance")
    await _remove(ctx, row)
    return _NONE


async def end_if_over(operations: Operations) -> str | None:
    """Schedule: take away a maintenance whose end has passed, so that the audit log has its end, too."""

    async def query(ctx: FleetContext) -> bool:
        row = await _find(ctx)
        return row is not None and _is_over(row, ctx.now)

    async def use_case(ctx: FleetContext) -> bool:
        row = await _find(ctx)
        if row is None or not _is_over(row, ctx.now):
            return False  # somebody ended or prolonged it meanwhile
        await _remove(ctx, row)
        return True

    if not await operations.read(SYSTEM, _REQUEST_ID, query):
        return None
    is_ended = (await operations.change(SYSTEM, _REQUEST_ID, use_case)).resource
    return "maintenance of the controller has ended" if is_ended else None


async def _find(ctx: OpContext) -> ControllerMaintenance | None:
    return await ctx.session.get(ControllerMaintenance, MAINTENANCE_ID, populate_existing=True)


async def _remove(ctx: OpContext, row: ControllerMaintenance) -> None:
    before = _state(row)
    await ctx.session.delete(row)
    await ctx.session.flush()
    _note(ctx, "maintenance.end", before, None)


def _is_over(row: ControllerMaintenance, now: datetime) -> bool:
    return row.ends_at is not None and row.ends_at <= now


def _view(row: ControllerMaintenance) -> MaintenanceView:
    return MaintenanceView(
        is_active=True, reason=row.reason, since=row.since, ends_at=row.ends_at, started_by=row.actor_name
    )


def _state(row: ControllerMaintenance) -> dict[str, Any]:
    return {
        "reason": row.reason,
        "since": row.since.isoformat(),
        "ends_at": row.ends_at.isoformat() if row.ends_at is not None else None,
    }


def _note(ctx: OpContext, action: str, before: dict[str, Any] | None, after: dict[str, Any] | None) -> None:
    record(ctx, Change(action, "maintenance/controller", "controller", before=before, after=after))
