"""Tables of the audit log: entries, their end, and signed checkpoints of it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from sqlalchemy import JSON, BigInteger, Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from controller.db.base import Model

HEAD_ID: Final = "head"
SECURITY_NOUNS: Final = ("user", "token", "access", "session", "login", "authority", "ca_rotation", "job_key", "audit")
"""Everything that was done to these is about who may do what."""
SECURITY_ACTIONS: Final = (
    "job.refuse", "node.clone_suspected", "node.quarantine", "node.release", "node.request", "node.approve",
    "node.reject", "node.revoke", "node.renew_certificate",
)  # fmt: skip
_IS_SECURITY: Final = " OR ".join(
    (
        *(f"action LIKE '{noun}.%'" for noun in SECURITY_NOUNS),
        *(f"action = '{action}'" for action in SECURITY_ACTIONS),
    )
)
IS_SECURITY: Final = text(f"({_IS_SECURITY})")
"""As text, in the index and in each query alike: no database knows that parameters ask for what the index has.

The brackets are part of it: SQLAlchemy puts none around a text, whose last alternative would then be all that the
conditions beside it narrow.
"""


class AuditEntry(Model):
    """One change of desired state."""

    __tablename__ = "audit_entries"
    __table_args__ = (
        # The newest of one kind are asked for: the key is the order in which they were written. Without it PostgreSQL
        # walks back through the whole log for an actor that did nothing (measured: 0.9 s of 500,000 entries).
        Index("ix_audit_entries_target", "target", "id"),
        Index("ix_audit_entries_actor", "actor", "id"),
        Index("ix_audit_entries_action", "action", "id"),
        Index("ix_audit_entries_request_id", "request_id", "id"),
        Index("ix_audit_entries_account_id", "account_id", "id"),
        Index("ix_audit_entries_client_id", "client_id", "id"),
        Index("ix_audit_entries_reseller_id", "reseller_id", "id"),
        Index("ix_audit_entries_address", "address", "id"),
        Index(
            "ix_audit_entries_security",
            "id",
            sqlite_where=IS_SECURITY,
            postgresql_where=IS_SECURITY,
        ),
    )

    number: Mapped[int] = mapped_column(BigInteger, unique=True)
    """1 and up, gap-free."""
    at: Mapped[datetime]
    actor: Mapped[str] = mapped_column(String(100))
    """kind/ID."""
    actor_name: Mapped[str] = mapped_column(String(200))
    address: Mapped[str | None] = mapped_column(String(64))
    """Where the request came from; None: from nowhere outside, or written by a release that did not know."""
    account_id: Mapped[str | None] = mapped_column(String(36))
    """The tenant whose thing was changed. No foreign key: an entry outlives everything."""
    client_id: Mapped[str | None] = mapped_column(String(36))
    """Whose account it was at that time, or whose person did it or was concerned."""
    reseller_id: Mapped[str | None] = mapped_column(String(36))
    """Whose client it was at that time."""
    request_id: Mapped[str] = mapped_column(String(100))
    action: Mapped[str] = mapped_column(String(100))
    target: Mapped[str] = mapped_column(String(100))
    """noun/ID."""
    target_name: Mapped[str] = mapped_column(String(300))
    before: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    after: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    previous_hash: Mapped[str] = mapped_column(String(64))
    hash: Mapped[str] = mapped_column(String(64))
    """SHA-256 in hex over previous_hash and the canonical JSON of the rest."""


class AuditHead(Model):
    """The end of the chain: one row. Locked by whoever appends, and what tells a cut-off end from a real one."""

    __tablename__ = "audit_head"

    number: Mapped[int] = mapped_column(BigInteger)
    hash: Mapped[str] = mapped_column(String(64))


class AuditCheckpoint(Model):
    """The end of the chain at some moment, signed. Append-only as the entries are (revision 0002)."""

    __tablename__ = "audit_checkpoints"

    number: Mapped[int] = mapped_column(BigInteger, unique=True)
    """Of the entry that was the last one."""
    hash: Mapped[str] = mapped_column(String(64))
    at: Mapped[datetime]
    payload: Mapped[str] = mapped_column(Text)
    """What was signed, byte for byte (shared.audit_proof.Checkpoint)."""
    kid: Mapped[str] = mapped_column(String(100))
    signature: Mapped[str] = mapped_column(String(100))
    """Ed25519, base64."""
