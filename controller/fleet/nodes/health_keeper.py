"""Takes in what nodes say about their health, judges it, and says when a judgement changes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import structlog
from sqlalchemy import func, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from controller.db.base import new_id, utc_now
from controller.db.engine import Database
from controller.fleet.models import Node, NodeCertificate, NodeModule, NodeState
from controller.fleet.nodes.health import CERTIFICATE_WARNING, HealthReason, NodeFacts, freeze_reasons, judge_node
from controller.fleet.nodes.health_models import ModuleHealthRow, NodeSignals
from controller.fleet.nodes.metrics import NodeSample
from controller.fleet.ports import Publisher
from controller.jobs.loops import Loops
from shared.protocol.health import HealthReport

FLUSH_SECONDS: Final = 5.0
CHUNK: Final = 500
_CLOCK_STEP_SECONDS: Final = 30.0
_DISK_STEP_PERCENT: Final = 1.0
"""Smaller changes are not worth a write."""
_DISK_QUIET_PERCENT: Final = 85.0
"""Below this nothing is written at all: ten thousand healthy nodes cost no write."""
REVIEWS_AT_ONCE: Final = 500
_log = structlog.get_logger("controller.fleet")


@dataclass(frozen=True, slots=True)
class Judged:
    """The last judgement about a node, for metrics."""

    name: str
    status: str
    codes: tuple[str, ...]


Samples = Callable[[], Mapping[str, NodeSample]]


@dataclass(frozen=True, slots=True)
class _Noted:
    """What the sessions of this process said last about one node."""

    clock_skew_seconds: float = 0.0
    seq_gaps: int = 0
    disk_used_percent: float | None = None


class HealthKeeper:
    """One per process; `note_*` by the sessions of this process, `review` by whichever process has the schedule."""

    def __init__(
        self, database: Database, publisher: Publisher, samples: Samples, *, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._database = database
        self._publisher = publisher
        self._samples = samples
        self._clock = clock
        self._noted: dict[str, _Noted] = {}
        self._written: dict[str, _Noted] = {}
        self._dirty: dict[str, None] = {}
        self._judged: dict[str, Judged] = {}
        self._loops = Loops()

    async def start(self) -> None:
        """Write from time to time what was noted."""
        self._loops.spawn(self._run(), name="health")

    async def stop(self) -> None:
        """End the loop."""
        await self._loops.stop()

    async def _run(self) -> None:
        while await self._loops.pause(FLUSH_SECONDS):
            try:
                await self.flush()
            except (SQLAlchemyError, OSError) as error:
                _log.warning("health.database", error=str(error))

    # --- from the sessions --------------------------------------------------------------------------------------------

    def note_heartbeat(self, node_id: str, *, clock: float, seq_gaps: int) -> None:
        """A heartbeat's word; in memory only."""
        known = self._noted.get(node_id, _Noted())
        skew = clock - self._clock().timestamp() if clock > 0 else 0.0
        self._noted[node_id] = _Noted(skew, seq_gaps, known.disk_used_percent)

    def forget(self, node_id: str) -> None:
        """Its session has ended."""
        self._noted.pop(node_id, None)
        self._written.pop(node_id, None)
        self._dirty[node_id] = None

    def note_changed(self, node_id: str) -> None:
        """Something about it changed: judge it anew in a moment."""
        self._dirty[node_id] = None

    async def take_report(self, node_id: str, report: HealthReport) -> None:
        """Store a look at the node's modules, and judge the node anew at once."""
        now = self._clock()
        async with self._database.write() as session:
            await _store_modules(session, node_id, report, now)
            await _upsert_signals(session, node_id, {"quarantine": report.quarantine[:2000]})
        await self.review((node_id,))

    async def flush(self) -> int:
        """Write what differs from what was written last; returns for how many nodes."""
        for node_id, sample in self._samples().items():
            known = self._noted.get(node_id, _Noted())
            disk = disk_percent(sample.gauges)
            disk = disk if disk is not None and disk >= _DISK_QUIET_PERCENT else None
            self._noted[node_id] = _Noted(known.clock_skew_seconds, known.seq_gaps, disk)
        await self._read_written()
        changed = {id_: noted for id_, noted in self._noted.items() if _differs(noted, self._written[id_])}
        dirty = list(self._dirty)[:REVIEWS_AT_ONCE]
        for node_id in dirty:
            del self._dirty[node_id]
        if not changed:
            await self.review(dirty)
            return 0
        async with self._database.write() as session:
            for node_id, noted in changed.items():
                values = {
                    "clock_skew_seconds": noted.clock_skew_seconds,
                    "seq_gaps": noted.seq_gaps,
                    "disk_used_percent": noted.disk_used_percent,
                }
                await _upsert_signals(session, node_id, values)
        self._written.update(changed)
        await self.review({*changed, *dirty})
        return len(changed)

    async def _read_written(self) -> None:
        """What another process, or an earlier life of this one, wrote about the nodes that are new here."""
        new = [node_id for node_id in self._noted if node_id not in self._written]
        for start in range(0, len(new), CHUNK):
            ids = new[start : start + CHUNK]
            async with self._database.read() as session:
                rows = await session.scalars(select(NodeSignals).where(NodeSignals.id.in_(ids)))
                found = {row.id: _Noted(row.clock_skew_seconds, row.seq_gaps, row.disk_used_percent) for row in rows}
            self._written.update({node_id: found.get(node_id, _Noted()) for node_id in ids})

    # --- judging ------------------------------------------------------------------------------------------------------

    async def review(self, node_ids: Collection[str] | None = None) -> int:
        """Judge these nodes (None: all of which time alone may change the judgement); returns how many changed."""
        ids = list(node_ids) if node_ids is not None else await self._find_suspects()
        count = 0
        for start in range(0, len(ids), CHUNK):
            count += await self._review(ids[start : start + CHUNK])
        return count

    async def _find_suspects(self) -> list[str]:
        """Those that are away, were not well, have parked something, or whose certificate ends: few in a calm fleet."""
        ends = func.max(NodeCertificate.not_after)
        ending = select(NodeCertificate.node_id).where(NodeCertificate.revoked_at.is_(None))
        ending = ending.group_by(NodeCertificate.node_id).having(ends <= self._clock() + CERTIFICATE_WARNING)
        unwell = select(NodeSignals.id).where(NodeSignals.status != "healthy")
        parked = select(NodeModule.node_id).where(NodeModule.observed_status == "parked")
        is_suspect = or_(
            Node.is_connected.is_(False),
            Node.observed_status == "failed",
            Node.id.in_(unwell),
            Node.id.in_(parked),
            Node.id.in_(ending),
        )
        async with self._database.read() as session:
            statement = select(Node.id).where(Node.state == NodeState.ACTIVE, is_suspect).order_by(Node.id)
            return list(await session.scalars(statement))

    def list_judged(self) -> Mapping[str, Judged]:
        """Node id to the last judgement that this process made."""
        return dict(self._judged)

    async def _review(self, ids: list[str]) -> int:
        now = self._clock()
        async with self._database.read() as session:
            facts = await read_facts(session, ids)
        changes = []
        for node_id in ids:
            self._judged.pop(node_id, None)
        for node_id, fact in facts.items():
            status, reasons = judge_node(fact, now=now)
            self._judged[node_id] = Judged(fact.node.name, status, tuple(dict.fromkeys(_codes(reasons))))
            signals = fact.signals
            frozen = freeze_reasons(reasons)
            if signals is None and not reasons:
                continue  # well, and nobody ever said otherwise: ten thousand of these cost no write
            if signals is None or signals.status != status or _key(signals.reasons) != _key(frozen):
                before = signals.status if signals is not None else "unknown"
                changes.append((node_id, before, status, reasons, frozen))
        if not changes:
            return 0
        async with self._database.write() as session:
            for node_id, before, status, _, frozen in changes:
                stamp = {"status_changed_at": now} if before != status else {}
                await _upsert_signals(session, node_id, {"status": status, "reasons": frozen, **stamp})
        for node_id, before, status, reasons, frozen in changes:
            data = {"id": node_id, "status": status, "was": before, "reasons": frozen}
            self._publisher.publish("nodes", "node.health", data)
            _log.info("node.health", node_id=node_id, status=status, was=before, codes=_codes(reasons))
        return len(changes)


async def read_facts(session: AsyncSession, ids: Collection[str]) -> dict[str, NodeFacts]:
    """What judgements about these nodes rest on."""
    nodes = {row.id: row for row in await session.scalars(select(Node).where(Node.id.in_(ids)))}
    signals = {row.id: row for row in await session.scalars(select(NodeSignals).where(NodeSignals.id.in_(ids)))}
    modules: dict[str, list[ModuleHealthRow]] = {}
    for row in await session.scalars(select(ModuleHealthRow).where(ModuleHealthRow.node_id.in_(ids))):
        modules.setdefault(row.node_id, []).append(row)
    parked: dict[str, list[str]] = {}
    is_parked = select(NodeModule.node_id, NodeModule.name).where(
        NodeModule.node_id.in_(ids), NodeModule.observed_status == "parked"
    )
    for node_id, name in (await session.execute(is_parked)).all():
        parked.setdefault(node_id, []).append(name)
    newest = select(NodeCertificate.node_id, func.max(NodeCertificate.not_after)).where(
        NodeCertificate.node_id.in_(ids), NodeCertificate.revoked_at.is_(None)
    )
    ends = {row[0]: row[1] for row in (await session.execute(newest.group_by(NodeCertificate.node_id))).all()}
    return {
        node_id: NodeFacts(
            node=node,
            signals=signals.get(node_id),
            modules=tuple(modules.get(node_id, ())),
            parked_modules=tuple(sorted(parked.get(node_id, ()))),
            certificate_not_after=ends.get(node_id),
        )
        for node_id, node in nodes.items()
    }


def disk_percent(gauges: Mapping[str, float]) -> float | None:
    """How full the fuller one of the node's file systems is."""
    shares = []
    for name in ("root", "accounts"):
        total, used = gauges.get(f"disk_{name}_total_bytes"), gauges.get(f"disk_{name}_used_bytes")
        if total and used is not None:
            shares.append(100.0 * used / total)
    return max(shares, default=None)


async def _store_modules(session: AsyncSession, node_id: str, report: HealthReport, now: datetime) -> None:
    statement = select(ModuleHealthRow).where(ModuleHealthRow.node_id == node_id)
    known = {row.name: row for row in await session.scalars(statement)}
    for module in report.modules[:64]:
        row = known.pop(module.name, None)
        if row is None:
            row = ModuleHealthRow(id=new_id(), node_id=node_id, name=module.name[:31], changed_at=now)
            row.is_healthy = module.is_healthy
            session.add(row)
        if row.is_healthy != module.is_healthy:
            row.is_healthy, row.changed_at = module.is_healthy, now
        row.checks = msgspec.to_builtins([_cut(check) for check in module.checks[:20]])
        row.version, row.checked_at = module.version[:200], now
        row.last_reload_at = datetime.fromtimestamp(module.last_reload_at, UTC) if module.last_reload_at > 0 else None
    for row in known.values():
        await session.delete(row)
    await session.flush()


def _cut(check: Any) -> Any:
    return msgspec.structs.replace(check, name=check.name[:40], note=check.note[:1000])


async def _upsert_signals(session: AsyncSession, node_id: str, values: dict[str, Any]) -> None:
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    now = utc_now()
    defaults = {"clock_skew_seconds": 0.0, "seq_gaps": 0, "quarantine": "", "status": "unknown", "reasons": []}
    first = insert(NodeSignals).values(id=node_id, created_at=now, updated_at=now, **{**defaults, **values})
    await session.execute(
        first.on_conflict_do_update(index_elements=["id"], set_={**values, "updated_at": now}),
        execution_options={"synchronize_session": False},
    )


def _differs(noted: _Noted, written: _Noted) -> bool:
    if abs(noted.clock_skew_seconds - written.clock_skew_seconds) >= _CLOCK_STEP_SECONDS:
        return True
    disk, before = noted.disk_used_percent, written.disk_used_percent
    is_other_disk = (disk is None) != (before is None)
    if disk is not None and before is not None:
        is_other_disk = abs(disk - before) >= _DISK_STEP_PERCENT
    return is_other_disk or noted.seq_gaps != written.seq_gaps


def _key(reasons: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """What makes two judgements the same: their words may hold a number that moves all the time."""
    return sorted((reason["kind"], reason["severity"], str(reason.get("since"))) for reason in reasons)


def _codes(reasons: tuple[HealthReason, ...]) -> list[str]:
    return [reason.kind for reason in reasons]
