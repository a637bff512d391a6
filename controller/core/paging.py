"""Lists in pages: newest first, continued after the last id seen, so that no page skips or repeats a row.

Ids are UUIDv7 and so ordered by time of creation: one indexed column is enough for both order and cursor.
"""

from __future__ import annotations

import base64
import binascii
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from sqlalchemy import ColumnElement, Select, or_
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.fields import require_text
from controller.db.base import Model
from shared.errors import InvalidInputError

DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 200
MAX_SEARCH_LENGTH: Final = 253

RowT = TypeVar("RowT", bound=Model)


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which part of a list is wanted."""

    limit: int = DEFAULT_LIMIT
    """1 to MAX_LIMIT."""
    cursor: str | None = None
    """`next_cursor` of the page before; None starts at the newest row."""
    search: str | None = None
    """Part of a name, upper and lower case alike; None or empty: all."""


@dataclass(frozen=True, slots=True)
class Rows(Generic[RowT]):
    """One part of a list."""

    rows: tuple[RowT, ...]
    next_cursor: str | None


async def fetch_page(session: AsyncSession, statement: Select[RowT], page: PageRequest) -> Rows[RowT]:
    """Run the statement for one page.

    Raises:
        InvalidInputError: The limit or the cursor is none that we gave.
    """
    require_limit(page.limit)
    model = statement.column_descriptions[0]["entity"]
    if page.cursor:
        statement = statement.where(model.id < parse_cursor(page.cursor))
    found = tuple(await session.scalars(statement.order_by(model.id.desc()).limit(page.limit + 1)))
    rows = found[: page.limit]
    return Rows(rows=rows, next_cursor=render_cursor(rows[-1].id) if len(found) > page.limit else None)


def require_limit(limit: int) -> None:
    """Pass when a page may have so many rows.

    Raises:
        InvalidInputError: It may not.
    """
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidInputError(f"limit must be between 1 and {MAX_LIMIT}", field="limit")


def render_cursor(row_id: str) -> str:
    """A cursor is opaque on purpose: clients hand it back and never build one."""
    return pack_cursor(uuid.UUID(row_id).bytes)


def parse_cursor(cursor: str) -> str:
    """Id of the last row of the page before.

    Raises:
        InvalidInputError: We never gave this cursor.
    """
    try:
        last = uuid.UUID(bytes=unpack_cursor(cursor))
    except ValueError as error:
        raise wrong_cursor() from error
    if last.version != 7:
        raise wrong_cursor()
    return str(last)


def pack_cursor(content: bytes) -> str:
    """For a list that is in another order than that of its ids."""
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def unpack_cursor(cursor: str) -> bytes:
    """What was packed.

    Raises:
        InvalidInputError: Nothing was.
    """
    try:
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise wrong_cursor() from error


def wrong_cursor() -> InvalidInputError:
    """We never gave it."""
    return InvalidInputError("the cursor is not one of this list; start without it", field="cursor")


def contains(columns: Sequence[Any], search: str | None) -> ColumnElement[bool] | None:
    """Condition "one of the columns contains the text", upper and lower case alike; None when nothing is searched.

    Raises:
        InvalidInputError: The text holds what no name can (control characters), or is longer than any.
    """
    if search is None or not search.strip():
        return None
    text = require_text("search", search, high=MAX_SEARCH_LENGTH)
    return or_(*(column.icontains(text, autoescape=True) for column in columns))
