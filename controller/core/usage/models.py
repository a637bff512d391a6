"""Tables of the usage ledger."""

from __future__ import annotations

from datetime import date, datetime

from sqlalchemy import BigInteger, Date, ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from controller.db.base import Model


class AccountUsage(Model):
    """What one account used of one thing when it was measured last."""

    __tablename__ = "account_usage"
    __table_args__ = (UniqueConstraint("account_id", "limit_key"),)

    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), index=True)
    limit_key: Mapped[str] = mapped_column(String(40))
    used: Mapped[int] = mapped_column(BigInteger)
    peak: Mapped[int] = mapped_column(BigInteger)
    peak_at: Mapped[datetime]
    soft: Mapped[int | None] = mapped_column(BigInteger)
    """As the package had it when it was measured; None: nobody is warned."""
    hard: Mapped[int | None] = mapped_column(BigInteger)
    near_since: Mapped[datetime | None] = mapped_column(index=True)
    """Since when it is over the soft value and not over the hard one; None: it is not."""
    over_since: Mapped[datetime | None] = mapped_column(index=True)
    """Since when it is over the hard value; None: it is not."""
    measured_at: Mapped[datetime]


class AccountFigure(Model):
    """What an account's node measured last, whatever limits there are."""

    __tablename__ = "account_figures"

    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), unique=True, index=True)
    disk_bytes: Mapped[int | None] = mapped_column(BigInteger)
    inodes: Mapped[int | None] = mapped_column(BigInteger)
    memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    processes_max: Mapped[int | None] = mapped_column(BigInteger)
    """How many there are; named as the limit."""
    bandwidth_bytes: Mapped[int | None] = mapped_column(BigInteger)
    """In `month`, as its counters say together (AccountMeter)."""
    cpu_seconds: Mapped[int | None] = mapped_column(BigInteger)
    """Likewise."""
    month: Mapped[date | None] = mapped_column(Date)
    """First day of the month (UTC) that the two before are of; None: nothing was counted yet."""
    sampled_at: Mapped[datetime]


class AccountMeter(Model):
    """What one counter of a node said at most of one account's use in one calendar month (UTC)."""

    __tablename__ = "account_meters"
    __table_args__ = (
        UniqueConstraint("account_id", "limit_key", "month", "source"),
        Index("ix_account_meters_month", "month"),
    )

    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), index=True)
    limit_key: Mapped[str] = mapped_column(String(40))
    month: Mapped[date] = mapped_column(Date)
    """Its first day."""
    source: Mapped[str] = mapped_column(String(32))
    """The counter's name: whoever begins to count anew has another one."""
    value: Mapped[int] = mapped_column(BigInteger)


class UsageDay(Model):
    """What one account used of one thing on one day (UTC)."""

    __tablename__ = "usage_days"
    __table_args__ = (
        UniqueConstraint("account_id", "limit_key", "day"),
        Index("ix_usage_days_package", "package_id", "limit_key", "day"),
        Index("ix_usage_days_day", "day"),
    )

    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), index=True)
    package_id: Mapped[str] = mapped_column(String(36))
    """The account's package when it was measured last that day."""
    limit_key: Mapped[str] = mapped_column(String(40))
    day: Mapped[date] = mapped_column(Date)
    last: Mapped[int] = mapped_column(BigInteger)
    peak: Mapped[int] = mapped_column(BigInteger)


class OveruseCase(Model):
    """An account that is over a limit, and what was done about it by policy."""

    __tablename__ = "overuse_cases"

    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), unique=True, index=True)
    since: Mapped[datetime]
    action: Mapped[str] = mapped_column(String(20), default="")
    """throttled or suspended; empty: nothing yet."""
    acted_at: Mapped[datetime | None]
