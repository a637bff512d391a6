"""Tables of tenants. Clients have a room of their own."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from controller.db.base import Model

_IS_LIVE = text("deleted_at IS NULL")


class Reseller(Model):
    """Somebody who sells packages to clients of their own."""

    __tablename__ = "resellers"
    __table_args__ = (
        Index("uq_resellers_name_live", "name", unique=True, sqlite_where=_IS_LIVE, postgresql_where=_IS_LIVE),
    )

    name: Mapped[str] = mapped_column(String(120))
    email: Mapped[str] = mapped_column(String(254))
    packages_max: Mapped[int | None]
    """How many packages of their own they may have; None: any number."""
    caps: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    """Key of a limit to the most that all their accounts together may have; one left out is unlimited."""
    oversell: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    """Key of a limit to the factor (1.0 to 100.0) by which they may promise more than the cap; left out: 1.0."""
    suspended_at: Mapped[datetime | None]
    suspension_reason: Mapped[str] = mapped_column(String(500), default="")
    deleted_at: Mapped[datetime | None]


class CustomRole(Model):
    """A set of permissions under a name; never more than the kind of person may have."""

    __tablename__ = "roles"
    __table_args__ = (UniqueConstraint("owner", "name"),)

    name: Mapped[str] = mapped_column(String(64))
    description: Mapped[str] = mapped_column(String(500), default="")
    level: Mapped[str] = mapped_column(String(16))
    """Value of the Role whose people may have it."""
    permissions: Mapped[list[str]] = mapped_column(JSON)
    owner: Mapped[str] = mapped_column(String(50), default="platform", index=True)
    """`platform`, `reseller/ID` or `client/ID`: who made it and whose people may have it."""


class AccountMember(Model):
    """A team member may work on this account."""

    __tablename__ = "account_members"
    __table_args__ = (UniqueConstraint("user_id", "account_id"),)

    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), index=True)
