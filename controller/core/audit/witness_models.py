"""Tables of what nodes say of the checkpoints. Append-only as the entries are (revision 0002)."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from controller.db.base import Model


class AuditWitness(Model):
    """A node's signature below a checkpoint. No foreign keys: it outlives the node."""

    __tablename__ = "audit_witnesses"
    __table_args__ = (UniqueConstraint("node_id", "number"),)

    number: Mapped[int] = mapped_column(BigInteger)
    """Of the checkpoint's entry."""
    node_id: Mapped[str] = mapped_column(String(36))
    payload: Mapped[str] = mapped_column(Text)
    """What the node signed, byte for byte (shared.audit_witness.Statement)."""
    fingerprint: Mapped[str] = mapped_column(String(64))
    """Of the certificate whose key signed."""
    signature: Mapped[str] = mapped_column(String(200))
    """ECDSA with SHA-256, base64."""


class AuditWitnessCertificate(Model):
    """A certificate that a witness signed with, and who issued it: kept when the node and its authority are gone."""

    __tablename__ = "audit_witness_certificates"

    fingerprint: Mapped[str] = mapped_column(String(64), unique=True)
    pem: Mapped[str] = mapped_column(Text)
    authority_pem: Mapped[str] = mapped_column(Text)


class AuditContradiction(Model):
    """A node was shown another log before: somebody rewrote it, or a backup was restored. One for each known end."""

    __tablename__ = "audit_contradictions"
    __table_args__ = (UniqueConstraint("node_id", "known_number"),)

    node_id: Mapped[str] = mapped_column(String(36))
    at: Mapped[datetime]
    code: Mapped[str] = mapped_column(String(40))
    """checkpoint_fork or checkpoint_behind."""
    shown_number: Mapped[int] = mapped_column(BigInteger)
    shown_hash: Mapped[str] = mapped_column(String(64))
    known_number: Mapped[int] = mapped_column(BigInteger)
    known_payload: Mapped[str] = mapped_column(Text)
    """The checkpoint that the node was shown before, byte for byte."""
