"""What one actor sees of all that needs attention, at one moment: theirs, without what is put aside or muted."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from heapq import merge
from itertools import islice
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, or_, select

from controller.core.attention import business_sources, sources
from controller.core.attention.glances import MUTABLE, Glances, Place, comes_after, is_loud
from controller.core.attention.items import CRITICAL, OF_TENANTS, AttentionItem
from controller.core.attention.models import Dismissal
from controller.core.operations import FleetContext
from controller.fleet.models import Node
from controller.jobs.holds import held_node_ids

_SOURCES: Final = (*sources.SOURCES, *business_sources.SOURCES)
_OF_PLATFORM: Final = tuple(source for source in _SOURCES if source.kind not in OF_TENANTS)
_OF_A_TENANT: Final = tuple(source for source in _SOURCES if source.kind in OF_TENANTS or source.is_of_accounts)


class AttentionFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which are wanted; None: all."""

    kind: str | None = None
    node_id: str | None = None
    account_id: str | None = None
    with_dismissed: bool = False

    def asked(self) -> list[tuple[str, str]]:
        """Names of columns, and what they have to be."""
        values = (("kind", self.kind), ("node_id", self.node_id), ("account_id", self.account_id))
        return [(name, value) for name, value in values if value is not None]


@dataclass(frozen=True, slots=True)
class Page:
    """A part of the list, and how many there are in all."""

    items: list[AttentionItem]
    critical: int
    warning: int


@dataclass(frozen=True, slots=True)
class Overview:
    """Call `look`."""

    glances: Glances
    computed: tuple[AttentionItem, ...]
    """Items that no row says: they are found anew each time, and are few."""
    is_platform: bool
    names: Mapping[str, str]
    held: frozenset[str]
    aside: Mapping[str, Dismissal]
    """Id of an item to what somebody said of it; only of those that still say what they said then."""

    @classmethod
    async def look(cls, ctx: FleetContext) -> Overview:
        """At everything, as it is now."""
        nodes = await ctx.session.execute(select(Node.id, Node.name))
        is_platform = ctx.actor.reach.is_everything
        overview = cls(
            glances=Glances(_OF_PLATFORM if is_platform else _OF_A_TENANT, ctx.session, ctx.now),
            computed=tuple(
                await business_sources.list_of_resellers(ctx.session, ctx.registry.limits, is_platform=is_platform)
            ),
            is_platform=is_platform,
            names={row[0]: row[1] for row in nodes},
            held=await held_node_ids(ctx.session),
            aside={},
        )
        return replace(overview, aside=await overview._find_aside())

    async def list_page(self, after: Place | None, wanted: AttentionFilter, limit: int) -> Page:
        """The critical ones first, then the newest; counted is what is neither muted nor dismissed, wherever it is."""

        def counted(columns: Any) -> list[ColumnElement[bool]]:
            return [*self._visible(columns), is_loud(columns, self.held)]

        def listed(columns: Any) -> list[ColumnElement[bool]]:
            found = self._visible(columns, with_aside=wanted.with_dismissed)
            found += [getattr(columns, name) == value for name, value in wanted.asked()]
            return found if after is None else [*found, comes_after(columns, after)]

        found = await self.glances.look(counted, listed, limit)
        rows = await self.glances.view(found.item_ids)
        computed = sorted(
            (
                item
                for item in self.computed
                if all(getattr(item, name) == value for name, value in wanted.asked())
                and (wanted.with_dismissed or item.id not in self.aside)
                and (after is None or place_of(item).is_after(after))
            ),
            key=lambda item: (place_of(item).rank, item.id),
        )
        stored = (rows[one] for one in found.item_ids if one in rows)
        merged = merge(stored, computed, key=lambda item: place_of(item).rank)
        loud = [item.severity == CRITICAL for item in self.computed if item.id not in self.aside]
        return Page(
            items=[self._dress(item) for item in islice(merged, limit)],
            critical=found.critical + loud.count(True),
            warning=found.warning + loud.count(False),
        )

    async def list_loud(self, limit: int, *, without: Collection[str]) -> list[AttentionItem]:
        """What is neither muted nor dismissed, in no order; `without`: kinds that are left out."""

        def conditions(columns: Any) -> list[ColumnElement[bool]]:
            return [*self._visible(columns), is_loud(columns, self.held), columns.kind.not_in(without)]

        rows = await self.glances.view(await self.glances.find(conditions, limit))
        computed = (item for item in self.computed if item.kind not in without and item.id not in self.aside)
        return [self._dress(item) for item in (*rows.values(), *computed)]

    async def get(self, item_id: str) -> AttentionItem | None:
        """One of them, also where somebody put it aside."""
        computed = next((item for item in self.computed if item.id == item_id), None)
        if computed is not None:
            return self._dress(computed)
        ids = await self.glances.find(
            lambda columns: [*self._visible(columns, with_aside=True), columns.item_id == item_id], 1
        )
        item = (await self.glances.view(ids)).get(item_id)
        return None if item is None else self._dress(item)

    def _visible(self, columns: Any, *, with_aside: bool = False) -> list[ColumnElement[bool]]:
        found = []
        if not self.is_platform:
            found.append(or_(columns.account_id.is_not(None), columns.kind.in_(OF_TENANTS)))
        if self.aside and not with_aside:
            found.append(columns.item_id.not_in(tuple(self.aside)))
        return found

    def _dress(self, item: AttentionItem) -> AttentionItem:
        """Add what its row does not say."""
        said = self.aside.get(item.id)
        return msgspec.structs.replace(
            item,
            node_name=self.names.get(item.node_id, "") if item.node_id is not None else "",
            is_muted=item.node_id in self.held and item.kind in MUTABLE,
            dismissed_by=None if said is None else said.actor_name,
            dismiss_note=None if said is None else said.note,
        )

    async def _find_aside(self) -> dict[str, Dismissal]:
        said = {row.item_id: row for row in await self.glances.session.scalars(select(Dismissal))}
        items = {**await self.glances.view(said), **{item.id: item for item in self.computed}}
        return {
            item_id: row
            for item_id, row in said.items()
            if item_id in items and items[item_id].fingerprint == row.fingerprint
        }


def place_of(item: AttentionItem) -> Place:
    """Where it stands in the list."""
    return Place(is_critical=item.severity == CRITICAL, since=item.since, item_id=item.id)
