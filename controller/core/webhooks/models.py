"""Tables of webhooks: the endpoints, and the outbox, which is the delivery log as well."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from controller.db.base import Model
from controller.jobs.models import by_value


class DeliveryState(enum.Enum):
    """Where a message is."""

    PENDING = "pending"
    """To be sent, or to be sent again at `next_at`."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """Given up; somebody may replay it."""


class WebhookEndpoint(Model):
    """Somebody's address."""

    __tablename__ = "webhook_endpoints"

    url: Mapped[str] = mapped_column(String(2000))
    description: Mapped[str] = mapped_column(String(500), default="")
    events: Mapped[list[str]] = mapped_column(JSON)
    """Names, `noun.*`, or `*`."""
    is_enabled: Mapped[bool] = mapped_column(default=True)
    secret: Mapped[str] = mapped_column(String(100))
    """Signs messages, so it has to be readable here; in no view, log or audit entry."""
    previous_secret: Mapped[str | None] = mapped_column(String(100))
    previous_until: Mapped[datetime | None]
    """Messages are signed with both secrets until then."""
    failures: Mapped[int] = mapped_column(default=0)
    """Attempts in a row that failed."""
    failing_since: Mapped[datetime | None]
    last_success_at: Mapped[datetime | None]
    paused_at: Mapped[datetime | None]
    """The controller gave up on it; messages are kept until somebody resumes it."""
    pause_reason: Mapped[str] = mapped_column(String(300), default="")


class WebhookDelivery(Model):
    """One message to one endpoint, and what became of it."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        Index("ix_webhook_deliveries_state_next_at", "state", "next_at"),
        Index("ix_webhook_deliveries_endpoint_id_id", "endpoint_id", "id"),
    )

    endpoint_id: Mapped[str] = mapped_column(ForeignKey("webhook_endpoints.id", ondelete="CASCADE"))
    message_id: Mapped[str] = mapped_column(String(40))
    """`webhook-id`: the same for every attempt and for a replay, so that receivers know what they have had."""
    event: Mapped[str] = mapped_column(String(100))
    subject: Mapped[str] = mapped_column(String(100))
    """noun/ID."""
    body: Mapped[str] = mapped_column(Text)
    """Exactly what is signed and sent."""
    state: Mapped[DeliveryState] = mapped_column(by_value(DeliveryState), default=DeliveryState.PENDING)
    attempts: Mapped[int] = mapped_column(default=0)
    next_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    log: Mapped[list[dict[str, Any]]] = mapped_column(JSON, default=list)
    """The attempts: at, status, error, body, milliseconds."""
    replay_of: Mapped[str | None] = mapped_column(String(36))
