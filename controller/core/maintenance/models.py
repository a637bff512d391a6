"""Table of the controller's maintenance."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from controller.db.base import Model

MAINTENANCE_ID: Final = "00000000-0000-0000-0000-000000000001"


class ControllerMaintenance(Model):
    """One row at most. One whose end has passed counts as none, also before somebody took it away."""

    __tablename__ = "controller_maintenance"

    reason: Mapped[str] = mapped_column(String(500))
    ends_at: Mapped[datetime | None]
    """None: until somebody ends it."""
    since: Mapped[datetime]
    actor: Mapped[str] = mapped_column(String(120))
    actor_name: Mapped[str] = mapped_column(String(200))
