"""Conditions that hold for every statement of a session: how one tenant cannot reach another's rows by accident.

A session that was narrowed adds them to each ORM select, update and delete. What has to look at everybody's rows (is
this name taken anywhere?) says so on the statement. Core statements on tables know nothing of it: use entities.
Source: https://docs.sqlalchemy.org/en/20/orm/session_events.html#adding-global-where-on-criteria
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import ORMExecuteState, Session
from sqlalchemy.sql.base import ExecutableOption

_INFO_KEY: Final = "criteria"
_EVERYBODY: Final = "everybody"
EVERYBODY: Final[Mapping[str, Any]] = MappingProxyType({_EVERYBODY: True})
"""`statement.execution_options(**EVERYBODY)`: this statement looks at the rows of all tenants. Say why beside it."""


class NarrowableSession(Session):
    """The session behind every AsyncSession of the controller."""


def narrow(session: AsyncSession, criteria: Sequence[ExecutableOption]) -> None:
    """From now on the session sees only rows that meet these; none: all rows."""
    session.sync_session.info[_INFO_KEY] = tuple(criteria)


@contextmanager
def widened(session: AsyncSession) -> Iterator[None]:
    """The session sees all rows within the block: for work of the platform inside a tenant's transaction."""
    info = session.sync_session.info
    kept = info.get(_INFO_KEY, ())
    info[_INFO_KEY] = ()
    try:
        yield
    finally:
        info[_INFO_KEY] = kept


@event.listens_for(NarrowableSession, "do_orm_execute")
def _add_criteria(state: ORMExecuteState) -> None:
    criteria = state.session.info.get(_INFO_KEY)
    if not criteria or state.is_column_load or state.is_relationship_load:
        return
    if state.execution_options.get(_EVERYBODY):
        return
    if state.is_select or state.is_update or state.is_delete:
        state.statement = state.statement.options(*criteria)
