"""What goes in and out of the API for webhooks."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from controller.core.webhooks.models import WebhookDelivery, WebhookEndpoint

Url = Annotated[
    str,
    Meta(
        min_length=8,
        max_length=2000,
        description="Where messages go: https, or http into a network that the settings allow.",
        examples=["https://billing.example.com/hooks/wcp360"],
    ),
]
Description = Annotated[str, Meta(max_length=500, examples=["Billing"])]
Events = Annotated[
    tuple[Annotated[str, Meta(min_length=1, max_length=100)], ...],
    Meta(
        min_length=1,
        max_length=100,
        description="Names of events, `noun.*`, or `*` for all.",
        examples=[["account.*", "job.failed"]],
    ),
]


class WebhookCreate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new endpoint."""

    url: Url
    events: Events
    description: Description = ""
    is_enabled: bool = True


class WebhookUpdate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to change; what is left out stays."""

    url: Url | UnsetType = UNSET
    events: Events | UnsetType = UNSET
    description: Description | UnsetType = UNSET
    is_enabled: bool | UnsetType = UNSET


class WebhookView(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint, without its secret."""

    id: str
    reseller_id: Annotated[str | None, Meta(description="The reseller whose it is; it gets that one's events only.")]
    client_id: Annotated[str | None, Meta(description="Likewise, the client. Neither: it is the platform's.")]
    url: str
    description: str
    events: tuple[str, ...]
    is_enabled: Annotated[bool, Meta(description="False: nothing is recorded for it.")]
    state: Annotated[str, Meta(description="active, disabled, or paused by the controller because it was dead.")]
    pause_reason: str
    paused_at: datetime | None
    failures: Annotated[int, Meta(description="Attempts in a row that failed.")]
    failing_since: datetime | None
    last_success_at: datetime | None
    previous_secret_until: Annotated[datetime | None, Meta(description="Until then messages have two signatures.")]
    created_at: datetime
    updated_at: datetime


class WebhookPage(msgspec.Struct, frozen=True, kw_only=True):
    """Endpoints, newest first."""

    items: tuple[WebhookView, ...]
    next_cursor: str | None


class WebhookSecretView(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint whose secret was just made."""

    webhook: WebhookView
    secret: Annotated[str, Meta(description="Shown once; nobody can read it again.", examples=["whsec_..."])]


class AttemptView(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt to send a message."""

    at: datetime
    status: Annotated[int | None, Meta(description="Of the answer; null: there was none.")]
    error: str
    body: Annotated[str, Meta(description="The first 1024 bytes of the answer.")]
    milliseconds: int


class WebhookDeliveryView(msgspec.Struct, frozen=True, kw_only=True):
    """A message to an endpoint, and what became of it."""

    id: str
    webhook_id: str
    message_id: Annotated[str, Meta(description="`webhook-id`: the same for all attempts and replays.")]
    event: str
    subject: Annotated[str, Meta(examples=["account/ID"])]
    state: Annotated[
        str, Meta(description="pending, succeeded, failed, or withdrawn: it told of what went to another owner.")
    ]
    attempts: tuple[AttemptView, ...]
    next_at: Annotated[datetime | None, Meta(description="When it is sent (again); null: never.")]
    body: Annotated[str, Meta(description="Exactly what is sent; empty when it was withdrawn.")]
    replay_of: str | None
    created_at: datetime
    finished_at: datetime | None


class WebhookDeliveryPage(msgspec.Struct, frozen=True, kw_only=True):
    """Messages, newest first."""

    items: tuple[WebhookDeliveryView, ...]
    next_cursor: str | None


def view_webhook(row: WebhookEndpoint) -> WebhookView:
    """For the API."""
    state = "disabled" if not row.is_enabled else "paused" if row.paused_at is not None else "active"
    return WebhookView(
        id=row.id,
        reseller_id=row.reseller_id,
        client_id=row.client_id,
        url=row.url,
        description=row.description,
        events=tuple(row.events),
        is_enabled=row.is_enabled,
        state=state,
        pause_reason=row.pause_reason,
        paused_at=row.paused_at,
        failures=row.failures,
        failing_since=row.failing_since,
        last_success_at=row.last_success_at,
        previous_secret_until=row.previous_until,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def view_delivery(row: WebhookDelivery) -> WebhookDeliveryView:
    """For the API."""
    return WebhookDeliveryView(
        id=row.id,
        webhook_id=row.endpoint_id,
        message_id=row.message_id,
        event=row.event,
        subject=row.subject,
        state=row.state.value,
        attempts=tuple(msgspec.convert(entry, AttemptView) for entry in row.log),
        next_at=row.next_at if row.finished_at is None else None,
        body=row.body,
        replay_of=row.replay_of,
        created_at=row.created_at,
        finished_at=row.finished_at,
    )
