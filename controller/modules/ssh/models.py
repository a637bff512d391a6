"""Table of SSH keys."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import JSON, ForeignKey, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from controller.db.base import Model


class SshKeyRow(Model):
    """One public key of one account."""

    __tablename__ = "ssh_keys"
    __table_args__ = (UniqueConstraint("account_id", "fingerprint"),)

    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(100))
    key_type: Mapped[str] = mapped_column(String(64))
    blob: Mapped[str] = mapped_column(Text)
    """base64, canonical; with `key_type` before it, the line that sshd is given."""
    fingerprint: Mapped[str] = mapped_column(String(64))
    """As ssh-keygen -l shows it: SHA256:..."""
    comment: Mapped[str] = mapped_column(String(200), default="")
    expires_at: Mapped[datetime | None] = mapped_column(index=True)
    allowed_networks: Mapped[list[str]] = mapped_column(JSON, default=list)
    """In CIDR notation; empty: from everywhere."""
    expired_at: Mapped[datetime | None]
    """Since when the node is not told it any more; sshd itself refused it at `expires_at`."""
