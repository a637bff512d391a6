"""Webhooks and the published list of events, over HTTP."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any

import msgspec
from litestar import Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, QueryParameter
from msgspec import Meta

from controller.core.context import Actor
from controller.core.events.catalogue import Catalogue, EventType
from controller.core.http import DRY_RUN_RESPONSES, Cursor, DryRun, Limit, PathId, Search, answer_done
from controller.core.operations import FleetContext, Operations
from controller.core.paging import DEFAULT_LIMIT, PageRequest
from controller.core.webhooks import service
from controller.core.webhooks.targets import TargetsByOwner
from controller.core.webhooks.views import (
    WebhookCreate,
    WebhookDeliveryPage,
    WebhookDeliveryView,
    WebhookPage,
    WebhookSecretView,
    WebhookUpdate,
    WebhookView,
)

_TAGS = ["webhooks"]
_EVENT_TAGS = ["events"]


class EventTypeView(msgspec.Struct, frozen=True, kw_only=True):
    """One event, and the JSON schemas (2020-12) of what is told of it."""

    name: Annotated[str, Meta(examples=["account.suspend"])]
    description: str
    webhook_schema: Annotated[
        dict[str, Any] | None, Meta(description="Of `data` in a webhook's message; null: screens only.")
    ]
    live_schema: Annotated[dict[str, Any] | None, Meta(description="Of `data` on the WebSocket; null: webhooks only.")]
    is_for_tenants: Annotated[bool, Meta(description="Webhooks of resellers and clients get it, about what is theirs.")]


class EventTypeList(msgspec.Struct, frozen=True, kw_only=True):
    """Every event there is, by name."""

    items: tuple[EventTypeView, ...]
    next_cursor: str | None = None


@lru_cache(maxsize=1024)
def render_event_type(event: EventType) -> EventTypeView:
    """The view of an event. Kept: its types do not change while the process runs, and their schemas take a while."""
    return EventTypeView(
        name=event.name,
        description=event.description,
        webhook_schema=msgspec.json.schema(event.data) if event.data is not None else None,
        live_schema=msgspec.json.schema(event.live) if event.live is not None else None,
        is_for_tenants=event.is_for_tenants,
    )


@get("/event-types", operation_id="list-event-types", tags=_EVENT_TAGS, summary="List all events and their data")
async def list_event_types(
    *,
    catalogue: NamedDependency[Catalogue],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> EventTypeList:
    """Show every event that webhooks and the WebSocket tell of, with the JSON schema of its data."""

    async def query(ctx: FleetContext) -> EventTypeList:
        ctx.actor.require("events", "read")
        return EventTypeList(items=tuple(render_event_type(event) for event in catalogue))

    return await operations.read(actor, request_id, query)


@get("/webhooks", operation_id="list-webhooks", tags=_TAGS, summary="List webhooks")
async def list_webhooks(
    *,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    search: Search = None,
    reseller_id: Annotated[str | None, QueryParameter(description="Only of this reseller.")] = None,
    client_id: Annotated[str | None, QueryParameter(description="Only of this client.")] = None,
) -> WebhookPage:
    """Show where events are sent, newest first: one's own; administrators see those of everybody."""
    page = PageRequest(limit=limit, cursor=cursor, search=search)
    return await operations.read(
        actor,
        request_id,
        lambda ctx: service.list_webhooks(ctx, page, reseller_id=reseller_id, client_id=client_id),
    )


@post(
    "/webhooks",
    operation_id="create-webhook",
    tags=_TAGS,
    status_code=201,
    responses=DRY_RUN_RESPONSES,
    summary="Create a webhook",
)
async def create_webhook(
    *,
    data: JSONBody[WebhookCreate],
    catalogue: NamedDependency[Catalogue],
    targets: NamedDependency[TargetsByOwner],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[WebhookSecretView]:
    """Send events to an address from now on; the secret that signs them is in this answer and nowhere else."""
    is_tenant = await operations.read(actor, request_id, service.require_write)
    await targets.of(is_tenant=is_tenant).require_acceptable(data.url)
    outcome = await operations.change(
        actor, request_id, lambda ctx: service.create_webhook(ctx, data, catalogue), is_dry_run=dry_run
    )
    return answer_done(outcome, status=201)


@get("/webhooks/{webhook_id:str}", operation_id="show-webhook", tags=_TAGS, summary="Show a webhook")
async def show_webhook(
    *,
    webhook_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> WebhookView:
    """Show one endpoint and how it is doing."""
    return await operations.read(actor, request_id, lambda ctx: service.show_webhook(ctx, webhook_id))


@patch(
    "/webhooks/{webhook_id:str}",
    operation_id="update-webhook",
    tags=_TAGS,
    status_code=200,
    responses=DRY_RUN_RESPONSES,
    summary="Change a webhook",
)
async def update_webhook(
    *,
    webhook_id: PathId,
    data: JSONBody[WebhookUpdate],
    catalogue: NamedDependency[Catalogue],
    targets: NamedDependency[TargetsByOwner],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[WebhookView]:
    """Change address, events or description; enable or disable it."""
    is_tenant = await operations.read(actor, request_id, lambda ctx: service.require_write(ctx, webhook_id))
    if data.url is not msgspec.UNSET:
        await targets.of(is_tenant=is_tenant).require_acceptable(data.url)
    outcome = await operations.change(
        actor, request_id, lambda ctx: service.update_webhook(ctx, webhook_id, data, catalogue), is_dry_run=dry_run
    )
    return answer_done(outcome, status=200)


@delete(
    "/webhooks/{webhook_id:str}",
    operation_id="delete-webhook",
    tags=_TAGS,
    status_code=204,
    responses=DRY_RUN_RESPONSES,
    summary="Delete a webhook",
)
async def delete_webhook(
    *,
    webhook_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[None]:
    """Remove an endpoint with its delivery log; what was not sent yet is not sent any more."""
    outcome = await operations.change(
        actor, request_id, lambda ctx: service.delete_webhook(ctx, webhook_id), is_dry_run=dry_run
    )
    return answer_done(outcome, status=204)


@post(
    "/webhooks/{webhook_id:str}/rotate-secret",
    operation_id="rotate-webhook-secret",
    tags=_TAGS,
    status_code=200,
    responses=DRY_RUN_RESPONSES,
    summary="Give a webhook another secret",
)
async def rotate_webhook_secret(
    *,
    webhook_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[WebhookSecretView]:
    """Make a new secret, shown in this answer only; for 24 hours messages are signed with the old one as well."""
    outcome = await operations.change(
        actor, request_id, lambda ctx: service.rotate_secret(ctx, webhook_id), is_dry_run=dry_run
    )
    return answer_done(outcome, status=200)


@post(
    "/webhooks/{webhook_id:str}/resume",
    operation_id="resume-webhook",
    tags=_TAGS,
    status_code=200,
    responses=DRY_RUN_RESPONSES,
    summary="Resume a paused webhook",
)
async def resume_webhook(
    *,
    webhook_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[WebhookView]:
    """Send again to an endpoint that the controller gave up on, beginning with what was kept for it."""
    outcome = await operations.change(
        actor, request_id, lambda ctx: service.resume_webhook(ctx, webhook_id), is_dry_run=dry_run
    )
    return answer_done(outcome, status=200)


@post(
    "/webhooks/{webhook_id:str}/test",
    operation_id="test-webhook",
    tags=_TAGS,
    status_code=201,
    responses=DRY_RUN_RESPONSES,
    summary="Send a test message",
)
async def send_test(
    *,
    webhook_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[WebhookDeliveryView]:
    """Send one `webhook.test` message; look at it again to see what the other side answered."""
    outcome = await operations.change(
        actor, request_id, lambda ctx: service.send_test(ctx, webhook_id), is_dry_run=dry_run
    )
    return answer_done(outcome, status=201)


@get(
    "/webhooks/{webhook_id:str}/deliveries",
    operation_id="list-webhook-deliveries",
    tags=_TAGS,
    summary="List the messages of a webhook",
)
async def list_webhook_deliveries(
    *,
    webhook_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    in_state: Annotated[
        str | None, QueryParameter(name="state", description="Only pending, succeeded, failed or withdrawn ones.")
    ] = None,
    event: Annotated[str | None, QueryParameter(description="Only of this event.")] = None,
) -> WebhookDeliveryPage:
    """Show what was sent, and each attempt with its answer, newest first."""
    page = PageRequest(limit=limit, cursor=cursor)
    return await operations.read(
        actor, request_id, lambda ctx: service.list_deliveries(ctx, webhook_id, page, state=in_state, event=event)
    )


@get(
    "/deliveries/{delivery_id:str}",
    operation_id="show-delivery",
    tags=_TAGS,
    summary="Show a message of a webhook",
)
async def show_delivery(
    *,
    delivery_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> WebhookDeliveryView:
    """Show one message with all its attempts."""
    return await operations.read(actor, request_id, lambda ctx: service.show_delivery(ctx, delivery_id))


@post(
    "/deliveries/{delivery_id:str}/replay",
    operation_id="replay-delivery",
    tags=_TAGS,
    status_code=201,
    responses=DRY_RUN_RESPONSES,
    summary="Send a message again",
)
async def replay_delivery(
    *,
    delivery_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[WebhookDeliveryView]:
    """Send the same message once more, under the same `webhook-id`."""
    outcome = await operations.change(
        actor, request_id, lambda ctx: service.replay_delivery(ctx, delivery_id), is_dry_run=dry_run
    )
    return answer_done(outcome, status=201)


ROUTES = (
    list_event_types,
    list_webhooks,
    create_webhook,
    show_webhook,
    update_webhook,
    delete_webhook,
    rotate_webhook_secret,
    resume_webhook,
    send_test,
    list_webhook_deliveries,
    show_delivery,
    replay_delivery,
)
