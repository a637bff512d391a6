"""Which tables a session has written, by whatever way: objects that changed, and statements for many rows at once.

Source: https://docs.sqlalchemy.org/en/20/orm/session_events.html (after_flush, do_orm_execute).
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import event, inspect
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import ORMExecuteState

from controller.db.criteria import NarrowableSession

_INFO_KEY: Final = "written"


async def list_written(session: AsyncSession) -> frozenset[str]:
    """Names of the tables, in this transaction and so far."""
    await session.flush()
    return frozenset(session.sync_session.info.get(_INFO_KEY, ()))


@event.listens_for(NarrowableSession, "after_flush")
def _note_objects(session: NarrowableSession, _context: Any) -> None:
    changed = (row for row in session.dirty if session.is_modified(row))
    for row in (*session.new, *changed, *session.deleted):
        _note(session, inspect(row).mapper.local_table)


@event.listens_for(NarrowableSession, "do_orm_execute")
def _note_statement(state: ORMExecuteState) -> None:
    if state.is_insert or state.is_update or state.is_delete:
        statement: Any = state.statement
        _note(state.session, statement.table)


def _note(session: Any, table: Any) -> None:
    session.info.setdefault(_INFO_KEY, set()).add(table.name)
