"""Table of domains."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from controller.db.base import Model

_IS_LIVE = text("deleted_at IS NULL")


class Domain(Model):
    """A host name that one account may serve."""

    __tablename__ = "domains"
    __table_args__ = (
        Index("uq_domains_name_live", "name", unique=True, sqlite_where=_IS_LIVE, postgresql_where=_IS_LIVE),
    )

    name: Mapped[str] = mapped_column(String(253))
    """In A-labels, lower case."""
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), index=True)
    is_automatic: Mapped[bool] = mapped_column(default=False)
    """True: it came with a site, and goes when no site uses it any more."""
    deleted_at: Mapped[datetime | None]
