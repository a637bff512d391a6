"""Table of clients."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from controller.db.base import Model


class Client(Model):
    """Somebody who owns accounts. Names may repeat: two people can be called the same."""

    __tablename__ = "clients"

    name: Mapped[str] = mapped_column(String(120))
    email: Mapped[str] = mapped_column(String(254), index=True)
    reseller_id: Mapped[str | None] = mapped_column(ForeignKey("resellers.id", ondelete="RESTRICT"), index=True)
    """Who sells to them; None: the platform itself."""
    deleted_at: Mapped[datetime | None]
