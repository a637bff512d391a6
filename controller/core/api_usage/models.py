"""Tables of the use of the API."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import BigInteger, ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from controller.db.base import Model

TOOK_MS: Final = (2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 10_000)
"""Upper ends of the classes of time that requests are counted in; one class more has no end. Counts add up, percentiles
do not."""


class ApiUsage(Model):
    """What a token, a user or a route was used for in one hour or on one day (UTC)."""

    __tablename__ = "api_usage"
    __table_args__ = (
        UniqueConstraint("kind", "subject", "period", "starts_at"),
        Index("ix_api_usage_period", "period", "starts_at"),
    )

    kind: Mapped[str] = mapped_column(String(8))
    """token, user or route."""
    subject: Mapped[str] = mapped_column(String(200))
    """Id of the token or user, or method and route."""
    user_id: Mapped[str | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    """Whose token, or which user; None for a route."""
    period: Mapped[str] = mapped_column(String(4))
    """hour or day."""
    starts_at: Mapped[datetime]
    requests: Mapped[int] = mapped_column(BigInteger)
    client_errors: Mapped[int] = mapped_column(BigInteger)
    """400 to 499 except 429."""
    server_errors: Mapped[int] = mapped_column(BigInteger)
    limited: Mapped[int] = mapped_column(BigInteger)
    """Answered 429."""
    took_2: Mapped[int] = mapped_column(BigInteger)
    took_5: Mapped[int] = mapped_column(BigInteger)
    took_10: Mapped[int] = mapped_column(BigInteger)
    took_25: Mapped[int] = mapped_column(BigInteger)
    took_50: Mapped[int] = mapped_column(BigInteger)
    took_100: Mapped[int] = mapped_column(BigInteger)
    took_250: Mapped[int] = mapped_column(BigInteger)
    took_500: Mapped[int] = mapped_column(BigInteger)
    took_1000: Mapped[int] = mapped_column(BigInteger)
    took_2500: Mapped[int] = mapped_column(BigInteger)
    took_10000: Mapped[int] = mapped_column(BigInteger)
    took_longer: Mapped[int] = mapped_column(BigInteger)


TOOK_COLUMNS: Final = (*(f"took_{end}" for end in TOOK_MS), "took_longer")
COUNT_COLUMNS: Final = ("requests", "client_errors", "server_errors", "limited", *TOOK_COLUMNS)


class ApiUsageAddress(Model):
    """An address that a token or user came from."""

    __tablename__ = "api_usage_addresses"
    __table_args__ = (
        UniqueConstraint("kind", "subject", "address"),
        Index("ix_api_usage_addresses_last_seen_at", "last_seen_at"),
    )

    kind: Mapped[str] = mapped_column(String(8))
    subject: Mapped[str] = mapped_column(String(36))
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    address: Mapped[str] = mapped_column(String(64))
    requests: Mapped[int] = mapped_column(BigInteger)
    last_seen_at: Mapped[datetime]
