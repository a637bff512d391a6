"""What every table has: a UUIDv7 key, aware UTC times, and constraint names that a migration can rely on."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import uuid_utils
from sqlalchemy import DateTime, MetaData, String
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

NAMING_CONVENTION = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime on both databases (SQLite stores it naive, we put the zone back).

    Raises:
        ValueError: A naive datetime was to be stored.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy passes it
        if value is not None and value.tzinfo is None:
            raise ValueError("times in the database are aware")
        return value.astimezone(UTC) if value is not None else None

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - as above
        if value is None:
            return None
        stamp: datetime = value
        return stamp.replace(tzinfo=UTC) if stamp.tzinfo is None else stamp.astimezone(UTC)


def new_id() -> str:
    """A UUIDv7 as text: unique, and ordered by time of creation. Source: RFC 9562 section 5.7."""
    return str(uuid_utils.uuid7())


def utc_now() -> datetime:
    """The controller's clock, for column defaults; use cases take the time from their context."""
    return datetime.now(UTC)


Id = Annotated[str, mapped_column(String(36), primary_key=True, default=new_id)]
CreatedAt = Annotated[datetime, mapped_column(UtcDateTime, default=utc_now)]
UpdatedAt = Annotated[datetime, mapped_column(UtcDateTime, default=utc_now, onupdate=utc_now)]


class Model(DeclarativeBase):
    """Base of all tables. Enums are stored by value; relationships are never loaded by accident (lazy="raise")."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    type_annotation_map = {datetime: UtcDateTime}  # noqa: RUF012 - SQLAlchemy reads this class attribute

    id: Mapped[Id]
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[UpdatedAt]
