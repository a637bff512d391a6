"""`wcpd maintenance`: the controller's maintenance, set on its own machine, whether the controller runs or not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

from controller.core.audit.chain import append_changes
from controller.core.context import SYSTEM, OpContext
from controller.core.maintenance import service
from controller.core.maintenance.service import MaintenanceView
from controller.core.operations import take_turn
from controller.db.base import utc_now
from controller.db.engine import Database
from shared.errors import InvalidInputError

VERBS: Final = ("show", "start", "end")


async def run_verb(url: str, verb: str, *, reason: str, until: str | None) -> MaintenanceView:
    """Show, start or end it.

    Raises:
        InvalidInputError: The reason is empty, or `until` is no time ahead.
        ConflictError: There is nothing to end.
    """
    acts: dict[str, Callable[[OpContext], Awaitable[MaintenanceView]]] = {
        "show": service.show,
        "start": lambda ctx: service.start(ctx, reason=reason, ends_at=parse_time(until)),
        "end": service.end,
    }
    database = Database(url)
    try:
        async with database.write() as session:
            await take_turn(database, session)
            ctx = OpContext(actor=SYSTEM, session=session, request_id="wcpd", now=utc_now())
            view = await acts[verb](ctx)
            await append_changes(ctx)
    finally:
        await database.close()
    return view


def parse_time(text: str | None) -> datetime | None:
    """A time with its zone; one without is UTC.

    Raises:
        InvalidInputError: It is none.
    """
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidInputError(f"{text[:40]!r} is no time such as 2026-12-01T06:00:00Z", field="until") from error
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def render_view(view: MaintenanceView) -> str:
    """One line for people."""
    if not view.is_active:
        return "the controller takes changes"
    until = f"until {view.ends_at:%Y-%m-%dT%H:%M:%SZ}" if view.ends_at is not None else "until somebody ends it"
    return f"in maintenance {until}, by {view.started_by}: {view.reason}"
