"""Use cases: look at what needs attention, and put something aside with a note."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.attention.items import CRITICAL, OF_TENANTS, RESELLER, AttentionItem
from controller.core.attention.models import Dismissal
from controller.core.attention.sources import read_items
from controller.core.audit.chain import record
from controller.core.context import Change
from controller.core.fields import require_text
from controller.core.operations import FleetContext
from controller.core.paging import MAX_LIMIT
from shared.errors import ConflictError, InvalidInputError, NotFoundError


class AttentionPage(msgspec.Struct, frozen=True, kw_only=True):
    """Items, the critical ones first, then the newest."""

    items: tuple[AttentionItem, ...]
    next_cursor: str | None
    critical: Annotated[int, Meta(description="Critical items in all, on whatever page; muted and dismissed left out.")]
    warning: int


class AttentionFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which are wanted; None: all."""

    kind: str | None = None
    node_id: str | None = None
    account_id: str | None = None
    with_dismissed: bool = False


async def list_attention(
    ctx: FleetContext, wanted: AttentionFilter, *, limit: int, cursor: str | None
) -> AttentionPage:
    """Everything that a person should look at.

    Raises:
        ForbiddenError
        InvalidInputError: The limit is none.
    """
    ctx.actor.require("attention", "read")
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidInputError(f"limit must be between 1 and {MAX_LIMIT}", field="limit")
    items = await _read(ctx, with_dismissed=wanted.with_dismissed)
    loud = [item for item in items if not item.is_muted and item.dismissed_by is None]
    fitting = [item for item in items if _fits(item, wanted)]
    start = next((at + 1 for at, item in enumerate(fitting) if item.id == cursor), 0) if cursor else 0
    page = fitting[start : start + limit]
    has_more = len(fitting) > start + limit
    critical = sum(item.severity == CRITICAL for item in loud)
    return AttentionPage(
        items=tuple(page),
        next_cursor=page[-1].id if page and has_more else None,
        critical=critical,
        warning=len(loud) - critical,
    )


async def dismiss(ctx: FleetContext, item_id: str, note: str) -> AttentionItem:
    """Leave an item out of the list as long as it says what it says now.

    Raises:
        ForbiddenError, InvalidInputError, NotFoundError
    """
    ctx.actor.require("attention", "write")
    words = require_text("note", note, low=1, high=500)
    item = await get_item(ctx, item_id)
    row = await _find_dismissal(ctx.session, item.id)
    if row is None:
        row = Dismissal(item_id=item.id)
        ctx.session.add(row)
    row.fingerprint, row.note = item.fingerprint, words
    row.actor, row.actor_name = ctx.actor.reference, ctx.actor.name
    await ctx.session.flush()
    _note(ctx, "attention.dismiss", item, {"note": words, "title": item.title})
    return msgspec.structs.replace(item, dismissed_by=row.actor_name, dismiss_note=words)


async def undismiss(ctx: FleetContext, item_id: str) -> AttentionItem:
    """Show a dismissed item again.

    Raises:
        ForbiddenError, NotFoundError
        ConflictError: Nobody put it aside.
    """
    ctx.actor.require("attention", "write")
    item = await get_item(ctx, item_id)
    row = await _find_dismissal(ctx.session, item.id)
    if row is None:
        raise ConflictError("nobody dismissed this item")
    await ctx.session.delete(row)
    await ctx.session.flush()
    _note(ctx, "attention.undismiss", item, None)
    return msgspec.structs.replace(item, dismissed_by=None, dismiss_note=None)


async def get_item(ctx: FleetContext, item_id: str) -> AttentionItem:
    """The item.

    Raises:
        NotFoundError: There is none; what it was about may be in order by now.
    """
    items = await _read(ctx, with_dismissed=True)
    item = next((item for item in items if item.id == item_id), None)
    if item is None:
        raise NotFoundError(f"there is no item {item_id[:120]!r}", hint="What it was about may be in order by now.")
    return item


async def _read(ctx: FleetContext, *, with_dismissed: bool) -> list[AttentionItem]:
    rows = {row.item_id: row for row in await ctx.session.scalars(select(Dismissal))}
    items = []
    for item in await read_items(ctx.session, ctx.registry.limits, now=ctx.now):
        if item.kind in OF_TENANTS if ctx.actor.reach.is_everything else _is_of_platform(item):
            continue
        row = rows.get(item.id)
        if row is None or row.fingerprint != item.fingerprint:
            items.append(item)
        elif with_dismissed:
            items.append(msgspec.structs.replace(item, dismissed_by=row.actor_name, dismiss_note=row.note))
    items.sort(key=lambda item: (item.severity != CRITICAL, -item.since.timestamp(), item.id))
    return items


def _is_of_platform(item: AttentionItem) -> bool:
    return item.account_id is None and item.kind not in OF_TENANTS | {RESELLER}


async def _find_dismissal(session: AsyncSession, item_id: str) -> Dismissal | None:
    return (await session.scalars(select(Dismissal).where(Dismissal.item_id == item_id))).first()


def _fits(item: AttentionItem, wanted: AttentionFilter) -> bool:
    return all(
        value is None or getattr(item, name) == value
        for name, value in (("kind", wanted.kind), ("node_id", wanted.node_id), ("account_id", wanted.account_id))
    )


def _note(ctx: FleetContext, action: str, item: AttentionItem, after: dict[str, str] | None) -> None:
    record(ctx, Change(action=action, target=f"attention/{item.id}"[:100], target_name=item.title[:300], after=after))
