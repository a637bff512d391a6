"""Tables about who is there: processes of the controller, and what nodes said last."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import JSON, String
from sqlalchemy.orm import Mapped, mapped_column

from controller.db.base import Model


class ProcessRow(Model):
    """One running process of the controller; `id` is its own for as long as it lives (`nodes.gateway_id`)."""

    __tablename__ = "processes"

    role: Mapped[str] = mapped_column(String(16))
    instance: Mapped[str] = mapped_column(String(40), default="")
    host: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int]
    version: Mapped[str] = mapped_column(String(32))
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime] = mapped_column(index=True)
    """Its lease: nodes of a gateway that was not seen for long are not connected, whatever their rows say."""
    address: Mapped[str] = mapped_column(String(300), default="")
    """host:port where other processes reach its gateway; empty: it has none."""
    nodes_connected: Mapped[int] = mapped_column(default=0)


class NodeSampleRow(Model):
    """The latest metrics of a node, for processes that do not hold its session; `id` is the node's."""

    __tablename__ = "node_samples"

    at: Mapped[datetime]
    gauges: Mapped[dict[str, float]] = mapped_column(JSON)
