"""Fault 28, one statement at a time: a gateway whose sessions were taken over changes nothing about their nodes."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from controller.db.engine import Database
from controller.fleet.gateway.presence import PROCESS_LEASE, Presence, find_sample, find_standing, notice_missing
from controller.fleet.gateway.presence_models import ProcessRow
from controller.fleet.gateway.processes import ProcessBook, list_processes
from controller.fleet.gateway.sessions import is_current
from controller.fleet.models import Heartbeat, Node, NodeState
from controller.fleet.nodes.metrics import NodeSample
from tests.integration.jobs.test_schedules import START, Clock

LONG_AGO = START - timedelta(hours=1)


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def add_node(database: Database, name: str, *, epoch: int, gateway_id: str | None = "gw-new") -> str:
    node = Node(
        name=name, state=NodeState.ACTIVE, roles=[], machine_id_hash=name, sealing_public_key=b"",
        session_epoch=epoch, gateway_id=gateway_id, is_connected=gateway_id is not None,
    )  # fmt: skip
    async with database.write() as session:
        session.add(node)
        await session.flush()
        session.add(Heartbeat(id=node.id, at=START))
    return node.id


async def add_process(database: Database, process_id: str, seen_at: object) -> None:
    async with database.write() as session:
        row = ProcessRow(id=process_id, role="gateway", host="h", pid=1, version="1", started_at=START, seen_at=seen_at)
        session.add(row)


async def read(database: Database, node_id: str) -> tuple[Node, Heartbeat]:
    async with database.read() as session:
        return (await session.get_one(Node, node_id), await session.get_one(Heartbeat, node_id))


async def test_flush_of_a_stale_gateway_writes_nothing_of_what_it_heard(database: Database) -> None:
    await add_process(database, "gw-new", START + timedelta(seconds=100))
    taken = await add_node(database, "taken", epoch=8)
    mine = await add_node(database, "mine", epoch=3, gateway_id="gw-old")
    stale = Presence(database, gateway_id="gw-old")
    stale._shares_samples = True
    later = START + timedelta(seconds=90)
    for node_id in (taken, mine):
        stale.note_sample(node_id, NodeSample(at=later, gauges={"load": 1.0}))

    await stale.flush({taken: 7, mine: 3}, now=later, silent_since=LONG_AGO)

    node, beat = await read(database, taken)
    assert (node.gateway_id, node.is_connected, beat.at) == ("gw-new", True, START)
    node, beat = await read(database, mine)
    assert (node.gateway_id, beat.at) == ("gw-old", later)
    async with database.read() as session:
        assert await find_sample(session, taken, since=START) is None
        assert await find_sample(session, mine, since=START) == NodeSample(at=later, gauges={"load": 1.0})
        assert await find_sample(session, mine, since=later + timedelta(seconds=1)) is None


async def test_flush_of_a_stale_gateway_does_not_take_a_node_back_that_left(database: Database) -> None:
    gone = await add_node(database, "gone", epoch=8, gateway_id=None)
    stale = Presence(database, gateway_id="gw-old")
    stale.note(gone, START)

    seen = await stale.flush({gone: 7}, now=START, silent_since=LONG_AGO)

    assert seen.back == ()
    assert not (await read(database, gone))[0].is_connected


async def test_flush_brings_a_node_back_that_was_given_up_too_early(database: Database) -> None:
    node_id = await add_node(database, "back", epoch=7, gateway_id=None)
    gateway = Presence(database, gateway_id="gw")
    gateway.note(node_id, START)

    seen = await gateway.flush({node_id: 7}, now=START, silent_since=LONG_AGO)

    assert seen.back == (node_id,)
    node, _ = await read(database, node_id)
    assert (node.is_connected, node.gateway_id) == (True, "gw")


async def test_heartbeat_never_goes_back(database: Database) -> None:
    node_id = await add_node(database, "n", epoch=1)
    gateway = Presence(database, gateway_id="gw-new")
    gateway.note(node_id, LONG_AGO)

    await gateway.flush({node_id: 1}, now=START, silent_since=LONG_AGO - timedelta(hours=1))

    assert (await read(database, node_id))[1].at == START


async def test_nodes_of_a_gateway_that_died_are_not_connected_after_its_lease(database: Database) -> None:
    await add_process(database, "gw-dead", START)
    await add_process(database, "gw-new", START + PROCESS_LEASE)
    orphan = await add_node(database, "orphan", epoch=1, gateway_id="gw-dead")
    other = await add_node(database, "other", epoch=1)

    assert await notice_missing(database, now=START + PROCESS_LEASE / 2, silent_since=LONG_AGO) == []
    now = START + PROCESS_LEASE + timedelta(seconds=1)
    assert await notice_missing(database, now=now, silent_since=LONG_AGO) == [orphan]

    assert not (await read(database, orphan))[0].is_connected
    assert (await read(database, other))[0].is_connected


async def test_standing_tells_taken_over_from_revoked(database: Database) -> None:
    taken, fine = await add_node(database, "taken", epoch=8), await add_node(database, "fine", epoch=2)
    async with database.read() as session:
        standing = await find_standing(session, {taken: 7, fine: 2, "nobody": 1})
    assert (standing.superseded, standing.outsiders) == ({taken}, {"nobody"})


@pytest.mark.postgresql
async def test_session_that_writes_now_is_not_taken_over_before_it_has(postgres_url: str) -> None:
    database = Database(postgres_url)
    node_id = await add_node(database, "n", epoch=1)
    order: list[str] = []
    checked = asyncio.Event()

    async def write_as_old() -> None:
        async with database.write() as session:
            assert await is_current(session, node_id, 1)
            checked.set()
            await asyncio.sleep(0.3)  # long enough for the other one to arrive
            order.append("old wrote")

    async def take_over() -> None:
        await checked.wait()
        async with database.write() as session:
            node = await session.get_one(Node, node_id, with_for_update=True)
            node.session_epoch = 2
            order.append("taken over")

    await asyncio.gather(write_as_old(), take_over())
    assert order == ["old wrote", "taken over"]
    async with database.write() as session:
        assert not await is_current(session, node_id, 1)
    await database.close()


async def test_process_says_that_it_lives_until_it_ends(database: Database, clock: Clock) -> None:
    book = ProcessBook(database, process_id="p1", role="gateway", instance="2", clock=clock)
    book.count_nodes = lambda: 5
    await add_process(database, "long-dead", START - timedelta(days=2))
    await book.start()
    clock.move(30)
    await book.beat()

    async with database.read() as session:
        (row,) = await list_processes(session)
    assert (row.role, row.instance, row.nodes_connected) == ("gateway", "2", 5)
    assert row.seen_at == START + timedelta(seconds=30)

    await book.stop()
    async with database.read() as session:
        assert await list_processes(session) == []


async def test_process_whose_row_was_removed_comes_back(database: Database, clock: Clock) -> None:
    book = ProcessBook(database, process_id="p1", role="api", clock=clock)
    await book.beat()
    async with database.write() as session:
        await session.delete(await session.get_one(ProcessRow, "p1"))
    await book.beat()
    async with database.read() as session:
        assert len(await list_processes(session)) == 1
