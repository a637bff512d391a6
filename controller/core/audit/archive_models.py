"""The tables of archives of the audit log. Append-only as the entries are (revision 0002)."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Integer, LargeBinary, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from controller.db.base import Model


class AuditArchive(Model):
    """A range of entries that lies in a file, whose parts are in `AuditArchivePart`.

    The database lets only entries go that a row of this table names.
    """

    __tablename__ = "audit_archives"

    first: Mapped[int] = mapped_column(BigInteger, unique=True)
    """1, or the entry after the archive before."""
    last: Mapped[int] = mapped_column(BigInteger, unique=True)
    """An entry with a signed checkpoint."""
    hash: Mapped[str] = mapped_column(String(64))
    """Of the last entry, as the checkpoint has it."""
    previous_hash: Mapped[str] = mapped_column(String(64))
    """Of the entry before the first."""
    at: Mapped[datetime]
    name: Mapped[str] = mapped_column(String(100))
    """Of the file."""
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    """Of the file, in hex."""


class AuditArchivePart(Model):
    """A piece of an archive's file. They are written before the archive has a row, and cannot be changed after it."""

    __tablename__ = "audit_archive_parts"
    __table_args__ = (UniqueConstraint("sha256", "number"),)

    sha256: Mapped[str] = mapped_column(String(64))
    """Of the whole file, as in `AuditArchive.sha256`."""
    number: Mapped[int] = mapped_column(Integer)
    """0 and up, without gaps."""
    content: Mapped[bytes] = mapped_column(LargeBinary)
    """PART_BYTES of controller.core.audit.archive_files, the last one fewer."""
