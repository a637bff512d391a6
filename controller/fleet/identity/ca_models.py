"""The table of changes of the certificate authority."""

from __future__ import annotations

import enum
from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from controller.db.base import Model
from controller.jobs.models import by_value


class CaPhase(enum.Enum):
    """How far a change of the authority is. Source: the phases of Teleport's CA rotation, without its grace periods."""

    INIT = "init"
    """Nodes learn of the new authority; the old one issues everything."""
    UPDATE_CLIENTS = "update_clients"
    """Nodes get certificates of the new one."""
    UPDATE_SERVERS = "update_servers"
    """Our own listeners have certificates of the new one, too."""
    ROLLBACK = "rollback"
    """Everything is issued by the old one again; the new one is still believed, until nobody needs that."""
    DONE = "done"
    """Nobody believes the old one any more."""
    ROLLED_BACK = "rolled_back"
    """Nobody believes the new one any more."""


class CaRotation(Model):
    """One change of the authority. At most one of them is open."""

    __tablename__ = "ca_rotations"

    phase: Mapped[CaPhase] = mapped_column(by_value(CaPhase), default=CaPhase.INIT)
    phase_since: Mapped[datetime]
    settled_phase: Mapped[CaPhase | None] = mapped_column(by_value(CaPhase))
    """The phase that signer and trust bundle are in; they follow a moment after `phase`."""
    old_ca: Mapped[str] = mapped_column(String(40))
    new_ca: Mapped[str] = mapped_column(String(40))
    """Ids (controller/fleet/identity/authorities.py)."""
    bundle_version: Mapped[int] = mapped_column(default=0)
    """First trust bundle with both; 0 until there is one."""
    reason: Mapped[str] = mapped_column(String(500), default="")
    started_by: Mapped[str] = mapped_column(String(120))
    finished_at: Mapped[datetime | None]
