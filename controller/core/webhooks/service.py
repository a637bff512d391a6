"""Use cases of webhooks."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

import msgspec
from sqlalchemy import func, select, update

from controller.core.audit.chain import record
from controller.core.context import Actor, Change, OpContext, ReachKind
from controller.core.events.catalogue import TEST_EVENT, Catalogue
from controller.core.fields import not_found, require_id, require_text
from controller.core.operations import FleetContext
from controller.core.paging import PageRequest, contains, fetch_page
from controller.core.webhooks.models import DeliveryState, WebhookDelivery, WebhookEndpoint
from controller.core.webhooks.outbox import SEND_TASK, make_message_id, render_message
from controller.core.webhooks.signing import new_webhook_secret
from controller.core.webhooks.views import (
    WebhookCreate,
    WebhookDeliveryPage,
    WebhookDeliveryView,
    WebhookPage,
    WebhookSecretView,
    WebhookUpdate,
    WebhookView,
    view_delivery,
    view_webhook,
)
from shared.errors import ConflictError, ForbiddenError, InvalidInputError, QuotaExceededError

ENDPOINTS_MAX: Final = 100
"""Of the platform."""
TENANT_ENDPOINTS_MAX: Final = 10
"""Of each reseller and of each client."""
OLD_SECRET_LASTS: Final = timedelta(hours=24)


async def list_webhooks(
    ctx: OpContext, page: PageRequest, *, reseller_id: str | None = None, client_id: str | None = None
) -> WebhookPage:
    """Newest first; all, or those of this reseller or client.

    Raises:
        ForbiddenError, InvalidInputError
    """
    _require(ctx.actor, "read")
    statement = select(WebhookEndpoint)
    if reseller_id is not None:
        statement = statement.where(WebhookEndpoint.reseller_id == require_text("reseller_id", reseller_id, high=36))
    if client_id is not None:
        statement = statement.where(WebhookEndpoint.client_id == require_text("client_id", client_id, high=36))
    condition = contains((WebhookEndpoint.url, WebhookEndpoint.description), page.search)
    found = await fetch_page(ctx.session, statement if condition is None else statement.where(condition), page)
    return WebhookPage(items=tuple(view_webhook(row) for row in found.rows), next_cursor=found.next_cursor)


async def show_webhook(ctx: OpContext, webhook_id: str) -> WebhookView:
    """One endpoint.

    Raises:
        ForbiddenError, NotFoundError
    """
    _require(ctx.actor, "read")
    return view_webhook(await _get(ctx, webhook_id))


async def require_write(ctx: OpContext, webhook_id: str | None = None) -> bool:
    """Before an address is looked up for somebody: whether the endpoint is, or will be, a tenant's.

    Raises:
        ForbiddenError, NotFoundError
    """
    _require(ctx.actor, "write")
    if webhook_id is not None:
        return bool((await _get(ctx, webhook_id)).owner)
    return not ctx.actor.reach.is_everything


async def create_webhook(ctx: OpContext, params: WebhookCreate, catalogue: Catalogue) -> WebhookSecretView:
    """Add an endpoint. Its URL was checked.

    Raises:
        ForbiddenError, InvalidInputError
        QuotaExceededError: There are very many.
    """
    _require(ctx.actor, "write")
    owner = _owner_of(ctx.actor)
    await _require_room(ctx, owner)
    row = WebhookEndpoint(
        **owner,
        url=params.url,
        events=catalogue.require_patterns(params.events, is_for_tenants=any(owner.values())),
        description=require_text("description", params.description, high=500),
        is_enabled=params.is_enabled,
        secret=new_webhook_secret(),
        created_at=ctx.now,
        updated_at=ctx.now,
    )
    ctx.session.add(row)
    await ctx.session.flush()
    _note(ctx, "webhook.create", row, after=_state(row))
    return WebhookSecretView(webhook=view_webhook(row), secret=row.secret)


async def update_webhook(
    ctx: FleetContext, webhook_id: str, params: WebhookUpdate, catalogue: Catalogue
) -> WebhookView:
    """Change an endpoint. Another URL was checked, and is given a fresh start.

    Raises:
        ForbiddenError, InvalidInputError, NotFoundError
    """
    _require(ctx.actor, "write")
    row = await _get(ctx, webhook_id)
    before = _state(row)
    if params.url is not msgspec.UNSET and params.url != row.url:
        row.url = params.url
        _forgive(row)
    if params.events is not msgspec.UNSET:
        row.events = catalogue.require_patterns(params.events, is_for_tenants=bool(row.owner))
    if params.description is not msgspec.UNSET:
        row.description = require_text("description", params.description, high=500)
    if params.is_enabled is not msgspec.UNSET:
        row.is_enabled = params.is_enabled
    after = _state(row)
    if before != after:
        row.updated_at = ctx.now
        await ctx.session.flush()
        _note(ctx, "webhook.update", row, before=before, after=after)
        await ctx.later(SEND_TASK, {}, dedup_key=SEND_TASK)
    return view_webhook(row)


async def delete_webhook(ctx: OpContext, webhook_id: str) -> None:
    """Remove an endpoint with its messages.

    Raises:
        ForbiddenError, NotFoundError
    """
    _require(ctx.actor, "write")
    row = await _get(ctx, webhook_id)
    before = _state(row)
    await ctx.session.delete(row)
    await ctx.session.flush()
    _note(ctx, "webhook.delete", row, before=before)


async def rotate_secret(ctx: OpContext, webhook_id: str) -> WebhookSecretView:
    """Give an endpoint another secret; for a day messages are signed with both.

    Raises:
        ForbiddenError, NotFoundError
    """
    _require(ctx.actor, "write")
    row = await _get(ctx, webhook_id)
    row.previous_secret, row.previous_until = row.secret, ctx.now + OLD_SECRET_LASTS
    row.secret, row.updated_at = new_webhook_secret(), ctx.now
    await ctx.session.flush()
    _note(ctx, "webhook.rotate_secret", row, after={"previous_until": row.previous_until.isoformat()})
    return WebhookSecretView(webhook=view_webhook(row), secret=row.secret)


async def resume_webhook(ctx: FleetContext, webhook_id: str) -> WebhookView:
    """Send an endpoint its messages again: all that were kept, at once.

    Raises:
        ForbiddenError, NotFoundError
        ConflictError: It is not paused.
    """
    _require(ctx.actor, "write")
    row = await _get(ctx, webhook_id)
    if row.paused_at is None:
        raise ConflictError("the webhook is not paused")
    _forgive(row)
    row.updated_at = ctx.now
    kept = update(WebhookDelivery).where(
        WebhookDelivery.endpoint_id == row.id, WebhookDelivery.state == DeliveryState.PENDING
    )
    await ctx.session.execute(kept.values(next_at=ctx.now).execution_options(synchronize_session=False))
    await ctx.session.flush()
    _note(ctx, "webhook.resume", row)
    await ctx.later(SEND_TASK, {}, dedup_key=SEND_TASK)
    return view_webhook(row)


async def send_test(ctx: FleetContext, webhook_id: str) -> WebhookDeliveryView:
    """Send an endpoint a test message, whatever events it wants.

    Raises:
        ForbiddenError, NotFoundError
        ConflictError: It is disabled or paused.
    """
    _require(ctx.actor, "write")
    row = await _get(ctx, webhook_id)
    _require_active(row)
    data = {"id": row.id, "message": f"A test that {ctx.actor.name} asked for."}
    delivery = WebhookDelivery(
        endpoint_id=row.id,
        message_id=make_message_id(),
        event=TEST_EVENT,
        subject=f"webhook/{row.id}",
        body=render_message(TEST_EVENT, ctx.now, data),
    )
    return await _send(ctx, row, delivery, "webhook.send_test")


async def list_deliveries(
    ctx: OpContext, webhook_id: str, page: PageRequest, *, state: str | None, event: str | None
) -> WebhookDeliveryPage:
    """The delivery log of an endpoint, newest first.

    Raises:
        ForbiddenError, InvalidInputError, NotFoundError
    """
    _require(ctx.actor, "read")
    row = await _get(ctx, webhook_id)
    statement = select(WebhookDelivery).where(WebhookDelivery.endpoint_id == row.id)
    if state is not None:
        statement = statement.where(WebhookDelivery.state == _parse_state(state))
    if event is not None:
        statement = statement.where(WebhookDelivery.event == require_text("event", event, high=100))
    found = await fetch_page(ctx.session, statement, page)
    return WebhookDeliveryPage(items=tuple(view_delivery(row) for row in found.rows), next_cursor=found.next_cursor)


async def show_delivery(ctx: OpContext, delivery_id: str) -> WebhookDeliveryView:
    """One message with all its attempts.

    Raises:
        ForbiddenError, NotFoundError
    """
    _require(ctx.actor, "read")
    return view_delivery(await _get_delivery(ctx, delivery_id))


async def replay_delivery(ctx: FleetContext, delivery_id: str) -> WebhookDeliveryView:
    """Send a message once more, under the same message id.

    Raises:
        ForbiddenError, NotFoundError
        ConflictError: It is still to be sent, was withdrawn, or its endpoint is disabled or paused.
    """
    _require(ctx.actor, "write")
    old = await _get_delivery(ctx, delivery_id)
    row = await _get(ctx, old.endpoint_id)
    _require_active(row)
    if old.state is DeliveryState.PENDING:
        raise ConflictError("the message is still to be sent", hint="Look at it again when it has ended.")
    if old.state is DeliveryState.WITHDRAWN:
        raise ConflictError("the message was withdrawn: what it told of went to another owner")
    delivery = WebhookDelivery(
        endpoint_id=row.id,
        account_id=old.account_id,
        client_id=old.client_id,
        message_id=old.message_id,
        event=old.event,
        subject=old.subject,
        body=old.body,
        replay_of=old.id,
    )
    return await _send(ctx, row, delivery, "webhook.replay")


async def _send(ctx: FleetContext, row: WebhookEndpoint, delivery: WebhookDelivery, action: str) -> WebhookDeliveryView:
    delivery.created_at = delivery.updated_at = delivery.next_at = ctx.now
    delivery.log = []
    ctx.session.add(delivery)
    await ctx.session.flush()
    _note(ctx, action, row, after={"event": delivery.event, "message_id": delivery.message_id})
    await ctx.later(SEND_TASK, {}, dedup_key=SEND_TASK)
    return view_delivery(delivery)


def _require(actor: Actor, verb: str) -> None:
    """Messages say what the audit log says; so a tenant's person who may not read that gets none of them."""
    actor.require("webhooks", verb)
    if not actor.reach.is_everything:
        actor.require("audit", "read")


def _owner_of(actor: Actor) -> dict[str, str | None]:
    """Columns that say whose a new endpoint is.

    Raises:
        ForbiddenError: They are a team member.
    """
    kind = actor.reach.kind
    if kind is ReachKind.MEMBER:
        raise ForbiddenError(f"{actor.name} may not write webhooks")
    return {
        "reseller_id": actor.reach.id if kind is ReachKind.RESELLER else None,
        "client_id": actor.reach.id if kind is ReachKind.CLIENT else None,
    }


async def _require_room(ctx: OpContext, owner: dict[str, str | None]) -> None:
    of_owner = select(func.count()).select_from(WebhookEndpoint).filter_by(**owner)
    high = TENANT_ENDPOINTS_MAX if any(owner.values()) else ENDPOINTS_MAX
    if (await ctx.session.scalars(of_owner)).one() >= high:
        raise QuotaExceededError(f"there are {high} webhooks already", hint="Delete one that nobody needs.")


async def _get(ctx: OpContext, webhook_id: str) -> WebhookEndpoint:
    row = await ctx.session.get(WebhookEndpoint, require_id("webhook", webhook_id))
    if row is None:
        raise not_found("webhook", webhook_id)
    return row


async def _get_delivery(ctx: OpContext, delivery_id: str) -> WebhookDelivery:
    row = await ctx.session.get(WebhookDelivery, require_id("message", delivery_id))
    if row is None:
        raise not_found("message", delivery_id)
    return row


def _require_active(row: WebhookEndpoint) -> None:
    if not row.is_enabled:
        raise ConflictError("the webhook is disabled", hint="Enable it first.")
    if row.paused_at is not None:
        raise ConflictError("the webhook is paused", hint=f"wcp360 webhooks resume {row.id}")


def _forgive(row: WebhookEndpoint) -> None:
    row.paused_at, row.pause_reason, row.failures, row.failing_since = None, "", 0, None


def _parse_state(raw: str) -> DeliveryState:
    try:
        return DeliveryState(raw)
    except ValueError as error:
        known = ", ".join(state.value for state in DeliveryState)
        raise InvalidInputError(f"state is one of {known}", field="state") from error


def _state(row: WebhookEndpoint) -> dict[str, Any]:
    """For the audit log; the secret is nobody's business."""
    return {
        "reseller_id": row.reseller_id,
        "client_id": row.client_id,
        "url": row.url,
        "description": row.description,
        "events": list(row.events),
        "is_enabled": row.is_enabled,
    }


def _note(
    ctx: OpContext,
    action: str,
    row: WebhookEndpoint,
    *,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
) -> None:
    if row.client_id is not None and before is None:  # so that it is in the client's part of the audit log
        after = {"client_id": row.client_id} | (after or {})
    record(ctx, Change(action, f"webhook/{row.id}", row.url[:300], before=before, after=after))
