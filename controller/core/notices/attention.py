"""What needs attention, as one notice for many items: a hundred lost nodes are one mail.

What an account uses is left out: the people whom it concerns are told, and the list shows it to administrators.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.attention.items import CRITICAL, AttentionItem
from controller.core.attention.overview import Overview
from controller.core.context import SYSTEM
from controller.core.notices.models import NoticedItem
from controller.core.notices.words import Happening, Words, one_line
from controller.core.operations import FleetContext, Operations

SHOWN_MAX: Final = 20
LOUD_MAX: Final = 5000
"""Items that are looked at; who has more of them knows."""
_LEFT_OUT: Final = frozenset({"usage"})


async def read_loud_items(operations: Operations) -> list[AttentionItem]:
    """Everything that is neither muted nor dismissed, the critical first, then the oldest."""

    async def query(ctx: FleetContext) -> list[AttentionItem]:
        items = await (await Overview.look(ctx)).list_loud(LOUD_MAX, without=_LEFT_OUT)
        return sorted(items, key=lambda item: (item.severity != CRITICAL, item.since, item.id))

    return await operations.read(SYSTEM, "schedule/notices.attention", query)


async def is_changed(session: AsyncSession, items: Sequence[AttentionItem]) -> bool:
    """Whether `note_items` would write anything."""
    known = {row.item_id: row.severity for row in await session.scalars(select(NoticedItem))}
    return known != {_key(item): item.severity for item in items}


async def note_items(session: AsyncSession, items: Sequence[AttentionItem]) -> list[AttentionItem]:
    """Remember these and forget all others; those that nobody was told of, or that became critical."""
    statement = select(NoticedItem).with_for_update().execution_options(populate_existing=True)
    known = {row.item_id: row for row in await session.scalars(statement)}
    news = []
    for item in items:
        row = known.pop(_key(item), None)
        if row is None:
            session.add(NoticedItem(item_id=_key(item), severity=item.severity))
            news.append(item)
        elif row.severity != item.severity:
            if item.severity == CRITICAL:
                news.append(item)
            row.severity = item.severity
    for row in known.values():
        await session.delete(row)
    await session.flush()
    return news


def describe(news: Sequence[AttentionItem], now: datetime) -> tuple[Happening, Words]:
    """The one notice about all of them."""
    first = news[0]
    items = [_describe_one(item) for item in news[:SHOWN_MAX]]
    if len(news) > SHOWN_MAX:
        items.append(f"and {len(news) - SHOWN_MAX} more")
    happening = Happening(
        action="attention",
        at=first.since if len(news) == 1 and first.since <= now else now,
        actor=SYSTEM.reference,
        actor_name=SYSTEM.name,
        address="",
        target=f"attention/{first.id}"[:100],
        name=first.title,
        before={},
        after={},
    )
    title = first.title if len(news) == 1 else f"{len(news)} things need attention: {first.title}"
    commands = ", ".join(action.command for action in first.actions) if len(news) == 1 else ""
    todo = f"{commands}. All of it: wcp360 attention list." if commands else "See: wcp360 attention list."
    return happening, Words(title=title, what="This needs attention:", items=tuple(items), todo=todo)


def _describe_one(item: AttentionItem) -> str:
    where = f" ({item.node_name})" if item.node_name and item.node_name not in item.title else ""
    detail = f": {one_line(item.detail, 200)}" if item.detail else ""
    return f"{one_line(item.title, 150)}{where}{detail}".rstrip(".")


def _key(item: AttentionItem) -> str:
    return item.id[:200]
