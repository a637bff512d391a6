"""Table of sites."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from controller.db.base import Model

_IS_LIVE = text("deleted_at IS NULL")
_IS_PARKED = text("parked_at IS NOT NULL")


class Site(Model):
    """One site. What is wanted, what the node has (`applied`), and why it did not take the change (`parked_*`)."""

    __tablename__ = "sites"
    __table_args__ = (
        Index("uq_sites_domain_live", "domain", unique=True, sqlite_where=_IS_LIVE, postgresql_where=_IS_LIVE),
        Index("ix_sites_parked", "id", sqlite_where=_IS_PARKED, postgresql_where=_IS_PARKED),
    )

    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), index=True)
    domain: Mapped[str] = mapped_column(String(253))
    """In A-labels; never changes, because the node knows the site by it."""
    aliases: Mapped[list[str]] = mapped_column(JSON, default=list)
    document_root: Mapped[str] = mapped_column(String(200))
    php_version: Mapped[str | None] = mapped_column(String(3))
    extra_directives: Mapped[str] = mapped_column(Text, default="")
    php_settings: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    """What its owner has chosen (shared.specs.php_settings); no part of `applied`, because no node refuses it."""
    included_generation: Mapped[int] = mapped_column(default=0)
    """Generation of the account with which the site was changed, retried or taken away last."""
    applied: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """The values that the node serves now (see values.SiteValues); None: it never had the site."""
    applied_generation: Mapped[int] = mapped_column(default=0)
    parked_at: Mapped[datetime | None]
    parked_code: Mapped[str | None] = mapped_column(String(64))
    parked_message: Mapped[str | None] = mapped_column(Text)
    deleting_at: Mapped[datetime | None]
    """Since when the node is asked to take it away."""
    deleted_at: Mapped[datetime | None]

    @property
    def key(self) -> str:
        """Its resource key in manifests."""
        return f"site/{self.domain}"
