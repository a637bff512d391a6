"""Table of what somebody put aside."""

from __future__ import annotations

from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column

from controller.db.base import Model


class Dismissal(Model):
    """Somebody looked at an item and decided to leave it; counts as long as the item stays what it was."""

    __tablename__ = "attention_dismissals"

    item_id: Mapped[str] = mapped_column(String(120), unique=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    """Of what the item said then; another one is a new item."""
    note: Mapped[str] = mapped_column(Text)
    actor: Mapped[str] = mapped_column(String(120))
    actor_name: Mapped[str] = mapped_column(String(200))
