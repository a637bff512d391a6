"""The proof of half a million audit entries: by the controller on both databases, and offline from an export.

The entries are of an account's change, about a kilobyte each, with a signed checkpoint at their end; all is verified as
the product does it (controller.core.audit, shared.audit_proof), in one process.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import insert, text

from controller.core.audit.chain import BATCH
from controller.core.audit.checkpoints import Checkpoints
from controller.core.audit.export import Export, ExportFormat, ExportWish, plan_export, write_export
from controller.core.audit.models import HEAD_ID, AuditEntry, AuditHead
from controller.core.audit.selection import AuditFilter
from controller.core.context import SYSTEM, OpContext
from controller.db.engine import Database
from controller.db.migrations import runner
from controller.fleet.signing.signer import LocalSigner
from shared.audit_proof import GENESIS_HASH, hash_entry, parse_lines
from shared.audit_walk import verify_export
from tests.bench.framework import BenchError, Benchmark, Measurement, Options, judge
from tests.bench.postgres import durable_postgres

ROWS = 500_000
BAR_SECONDS = 20.0
SQLITE = "audit verify, 500,000 entries, SQLite"
POSTGRESQL = "audit verify, 500,000 entries, PostgreSQL"
OFFLINE = "audit verify --file, 500,000 entries, offline"
START = datetime(2026, 1, 1, tzinfo=UTC)
STATE = {
    "name": "ada", "client_id": "01a20826-dfb8-738d-8957-93ca7ceacff5", "package_id": "01a20826-dfb8-738d-8957-93ca7c",
    "node_id": "01a20826-dfb8-738d-8957-93ca7ceacff7", "uid": 20001, "state": "active", "generation": 7,
    "aliases": ["a.example", "b.example"], "suspension_reason": None, "limits": {"cpu_percent": 50, "disk": 5 * 2**30},
}  # fmt: skip


def make_rows(count: int) -> Iterator[dict[str, Any]]:
    """A chain of this many entries."""
    previous = GENESIS_HASH
    for number in range(1, count + 1):
        at = START + timedelta(seconds=number)
        row: dict[str, Any] = {
            "number": number, "actor": f"user/{number % 200}", "actor_name": "ada", "address": "192.0.2.1",
            "account_id": f"account-{number % 10_000}", "client_id": f"client-{number % 200}", "request_id": f"r{number}",
            "action": "account.update", "target": f"account/account-{number % 10_000}", "target_name": "ada",
            "before": STATE, "after": STATE | {"generation": number}, "previous_hash": previous,
        }  # fmt: skip
        row["hash"] = previous = hash_entry(row | {"at": at.isoformat(timespec="microseconds")})
        yield row | {"id": _id_of(at), "at": at, "created_at": at, "updated_at": at}


def _id_of(at: datetime) -> str:
    """A UUIDv7 of that moment, as an entry written then has. Source: RFC 9562 section 5.7."""
    return str(uuid.UUID(int=int(at.timestamp() * 1000) << 80 | 7 << 76 | 2 << 62))


async def fill(database: Database, checkpoints: Checkpoints, count: int) -> None:
    """Write the chain and one signed checkpoint at its end."""
    async with database.write() as session:
        session.add(AuditHead(id=HEAD_ID, number=0, hash=GENESIS_HASH))
    last: dict[str, Any] = {}
    chunk: list[dict[str, Any]] = []
    for row in make_rows(count):
        chunk.append(row)
        if len(chunk) == 5 * BATCH or row["number"] == count:
            last = row
            async with database.write() as session:
                await session.execute(insert(AuditEntry), chunk)
                if last["number"] == len(chunk) and not database.is_sqlite:
                    # As autovacuum does, which a test's server has not: until then the trigger that compares each entry
                    # with the last one goes on with a plan for an empty table, and reads all of it for every row.
                    await session.execute(text("ANALYZE audit_entries"))
            chunk = []
    async with database.write() as session:
        head = await session.get_one(AuditHead, HEAD_ID)
        head.number, head.hash = last["number"], last["hash"]
    await checkpoints.make()


async def measure_online(url: str, folder: Path, count: int) -> float:
    """Seconds of one verification by the controller's own code."""
    await runner.upgrade(url)
    database = Database(url)
    try:
        signer = LocalSigner(folder)
        signer.open()
        checkpoints = Checkpoints(database, signer)
        await fill(database, checkpoints, count)
        began = time.perf_counter()
        async with database.read() as session:
            report = await checkpoints.verify(session)
        seconds = time.perf_counter() - began
        if report.reason or report.entries != count:
            raise BenchError(f"{report.entries} entries: {report.reason}")
        return seconds
    finally:
        await database.close()


async def measure_offline(url: str, folder: Path, count: int) -> float:
    """Seconds of one verification of an export, from the file on."""
    database = Database(url)
    path = folder / "audit.jsonl"
    try:
        signer = LocalSigner(folder)
        signer.open()
        checkpoints = Checkpoints(database, signer)
        async with database.read() as session:
            export = await _plan(OpContext(SYSTEM, session, "bench", datetime.now(UTC)), checkpoints)
        with path.open("wb") as file:
            async for part in write_export(database, export):
                file.write(part)
        began = time.perf_counter()
        with path.open(encoding="utf-8", newline="", buffering=io.DEFAULT_BUFFER_SIZE) as lines:
            report = verify_export(parse_lines(lines), public_key=signer.root_public_key)
        seconds = time.perf_counter() - began
        if report.reason or report.entries != count or report.proven_until != count:
            raise BenchError(f"{report.entries} entries: {report.reason}")
        return seconds
    finally:
        await database.close()


async def _plan(ctx: OpContext, checkpoints: Checkpoints) -> Export:
    return await plan_export(ctx, ExportWish(wanted=AuditFilter(), format=ExportFormat.JSONL), checkpoints)


def run(options: Options) -> list[Measurement]:
    """SQLite and the export of it, then PostgreSQL."""
    count = options.pick(ROWS, 2 * BATCH)
    for name in ("lite", "postgresql"):
        (options.work_dir / name).mkdir()
    lite = f"sqlite+aiosqlite:///{options.work_dir / 'audit.db'}"
    note = f"{count:,} entries of about a kilobyte, in one process"
    seconds = {SQLITE: asyncio.run(measure_online(lite, options.work_dir / "lite", count))}
    seconds[OFFLINE] = asyncio.run(measure_offline(lite, options.work_dir / "lite", count))
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(durable_postgres())
        seconds[POSTGRESQL] = asyncio.run(measure_online(url, options.work_dir / "postgresql", count))
    return [judge(name, value, "s", bar=BAR_SECONDS, note=note) for name, value in seconds.items()]


BENCHMARK = Benchmark(
    name="audit",
    bars=tuple((name, f"at most {BAR_SECONDS:g} s") for name in (SQLITE, OFFLINE, POSTGRESQL)),
    run=run,
    limit_seconds=900,
)
