"""Transactions on the driver's own connection: as durable, as separate and as honest about errors as any other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import insert, select
from sqlalchemy.exc import SQLAlchemyError

from controller.db.base import utc_now
from controller.db.engine import Database
from controller.db.prepared import Prepared, param
from controller.fleet.models import Node
from controller.jobs.models import NodeSequence

ADD = Prepared(
    insert(NodeSequence).values(
        id=param("node_id"), last_seq=param("number"), created_at=param("now"), updated_at=param("now")
    )
)
FIND = Prepared(select(NodeSequence.id, NodeSequence.last_seq).where(NodeSequence.id == param("node_id")))
ROLES = Prepared(select(Node.roles))


@pytest.fixture(autouse=True)
async def closed(database: Database) -> AsyncIterator[None]:
    yield
    await database.close()


async def add(database: Database, node_id: str, number: int = 1) -> None:
    async with database.hot() as driver:
        await ADD.run_many(driver, [{"node_id": node_id, "number": number, "now": utc_now()}])


async def test_hot_transaction_when_it_ends_is_seen_by_everybody(database: Database) -> None:
    await add(database, "node-1", 7)

    assert await database.glance(FIND, node_id="node-1") == [("node-1", 7)]
    async with database.read() as session:
        assert (await session.get_one(NodeSequence, "node-1")).last_seq == 7


async def test_hot_transaction_when_it_raises_leaves_nothing(database: Database) -> None:
    async def fail() -> None:
        async with database.hot() as driver:
            await ADD.run_many(driver, [{"node_id": "node-1", "number": 1, "now": utc_now()}])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await fail()

    assert await database.glance(FIND, node_id="node-1") == []
    await add(database, "node-1")  # and the next one works


async def test_hot_transaction_when_not_committed_is_not_seen_by_a_glance(database: Database) -> None:
    async with database.hot() as driver:
        await ADD.run_many(driver, [{"node_id": "node-1", "number": 1, "now": utc_now()}])

        assert await database.glance(FIND, node_id="node-1") == []


async def test_hot_transaction_when_the_database_refuses_raises_what_callers_expect(database: Database) -> None:
    await add(database, "node-1")

    with pytest.raises(SQLAlchemyError):
        await add(database, "node-1")


async def test_writers_of_both_kinds_when_they_come_at_once_wait_for_each_other(database: Database) -> None:
    async def write(number: int) -> None:
        async with database.write() as session:
            session.add(NodeSequence(id=f"slow-{number}", last_seq=number))

    await asyncio.gather(*(add(database, f"hot-{n}") for n in range(20)), *(write(n) for n in range(20)))

    async with database.read() as session:
        assert len((await session.scalars(select(NodeSequence))).all()) == 40


async def test_hot_transaction_when_closed_opens_again(database: Database) -> None:
    await add(database, "node-1")
    await database.close()

    await add(database, "node-2")

    assert await database.glance(FIND, node_id="node-2") == [("node-2", 1)]


async def test_json_column_when_read_on_the_hot_path_is_the_value_and_not_its_text(database: Database) -> None:
    """A token's scopes are such a column: taken for a text, the letters of "*:read" would have held "*"."""
    async with database.write() as session:
        session.add(Node(name="web1", roles=["web"], machine_id_hash="0" * 64, sealing_public_key=b""))

    assert await database.glance(ROLES) == [(["web"],)]
