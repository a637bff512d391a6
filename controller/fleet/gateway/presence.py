"""Who of a gateway's nodes was heard: gathered in memory, written in batches, and only for sessions that still count.

Invariant: a gateway that was away (stopped, cut off) while its nodes went elsewhere writes nothing about them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from controller import faults
from controller.db.engine import Database
from controller.fleet.gateway.presence_models import NodeSampleRow, ProcessRow
from controller.fleet.gateway.sessions import mark_silent, write_heartbeats
from controller.fleet.models import Heartbeat, Node, NodeState
from controller.fleet.nodes.metrics import NodeSample

PROCESS_LEASE: Final = timedelta(seconds=20)
"""A process says every few seconds that it lives; after this long without a word it does not."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How sessions of this process stand in the database."""

    outsiders: frozenset[str]
    """Nodes that may not be connected (any more)."""
    quarantined: frozenset[str]
    """Those of them that may come back once somebody has looked."""
    superseded: frozenset[str]
    """Nodes whose session is another one by now, maybe at another process."""


async def find_standing(session: AsyncSession, epochs: Mapping[str, int]) -> Standing:
    """Compare this process's sessions (node id to epoch) with the database."""
    statement = select(Node.id, Node.session_epoch).where(Node.id.in_(epochs), Node.state == NodeState.ACTIVE)
    found: dict[str, int] = {node_id: epoch for node_id, epoch in await session.execute(statement)}  # noqa: C416 - for its types
    # A lower one in the database means that it lost its last commits: nothing of this session counts any more, either.
    superseded = frozenset(node_id for node_id, epoch in found.items() if epoch != epochs[node_id])
    outsiders = epochs.keys() - found.keys()
    stopped = select(Node.id).where(Node.id.in_(outsiders), Node.state == NodeState.QUARANTINED)
    quarantined = (await session.execute(stopped)).scalars() if outsiders else ()
    return Standing(outsiders=frozenset(outsiders), quarantined=frozenset(quarantined), superseded=superseded)


async def find_current(session: AsyncSession, epochs: Mapping[str, int]) -> set[str]:
    """Those of the nodes whose session (node id to epoch) still counts; it does until the transaction ends."""
    statement = select(Node.id, Node.session_epoch).where(Node.id.in_(epochs), Node.state == NodeState.ACTIVE)
    statement = statement.order_by(Node.id).with_for_update(read=True, key_share=True)
    return {node_id for node_id, epoch in (await session.execute(statement)).all() if epoch == epochs[node_id]}


async def mark_heard(session: AsyncSession, node_ids: Collection[str], *, gateway_id: str) -> list[str]:
    """Nodes of living sessions that were given up as silent and are heard again; returns their ids.

    A network that was cut for longer than the lease need not end the session.
    """
    back = update(Node).where(Node.id.in_(node_ids), Node.is_connected.is_(False), Node.state == NodeState.ACTIVE)
    back = back.values(is_connected=True, gateway_id=gateway_id).returning(Node.id)
    return list((await session.execute(back.execution_options(synchronize_session=False))).scalars())


async def mark_orphans(session: AsyncSession, *, now: datetime, asker_id: str = "") -> list[str]:
    """Nodes whose gateway is gone without a word; returns their ids. `asker_id`: a gateway that lives, for it asks."""
    alive = select(ProcessRow.id).where(ProcessRow.id == Node.gateway_id, ProcessRow.seen_at > now - PROCESS_LEASE)
    orphans = update(Node).where(Node.is_connected.is_(True), Node.gateway_id != asker_id, ~alive.exists())
    orphans = orphans.values(is_connected=False, gateway_id=None).returning(Node.id)
    return list((await session.execute(orphans.execution_options(synchronize_session=False))).scalars())


async def notice_missing(database: Database, *, now: datetime, silent_since: datetime) -> list[str]:
    """Nodes that are not connected whatever their rows say, even when no gateway is left to notice; their ids."""
    async with database.read() as session:
        if not await _has_missing(session, now=now, silent_since=silent_since):
            return []
    async with database.write() as session:
        return [*await mark_orphans(session, now=now), *await mark_silent(session, silent_since=silent_since)]


async def _has_missing(session: AsyncSession, *, now: datetime, silent_since: datetime) -> bool:
    alive = select(ProcessRow.id).where(ProcessRow.id == Node.gateway_id, ProcessRow.seen_at > now - PROCESS_LEASE)
    heard = select(Heartbeat.id).where(Heartbeat.id == Node.id, Heartbeat.at > silent_since)
    is_missing = (Node.gateway_id.is_not(None) & ~alive.exists()) | ~heard.exists()
    missing = select(Node.id).where(Node.is_connected.is_(True), is_missing).limit(1)
    return (await session.execute(missing)).first() is not None


async def find_sample(session: AsyncSession, node_id: str, *, since: datetime) -> NodeSample | None:
    """The node's latest sample that a gateway wrote, unless it is old."""
    statement = select(NodeSampleRow.at, NodeSampleRow.gauges)
    found = (await session.execute(statement.where(NodeSampleRow.id == node_id, NodeSampleRow.at >= since))).first()
    return NodeSample(at=found[0], gauges=dict(found[1])) if found is not None else None


@dataclass(frozen=True, slots=True)
class Seen:
    """What a round changed."""

    back: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()


class Presence:
    """The beats and samples of one gateway's nodes, on their way to the database."""

    def __init__(self, database: Database, *, gateway_id: str) -> None:
        self._database = database
        self._gateway_id = gateway_id
        self._beats: dict[str, datetime] = {}
        self._samples: dict[str, NodeSample] = {}
        self._shares_samples = not database.is_sqlite
        """On SQLite there is only this process, and it has them in memory."""

    def note(self, node_id: str, at: datetime) -> None:
        """The node was heard."""
        self._beats[node_id] = at

    def note_sample(self, node_id: str, sample: NodeSample) -> None:
        """The node said how it does."""
        self._beats[node_id] = sample.at
        if self._shares_samples:
            self._samples[node_id] = sample

    def forget(self, node_id: str) -> None:
        """Its session is over."""
        self._beats.pop(node_id, None)
        self._samples.pop(node_id, None)

    async def flush(self, epochs: Mapping[str, int], *, now: datetime, silent_since: datetime) -> Seen:
        """Write who was heard, and notice who was not.

        Args:
            epochs: Node id to epoch of the sessions of this process.
            now: The time.
            silent_since: Who was not heard since then is not connected.
        """
        beats, self._beats = self._beats, {}
        samples, self._samples = self._samples, {}
        heard = {node_id: epochs[node_id] for node_id in beats if node_id in epochs}
        async with self._database.write() as session:
            mine = await find_current(session, heard) if heard else set()
            await write_heartbeats(session, {node_id: beats[node_id] for node_id in mine})
            await _write_samples(session, {node_id: samples[node_id] for node_id in mine & samples.keys()})
            back = await mark_heard(session, mine, gateway_id=self._gateway_id) if mine else []
            silent = await mark_silent(session, silent_since=silent_since)
            silent += await mark_orphans(session, now=now, asker_id=self._gateway_id)
            faults.at("heartbeat.before_commit")
        faults.at("heartbeat.after_commit")
        return Seen(tuple(back), tuple(silent))


async def _write_samples(session: AsyncSession, samples: Mapping[str, NodeSample]) -> None:
    if not samples:
        return
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    rows = [{"id": node_id, "at": sample.at, "gauges": sample.gauges} for node_id, sample in sorted(samples.items())]
    statement = insert(NodeSampleRow).values(rows)
    newer = {"at": statement.excluded.at, "gauges": statement.excluded.gauges}
    await session.execute(statement.on_conflict_do_update(index_elements=["id"], set_=newer))
