"""Table of packages."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import JSON, BigInteger, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from controller.db.base import Model

_IS_LIVE = text("deleted_at IS NULL")


class Package(Model):
    """Limits that accounts share. None in a limit means unlimited."""

    __tablename__ = "packages"
    __table_args__ = (
        Index("uq_packages_name_live", "name", unique=True, sqlite_where=_IS_LIVE, postgresql_where=_IS_LIVE),
    )

    name: Mapped[str] = mapped_column(String(60))
    description: Mapped[str] = mapped_column(String(500), default="")
    cpu_percent: Mapped[int | None]
    memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    processes_max: Mapped[int | None]
    io_weight: Mapped[int | None]
    disk_bytes: Mapped[int | None] = mapped_column(BigInteger)
    sites_max: Mapped[int | None]
    php_versions: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    """None: every version that the node has."""
    php_children_max: Mapped[int]
    php_memory_bytes: Mapped[int] = mapped_column(BigInteger)
    upload_max_bytes: Mapped[int] = mapped_column(BigInteger)
    deleted_at: Mapped[datetime | None]
