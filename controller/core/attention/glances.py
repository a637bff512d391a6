"""Finding what needs attention: one statement over all sources says which items there are, and of what weight.

Only those of the page are read whole. A fleet in trouble has thousands of items, and its list is what everybody opens.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

import msgspec
from sqlalchemy import (
    CTE,
    ColumnElement,
    Select,
    String,
    and_,
    bindparam,
    cast,
    func,
    literal,
    null,
    or_,
    select,
    true,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.attention.items import RESELLER, AttentionItem
from controller.core.paging import pack_cursor, unpack_cursor, wrong_cursor
from controller.db.base import UtcDateTime

MUTABLE: Final = frozenset({"node", "drift"})
"""Kinds that nobody is told of while their node is in maintenance, or being drained."""
NOW: Final = bindparam("moment", type_=UtcDateTime())
_NONE: Final = cast(null(), String)
_BATCH: Final = 500

Conditions = Callable[[Any], Sequence[ColumnElement[bool]]]
"""Of the columns of all items together."""


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """The rows of one statement that are items of one kind."""

    kind: str
    entities: Select[*tuple[Any, ...]]
    """As `view` takes them."""
    where: Callable[[], Sequence[ColumnElement[bool]]]
    """Which of them are items; the moment is `NOW`."""
    view: Callable[..., AttentionItem]
    id: Any
    since: Any
    is_critical: ColumnElement[bool]
    node_id: Any = _NONE
    account_id: Any = _NONE

    @property
    def is_of_accounts(self) -> bool:
        """Whether its items may be an account's."""
        return self.account_id is not _NONE

    def select_glances(self) -> Select[Any]:
        """What is asked of every row."""
        columns = (
            literal(f"{self.kind}.").concat(self.id).label("item_id"),
            literal(self.kind).label("kind"),
            self.is_critical.label("is_critical"),
            self.since.label("since"),
            self.node_id.label("node_id"),
            self.account_id.label("account_id"),
        )
        return self.entities.where(*self.where()).with_only_columns(*columns, maintain_column_froms=True)


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Where an item stands in the list, and where a page ended."""

    is_critical: bool
    since: datetime
    item_id: str

    @property
    def is_computed(self) -> bool:
        """Of the kind that no row says; behind all rows of the same moment, so that no database's order matters."""
        return self.item_id.startswith(f"{RESELLER}.")

    @property
    def rank(self) -> tuple[bool, float, bool]:
        """What comes first has the smaller one."""
        return (not self.is_critical, -self.since.timestamp(), self.is_computed)

    def is_after(self, other: Place) -> bool:
        """Whether this computed item comes after any other."""
        if other.is_computed and self.rank == other.rank:
            return self.item_id > other.item_id
        return self.rank > other.rank

    def render(self) -> str:
        """As a cursor."""
        return pack_cursor(msgspec.json.encode(self))

    @classmethod
    def parse(cls, cursor: str) -> Place:
        """What `render` made.

        Raises:
            InvalidInputError: We never gave this cursor.
        """
        try:
            place = msgspec.json.decode(unpack_cursor(cursor), type=cls)
        except msgspec.MsgspecError as error:
            raise wrong_cursor() from error
        if place.since.tzinfo is None or "\0" in place.item_id:
            raise wrong_cursor()
        return place


@dataclass(frozen=True, slots=True)
class Found:
    """What a page shows."""

    item_ids: list[str]
    critical: int
    warning: int


@dataclass(frozen=True, slots=True)
class Glances:
    """All items of some sources, as a table, at one moment."""

    sources: tuple[Source, ...]
    session: AsyncSession
    now: datetime

    async def look(self, counted: Conditions, listed: Conditions, limit: int) -> Found:
        """How many there are of what is counted, and which of what is listed: the critical first, then the newest."""
        items = _unite(self.sources)
        is_critical = items.c.is_critical
        columns = (
            func.count().filter(is_critical).label("critical"),
            func.count().filter(is_critical.is_(False)).label("warning"),
        )
        counts = select(*columns).select_from(items).where(*counted(items.c)).subquery("counts")
        page = select(items).where(*listed(items.c)).order_by(*_order(items.c)).limit(limit).subquery("page")
        statement = (
            select(counts.c.critical, counts.c.warning, page.c.item_id)
            .select_from(counts.outerjoin(page, true()))  # one row at least: the counts also of a page with nothing
            .order_by(*_order(page.c))
        )
        rows = (await self.session.execute(statement, {NOW.key: self.now})).all()
        ids = [row.item_id for row in rows if row.item_id is not None]
        return Found(item_ids=ids, critical=rows[0].critical, warning=rows[0].warning)

    async def find(self, listed: Conditions, limit: int) -> list[str]:
        """Ids of items: the critical first, then the newest."""
        items = _unite(self.sources)
        statement = select(items.c.item_id).where(*listed(items.c)).order_by(*_order(items.c)).limit(limit)
        return list(await self.session.scalars(statement, {NOW.key: self.now}))

    async def view(self, item_ids: Collection[str]) -> dict[str, AttentionItem]:
        """What is said of each; also of one that is none any more, as long as there is its row."""
        wanted: dict[str, list[str]] = defaultdict(list)
        for item_id in item_ids:
            kind, _, row_id = item_id.partition(".")
            wanted[kind].append(row_id)
        found = [
            source.view(*row)
            for source in self.sources
            for ids in _batches(wanted[source.kind])
            for row in await self.session.execute(source.entities.where(source.id.in_(ids)))
        ]
        return {item.id: item for item in found}


@lru_cache(maxsize=8)
def _unite(sources: tuple[Source, ...]) -> CTE:
    """Made once: to write it down takes longer than to ask it."""
    return union_all(*(source.select_glances() for source in sources)).cte("items")


def _order(columns: Any) -> tuple[ColumnElement[Any], ...]:
    return columns.is_critical.desc(), columns.since.desc(), columns.item_id


def comes_after(columns: Any, place: Place) -> ColumnElement[bool]:
    """Further down in the list."""
    same_weight = columns.since < place.since
    if not place.is_computed:
        same_weight = or_(same_weight, and_(columns.since == place.since, columns.item_id > place.item_id))
    same_weight = and_(columns.is_critical.is_(place.is_critical), same_weight)
    return or_(columns.is_critical.is_(False), same_weight) if place.is_critical else same_weight


def is_loud(columns: Any, held: Collection[str]) -> ColumnElement[bool]:
    """Nobody said that its node is being worked on."""
    return or_(columns.kind.not_in(MUTABLE), columns.node_id.is_(None), columns.node_id.not_in(held))


def _batches(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[start : start + _BATCH] for start in range(0, len(ids), _BATCH))
