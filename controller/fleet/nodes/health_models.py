"""Tables of how nodes and their modules are doing. Observed only: nothing here is wanted of anybody."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from controller.db.base import Model


class NodeSignals(Model):
    """What a node's sessions told about it, and the judgement that rests on it; `id` is the node's."""

    __tablename__ = "node_signals"

    clock_skew_seconds: Mapped[float] = mapped_column(default=0.0)
    """The node's clock minus ours, at its last heartbeat that differed."""
    seq_gaps: Mapped[int] = mapped_column(default=0)
    """Job numbers that it misses."""
    disk_used_percent: Mapped[float | None]
    """Of the fuller one of its root and its accounts' file system."""
    quarantine: Mapped[str] = mapped_column(Text, default="")
    """Why its executor takes no jobs."""
    status: Mapped[str] = mapped_column(String(16), default="unknown")
    reasons: Mapped[list[dict[str, Any]]] = mapped_column(JSON, default=list)
    """See health.HealthReason; what status was judged by."""
    status_changed_at: Mapped[datetime | None]


class ModuleHealthRow(Model):
    """The last look at one module of one node."""

    __tablename__ = "module_health"
    __table_args__ = (UniqueConstraint("node_id", "name"),)

    node_id: Mapped[str] = mapped_column(ForeignKey("nodes.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(31))
    is_healthy: Mapped[bool]
    checks: Mapped[list[dict[str, Any]]] = mapped_column(JSON, default=list)
    version: Mapped[str] = mapped_column(String(200), default="")
    last_reload_at: Mapped[datetime | None]
    checked_at: Mapped[datetime]
    changed_at: Mapped[datetime]
    """Since when it is healthy, or is not."""
