"""Use cases: look at what needs attention, and put something aside with a note."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.attention.glances import Place
from controller.core.attention.items import AttentionItem
from controller.core.attention.models import Dismissal
from controller.core.attention.overview import AttentionFilter, Overview, place_of
from controller.core.audit.chain import record
from controller.core.context import Change
from controller.core.fields import require_text
from controller.core.operations import FleetContext
from controller.core.paging import require_limit
from shared.errors import ConflictError, NotFoundError


class AttentionPage(msgspec.Struct, frozen=True, kw_only=True):
    """Items, the critical ones first, then the newest."""

    items: tuple[AttentionItem, ...]
    next_cursor: str | None
    critical: Annotated[int, Meta(description="Critical items in all, on whatever page; muted and dismissed left out.")]
    warning: int


async def list_attention(
    ctx: FleetContext, wanted: AttentionFilter, *, limit: int, cursor: str | None
) -> AttentionPage:
    """Everything that a person should look at.

    Raises:
        ForbiddenError
        InvalidInputError: The limit or the cursor is none.
    """
    ctx.actor.require("attention", "read")
    require_limit(limit)
    after = Place.parse(cursor) if cursor else None
    page = await (await Overview.look(ctx)).list_page(after, wanted, limit + 1)
    items = page.items[:limit]
    return AttentionPage(
        items=tuple(items),
        next_cursor=place_of(items[-1]).render() if len(page.items) > limit else None,
        critical=page.critical,
        warning=page.warning,
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
    item = await (await Overview.look(ctx)).get(item_id)
    if item is None:
        raise NotFoundError(f"there is no item {item_id[:120]!r}", hint="What it was about may be in order by now.")
    return item


async def _find_dismissal(session: AsyncSession, item_id: str) -> Dismissal | None:
    return (await session.scalars(select(Dismissal).where(Dismissal.item_id == item_id))).first()


def _note(ctx: FleetContext, action: str, item: AttentionItem, after: dict[str, str] | None) -> None:
    record(ctx, Change(action=action, target=f"attention/{item.id}"[:100], target_name=item.title[:300], after=after))
