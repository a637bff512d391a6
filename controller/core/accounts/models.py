"""Tables of accounts."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Any, Final

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from controller.db.base import Model
from controller.jobs.models import by_value
from shared.errors import BugError

_IS_LIVE: Final = text("deleted_at IS NULL")
_IS_GRANTED: Final = text("deleted_at IS NULL AND package_version_id IS NULL")


class AccountState(enum.Enum):
    """What is wanted of an account."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    """It is there and does not serve; nothing is lost."""
    TRASHED = "trashed"
    """It was deleted and can still be restored: out of service, and nothing is lost until `purge_at`."""
    DELETING = "deleting"
    """Its node was told to remove everything, and has not said that it did."""
    DELETED = "deleted"


class Lifter(enum.Enum):
    """Who may end a suspension or take a deletion back; those above may as well (controller.core.accounts.lifting)."""

    ADMIN = "admin"
    RESELLER = "reseller"
    CLIENT = "client"
    POLICY = "policy"
    """It ends by itself when its reason is gone; an administrator may end it before."""


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
        # Lists of one state are read newest first: the key is the order in which accounts were made.
        Index("ix_accounts_state", "state", "id"),
        # How many of which package a client has, read from the index alone: what resellers handed out is their sum.
        Index("ix_accounts_granted", "client_id", "package_id", sqlite_where=_IS_GRANTED, postgresql_where=_IS_GRANTED),
        # What comes due is looked for every few seconds, and almost no account has such a time.
        Index("ix_accounts_purge_at", "purge_at"),
        Index("ix_accounts_suspended_until", "suspended_until"),
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
    suspended_by: Mapped[str] = mapped_column(String(100), default="")
    """kind/ID; empty while it is not suspended."""
    suspended_until: Mapped[datetime | None]
    """When it ends by itself; None: when somebody ends it."""
    liftable_by: Mapped[Lifter | None] = mapped_column(by_value(Lifter))
    """None while it is not suspended."""
    deletion_asked_at: Mapped[datetime | None]
    deletion_asked_by: Mapped[str] = mapped_column(String(100), default="")
    """kind/ID of who deleted it; stays when it is gone."""
    deletion_asked_by_name: Mapped[str] = mapped_column(String(200), default="")
    purge_at: Mapped[datetime | None]
    """While it is in the trash: when it goes for good."""
    state_before_trash: Mapped[AccountState | None] = mapped_column(by_value(AccountState))
    restorable_by: Mapped[Lifter | None] = mapped_column(by_value(Lifter))
    """Who may take it out of the trash."""
    labels: Mapped[dict[str, str]] = mapped_column(JSON, default=dict)
    """Key to value; `AccountLabel` has the same to search by."""
    note: Mapped[str] = mapped_column(Text, default="")
    """For administrators; never shown to a tenant."""
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


class AccountLabel(Model):
    """One label of one account, to search by. Written together with `Account.labels`, and by nobody else."""

    __tablename__ = "account_labels"
    __table_args__ = (
        UniqueConstraint("account_id", "key"),
        Index("ix_account_labels_key", "key", "value", "account_id"),
    )

    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), index=True)
    key: Mapped[str] = mapped_column(String(63))
    value: Mapped[str] = mapped_column(String(200))


class DeletionCertificate(Model):
    """What was removed with an account. Written once, in the transaction in which the account is gone."""

    __tablename__ = "deletion_certificates"
    __table_args__ = (Index("ix_deletion_certificates_audit_number", "audit_number"),)

    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id", ondelete="RESTRICT"), unique=True)
    content: Mapped[dict[str, Any]] = mapped_column(JSON)
    """What is certified; plain values."""
    content_hash: Mapped[str] = mapped_column(String(64))
    """SHA-256 in hex over the canonical JSON of the content."""
    audit_number: Mapped[int | None] = mapped_column(BigInteger)
    """Entry of the audit log that holds the hash; None: it comes within seconds."""
    audit_hash: Mapped[str | None] = mapped_column(String(64))
