"""A use case that forgets the audit log does not commit, whichever way it writes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import insert, select, update

from controller.bootstrap import METADATA
from controller.core.audit.duty import BOOKKEEPING, OF_NOBODY
from controller.core.clients.models import Client
from controller.core.context import SYSTEM
from controller.core.operations import FleetContext
from controller.core.usage.models import UsageDay
from controller.db.base import new_id
from shared.errors import BugError
from tests.integration.controller.hosting import ADMIN, Hosting


async def add_object(ctx: FleetContext) -> None:
    ctx.session.add(Client(name="Nobody heard", email="n@example.com"))


async def change_object(ctx: FleetContext) -> None:
    (await ctx.session.scalars(select(Client))).one().name = "Nobody heard"


async def remove_object(ctx: FleetContext) -> None:
    await ctx.session.delete((await ctx.session.scalars(select(Client))).one())


async def insert_by_statement(ctx: FleetContext) -> None:
    await ctx.session.execute(insert(Client), [{"id": new_id(), "name": "Nobody heard", "email": "n@example.com"}])


async def update_by_statement(ctx: FleetContext) -> None:
    await ctx.session.execute(update(Client).values(name="Nobody heard"))


@pytest.mark.parametrize(
    "use_case", [add_object, change_object, remove_object, insert_by_statement, update_by_statement]
)
async def test_change_when_it_writes_without_an_entry_is_not_committed(
    hosting: Hosting, use_case: Callable[[FleetContext], Awaitable[None]]
) -> None:
    await hosting.add_client()
    before = await hosting.get("/clients")

    with pytest.raises(BugError, match="clients written without an entry of the audit log"):
        await hosting.operations.change(ADMIN, "r1", use_case)

    assert await hosting.get("/clients") == before


async def test_change_of_the_controller_when_it_forgets_the_log_is_not_committed_either(hosting: Hosting) -> None:
    with pytest.raises(BugError, match="clients"):
        await hosting.operations.change(SYSTEM, "r1", add_object)

    assert await hosting.count(Client) == 0


async def test_change_when_it_only_looks_needs_no_entry(hosting: Hosting) -> None:
    async def look(ctx: FleetContext) -> int:
        return len((await ctx.session.scalars(select(Client))).all())

    assert (await hosting.operations.change(ADMIN, "r1", look)).resource == 0


def test_bookkeeping_when_named_is_of_tables_that_there_are() -> None:
    named = BOOKKEEPING.keys() | OF_NOBODY.keys()

    assert sorted(named - METADATA.tables.keys()) == []
    assert UsageDay.__tablename__ in named
