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
    WITHDRAWN = "withdrawn"
    """What it told of was no longer the tenant's when it was to be sent; its body is gone."""


class WebhookEndpoint(Model):
    """Somebody's address."""

    __tablename__ = "webhook_endpoints"

    reseller_id: Mapped[str | None] = mapped_column(ForeignKey("resellers.id", ondelete="CASCADE"), index=True)
    """The reseller whose it is, and whose events it gets; None, as `client_id` is: the platform's."""
    client_id: Mapped[str | None] = mapped_column(ForeignKey("clients.id", ondelete="CASCADE"), index=True)
    """The client whose it is; at most one of the two is set."""
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

    @property
    def owner(self) -> str:
        """`reseller/ID`, `client/ID`; empty: the platform."""
        if self.reseller_id is not None:
            return f"reseller/{self.reseller_id}"
        return f"client/{self.client_id}" if self.client_id is not None else ""


class WebhookDelivery(Model):
    """One message to one endpoint, and what became of it."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        Index("ix_webhook_deliveries_state_next_at", "state", "next_at"),
        Index("ix_webhook_deliveries_endpoint_id_id", "endpoint_id", "id"),
    )

    endpoint_id: Mapped[str] = mapped_column(ForeignKey("webhook_endpoints.id", ondelete="CASCADE"))
    account_id: Mapped[str | None] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), index=True)
    """For a tenant's endpoint: it is shown and sent only while this account is the tenant's."""
    client_id: Mapped[str | None] = mapped_column(ForeignKey("clients.id", ondelete="CASCADE"), index=True)
    """Likewise, of this client."""
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
