"""The table of what an administrator decided about rates."""

from __future__ import annotations

from sqlalchemy import Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from controller.db.base import Model


class RateLimitRow(Model):
    """One rate that is not the default."""

    __tablename__ = "rate_limits"

    name: Mapped[str] = mapped_column(String(32), unique=True)
    """A field of RateLimits."""
    requests: Mapped[int | None] = mapped_column(Integer)
    """None: no limit."""
    seconds: Mapped[int] = mapped_column(Integer)
