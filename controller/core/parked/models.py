"""Table of parked resources."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from controller.db.base import Model


class ParkedResource(Model):
    """One resource that a node could not bring about; gone when a later result says that it could."""

    __tablename__ = "parked_resources"
    __table_args__ = (UniqueConstraint("node_id", "subject", "key"),)

    node_id: Mapped[str] = mapped_column(String(36), index=True)
    account_id: Mapped[str | None] = mapped_column(String(36), index=True)
    subject: Mapped[str] = mapped_column(String(200))
    """`account/NAME` or `node`: whose manifest it is in."""
    key: Mapped[str] = mapped_column(String(300))
    kind: Mapped[str] = mapped_column(String(31))
    """What stands before the slash of the key: site, account, php, module."""
    code: Mapped[str] = mapped_column(String(64))
    message: Mapped[str] = mapped_column(Text)
    hint: Mapped[str | None] = mapped_column(Text)
    context: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    """Of the node's error: step, argv, exit_code, stderr."""
    diff: Mapped[str] = mapped_column(Text, default="")
    """What the change would have made of the node's files."""
    generation: Mapped[int]
    job_id: Mapped[str] = mapped_column(String(36), index=True)
    since: Mapped[datetime]
