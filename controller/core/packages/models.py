"""Tables of packages."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from controller.db.base import Model

_IS_LIVE = text("deleted_at IS NULL")
_IS_GLOBAL = text("deleted_at IS NULL AND reseller_id IS NULL")


class PackageTerms:
    """What an account gets: effective values, whatever a package has from its parent. None in a limit: unlimited.

    A column for each value that SQL adds up or that a node is told; JSON for the sets that the registry of limits
    judges (controller.core.limits) and that grow with each module. docs/adr/0019 says why.
    """

    name: Mapped[str] = mapped_column(String(60))
    description: Mapped[str] = mapped_column(String(500), default="")
    tier: Mapped[str] = mapped_column(String(10), default="client")
    """Whom it is made for: admin, reseller or client."""
    cpu_percent: Mapped[int | None]
    memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    processes_max: Mapped[int | None]
    io_weight: Mapped[int | None]
    disk_bytes: Mapped[int | None] = mapped_column(BigInteger)
    php_versions: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    """None: every version that the node has."""
    php_children_max: Mapped[int]
    php_memory_bytes: Mapped[int] = mapped_column(BigInteger)
    upload_max_bytes: Mapped[int] = mapped_column(BigInteger)
    limits: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    """Key of a limit to {"soft": ..., "hard": ...}; one that is left out is unlimited."""
    flags: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    """Key of a feature to true or false; one that is left out is as the registry says."""
    options: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    """`storage.driver` and the like (controller.core.packages.definition); one left out has its default."""
    own: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    """Name of a field to what this package itself says; one left out comes from the parent, or is the default."""


class Package(PackageTerms, Model):
    """Terms that accounts share, as they are now."""

    __tablename__ = "packages"
    __table_args__ = (
        # Two indexes, because nulls are all different: a name is unique on the platform, and at each reseller.
        Index(
            "uq_packages_platform_name_live", "name", unique=True, sqlite_where=_IS_GLOBAL, postgresql_where=_IS_GLOBAL
        ),
        Index(
            "uq_packages_reseller_name_live",
            "reseller_id",
            "name",
            unique=True,
            sqlite_where=_IS_LIVE,
            postgresql_where=_IS_LIVE,
        ),
    )

    parent_id: Mapped[str | None] = mapped_column(ForeignKey("packages.id", ondelete="RESTRICT"), index=True)
    """What it does not say itself comes from there."""
    version: Mapped[int] = mapped_column(default=1)
    """Number of its newest version."""
    reseller_id: Mapped[str | None] = mapped_column(ForeignKey("resellers.id", ondelete="RESTRICT"), index=True)
    """Whose it is; None: of everybody (global)."""
    suspended_at: Mapped[datetime | None]
    """Since when no account gets it any more; those that have it go on."""
    deleted_at: Mapped[datetime | None]


class PackageVersion(PackageTerms, Model):
    """A package as it was after one edit. Rows are added and never changed."""

    __tablename__ = "package_versions"
    __table_args__ = (UniqueConstraint("package_id", "number"),)

    package_id: Mapped[str] = mapped_column(ForeignKey("packages.id", ondelete="RESTRICT"), index=True)
    number: Mapped[int]
    parent_id: Mapped[str | None] = mapped_column(String(36))
    actor: Mapped[str] = mapped_column(String(100), default="")
    actor_name: Mapped[str] = mapped_column(String(100), default="")
    note: Mapped[str] = mapped_column(String(200), default="")
    """Why there is one, when nobody edited this very package."""
