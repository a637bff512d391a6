"""Tables of package edits that go over their accounts in waves."""

from __future__ import annotations

from sqlalchemy import ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from controller.db.base import Model
from controller.fleet.rollouts.models import InWave, InWaves


class PackageRollout(InWaves, Model):
    """One edit of a package, on its way over the accounts that follow it (and what inherits from it)."""

    __tablename__ = "package_rollouts"

    package_id: Mapped[str] = mapped_column(ForeignKey("packages.id", ondelete="RESTRICT"), index=True)
    package_name: Mapped[str] = mapped_column(String(60))
    version_before: Mapped[int]
    version: Mapped[int]
    """Of the package; what inherits from it has versions of its own."""
    account_timeout_seconds: Mapped[int]
    actor: Mapped[str] = mapped_column(String(100))
    is_returned: Mapped[bool] = mapped_column(default=False)
    """Aborted by going back: the package and its accounts have again what they had."""


class PackageRolloutAccount(InWave, Model):
    """One account of such a rollout."""

    __tablename__ = "package_rollout_accounts"
    __table_args__ = (
        UniqueConstraint("rollout_id", "account_id"),
        # Which rollouts have something under way is asked every few seconds, and almost no account is.
        Index("ix_package_rollout_accounts_state", "state", "rollout_id"),
    )

    rollout_id: Mapped[str] = mapped_column(ForeignKey("package_rollouts.id", ondelete="CASCADE"), index=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), index=True)
    version_before_id: Mapped[str] = mapped_column(ForeignKey("package_versions.id", ondelete="RESTRICT"), index=True)
    """What it keeps until its wave comes."""
    generation: Mapped[int] = mapped_column(default=0)
    """Of the account, that brings the newest version to its node; 0: its wave has not come."""
