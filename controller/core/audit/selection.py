"""Which entries of the audit log are wanted, as conditions of a query."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

import msgspec
from sqlalchemy import ColumnElement, Select, String, literal_column

from controller.core.audit.models import IS_SECURITY, AuditEntry
from controller.core.fields import require_moment, require_text
from controller.core.paging import MAX_SEARCH_LENGTH

_LATE: Final = timedelta(minutes=10)
"""An id is made a moment after the time of its entry: after the rest of a transaction, perhaps by another clock."""

_BETWEEN: Final = literal_column("'\n'", String)

RowT = TypeVar("RowT")


class AuditFilter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which entries are wanted; None: all."""

    action: str | None = None
    target: str | None = None
    actor: str | None = None
    request_id: str | None = None
    address: str | None = None
    account_id: str | None = None
    client_id: str | None = None
    since: datetime | None = None
    """From this moment on."""
    until: datetime | None = None
    """Before this moment."""
    security: bool = False
    """Only what concerns who may do what: signing in, tokens, refusals, keys, identities of nodes."""

    @property
    def is_everything(self) -> bool:
        """Whether nothing is left out."""
        return self == AuditFilter()

    def describe(self) -> Mapping[str, Any]:
        """What was asked for, as JSON values."""
        described: dict[str, Any] = msgspec.to_builtins(self)
        return described


def select_wanted(statement: Select[RowT], wanted: AuditFilter) -> Select[RowT]:
    """The statement with the filter's conditions.

    Raises:
        InvalidInputError: A text holds what none can, or a time has no zone.
    """
    for name in ("action", "target", "actor", "request_id", "address", "account_id", "client_id"):
        value = getattr(wanted, name)
        if value:
            statement = statement.where(getattr(AuditEntry, name) == require_text(name, value, high=300))
    since, until = _require_zone("since", wanted.since), _require_zone("until", wanted.until)
    # The key begins with a time as well: the database finds the place, instead of reading all that is newer.
    if since is not None:
        statement = statement.where(AuditEntry.at >= since, AuditEntry.id >= _first_id(since - _LATE))
    if until is not None:
        statement = statement.where(AuditEntry.at < until, AuditEntry.id < _first_id(until + _LATE))
    if wanted.security:
        statement = statement.where(IS_SECURITY)
    return statement


def contains_text(search: str | None) -> ColumnElement[bool] | None:
    """Condition "what was changed, by whom or what was done has this text in its name"; None when nothing is searched.

    Raises:
        InvalidInputError: Fewer than three letters: every entry would have to be read.
    """
    if search is None or not search.strip():
        return None
    wanted = require_text("search", search, low=3, high=MAX_SEARCH_LENGTH)
    # One text with ends of lines between its parts, which no search can hold: revision 0004 has an index of it.
    text = AuditEntry.target_name + literal_column("'\n'", String) + AuditEntry.action
    everything = text + literal_column("'\n'", String) + AuditEntry.actor_name
    return everything.icontains(wanted, autoescape=True)


def _require_zone(name: str, moment: datetime | None) -> datetime | None:
    return None if moment is None else require_moment(name, moment)


def _first_id(moment: datetime) -> str:
    """The lowest UUIDv7 of this moment. Source: RFC 9562 section 5.7."""
    milliseconds = int(moment.timestamp() * 1000)
    return str(uuid.UUID(int=(milliseconds & (1 << 48) - 1) << 80 | 7 << 76 | 2 << 62))
