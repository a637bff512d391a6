"""Tables of accounts."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Final

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from controller.db.base import Model
from controller.jobs.models import by_value
from shared.errors import BugError

_IS_LIVE: Final = text("deleted_at IS NULL")


class AccountState(enum.Enum):
    """What is wanted of an account."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    """It is there and does not serve; nothing is lost."""
    DELETING = "deleting"
    """Its node was told to remove everything, and has not said that it did."""
    DELETED = "deleted"


class ObservedStatus(enum.Enum):
    """What the node said last about an account."""

    UNKNOWN = "unknown"
    """It has not said anything yet."""
    OK = "ok"
    """All is as wanted, and was verified."""
    PARKED = "parked"
    """All but the parked resources is as wanted."""
    FAILED = "failed"
    """The account itself could not be brought about; it is as it was before."""


class Account(Model):
    """One tenant on one node."""

    __tablename__ = "accounts"
    __table_args__ = (
        Index("uq_accounts_name_live", "name", unique=True, sqlite_where=_IS_LIVE, postgresql_where=_IS_LIVE),
        UniqueConstraint("node_id", "uid"),
    )

    name: Mapped[str] = mapped_column(String(24))
    """The unix user, unique in the fleet among accounts that are not deleted."""
    client_id: Mapped[str] = mapped_column(ForeignKey("clients.id", ondelete="RESTRICT"), index=True)
    package_id: Mapped[str] = mapped_column(ForeignKey("packages.id", ondelete="RESTRICT"), index=True)
    package_version_id: Mapped[str | None] = mapped_column(
        ForeignKey("package_versions.id", ondelete="RESTRICT"), index=True
    )
    """The version of its package that it keeps; None: it follows the newest."""
    node_id: Mapped[str | None] = mapped_column(ForeignKey("nodes.id", ondelete="RESTRICT"), index=True)
    """None once it is deleted, so that the row keeps no node from being deleted."""
    uid: Mapped[int]
    state: Mapped[AccountState] = mapped_column(by_value(AccountState), default=AccountState.ACTIVE)
    suspension_reason: Mapped[str] = mapped_column(String(500), default="")
    suspended_at: Mapped[datetime | None]
    desired_generation: Mapped[int] = mapped_column(default=0)
    observed_generation: Mapped[int] = mapped_column(default=0)
    observed_at: Mapped[datetime | None]
    observed_status: Mapped[ObservedStatus] = mapped_column(by_value(ObservedStatus), default=ObservedStatus.UNKNOWN)
    observed_code: Mapped[str | None] = mapped_column(String(64))
    """Of the error with which the last job ended; None: it ended well."""
    observed_message: Mapped[str | None] = mapped_column(Text)
    deleted_at: Mapped[datetime | None]

    @property
    def subject(self) -> str:
        """What its manifests are about."""
        return f"account/{self.name}"

    @property
    def home_node_id(self) -> str:
        """The node of an account that is not deleted."""
        if self.node_id is None:
            raise BugError(f"the account {self.id} has no node any more")
        return self.node_id


class AccountProof(Model):
    """The latest reading of one limit, as the node's kernel has it."""

    __tablename__ = "account_proofs"
    __table_args__ = (UniqueConstraint("account_id", "resource", "limit_name"),)

    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), index=True)
    resource: Mapped[str] = mapped_column(String(300))
    limit_name: Mapped[str] = mapped_column(String(60))
    wanted: Mapped[int | None] = mapped_column(BigInteger)
    enforced: Mapped[int | None] = mapped_column(BigInteger)
    """None: the kernel enforces nothing."""
    source: Mapped[str] = mapped_column(String(500))
    """The file or command it was read from."""
    generation: Mapped[int]
    read_at: Mapped[datetime]
