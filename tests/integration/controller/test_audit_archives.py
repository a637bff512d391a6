"""Old audit entries as files: nothing leaves the database that is not proven elsewhere, and what was touched is found."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import delete, func, select, text, update
from sqlalchemy.exc import DBAPIError

from controller.core.audit.archive_files import PART_BYTES, forget_leftovers, store_file
from controller.core.audit.archive_models import AuditArchive, AuditArchivePart
from controller.core.audit.archives import DELETE_BATCH, AuditArchiving
from controller.core.audit.models import AuditEntry
from controller.core.context import Change
from controller.core.operations import FleetContext
from controller.core.policies.models import PlatformPolicyRow
from controller.db.base import utc_now
from shared.audit_proof import parse_lines
from shared.audit_walk import verify_export
from shared.errors import BugError
from tests.integration.audit_triggers import unguarded_audit
from tests.integration.controller.hosting import ADMIN, Hosting
from tests.integration.controller.test_audit_export import export, prove, write_many

LATER = timedelta(days=2)
A_PART_MORE = (
    "INSERT INTO audit_archive_parts (sha256, number, content, id, created_at, updated_at) "
    "SELECT sha256, 7, content, 'x', created_at, updated_at FROM audit_archive_parts"
)


async def archiving(hosting: Hosting, *, days: int | None = 1, batch: int = DELETE_BATCH) -> AuditArchiving:
    """As it is two days from now; the policy is set without an entry, so that the numbers of entries are easy."""
    async with hosting.database.write() as session:
        await session.execute(delete(PlatformPolicyRow))
        session.add(PlatformPolicyRow(name="audit_retention_days", value=days, changed_by="tests"))
    later = lambda: utc_now() + LATER  # noqa: E731 - a clock
    return AuditArchiving(hosting.operations, hosting.checkpoints, delete_batch=batch, clock=later)


async def file_of(hosting: Hosting) -> bytes:
    """The newest archive's, as it is in the database."""
    async with hosting.database.read() as session:
        parts = await session.scalars(select(AuditArchivePart).order_by(AuditArchivePart.id))
        return b"".join(part.content for part in parts)


async def numbers(hosting: Hosting) -> tuple[int, int]:
    """The first and the last entry that is in the database."""
    async with hosting.database.read() as session:
        row = (await session.execute(select(func.min(AuditEntry.number), func.max(AuditEntry.number)))).one()
    return int(row[0]), int(row[1])


async def archive_ten(hosting: Hosting, *, batch: int = DELETE_BATCH) -> bytes:
    """Ten entries in an archive, one (its making) and five more in the database; the file."""
    await write_many(hosting, 10)
    await hosting.checkpoints.make()
    assert await (await archiving(hosting, batch=batch)).run() == "entries 1 to 10 are in audit-1-10.jsonl.gz"
    await write_many(hosting, 5)
    return await file_of(hosting)


@asynccontextmanager
async def refused(hosting: Hosting) -> AsyncIterator[Any]:
    with pytest.raises(DBAPIError, match="append-only"):
        async with hosting.database.write() as session:
            yield session


async def test_archive_when_made_proves_itself_and_the_chain_goes_on(hosting: Hosting) -> None:
    file = await archive_ten(hosting)

    verified = await hosting.get("/audit/verify")
    with gzip.open(io.BytesIO(file), "rt", encoding="utf-8", newline="") as lines:
        report = verify_export(parse_lines(lines), public_key=hosting.checkpoints.public_key)
    rest = prove(hosting, await export(hosting), expected_head=report.head_hash)
    assert (report.reason, report.first, report.last, report.proven_until) == ("", 1, 10, 10)
    assert await numbers(hosting) == (11, 16)
    assert (verified["is_intact"], verified["entries"], verified["archived"]) == (True, 16, 10)
    assert (verified["absent_archives"], verified["checkpoints"]) == ([], 1)
    assert (rest.reason, rest.first, rest.last) == ("", 11, 16)


async def test_archive_when_made_is_listed_audited_and_downloaded(hosting: Hosting) -> None:
    stored = await archive_ten(hosting)

    (item,) = (await hosting.get("/audit/archives"))["items"]
    shown = await hosting.get(f"/audit/archives/{item['id']}")
    file = await hosting.http.get(f"/api/v1/audit/archives/{item['id']}/file")
    (entry,) = (await hosting.get("/audit", action="audit.archive"))["items"]
    assert (shown, item["first"], item["last"]) == (item, 1, 10)
    assert file.content == stored
    assert file.headers["content-length"] == str(len(stored)) == str(item["size_bytes"])
    assert hashlib.sha256(file.content).hexdigest() == item["sha256"]
    assert entry["after"]["sha256"] == item["sha256"]
    await hosting.get("/audit/archives/none", expect=404)


async def test_archives_when_made_one_after_the_other_are_one_chain(hosting: Hosting) -> None:
    await archive_ten(hosting)
    await hosting.checkpoints.make()
    await (await archiving(hosting)).run()

    verified = await hosting.get("/audit/verify")
    assert (verified["is_intact"], verified["archived"], verified["checkpoints"]) == (True, 16, 2)
    assert await numbers(hosting) == (17, 17)


@pytest.mark.parametrize("days", [None, 3])
async def test_archive_when_nothing_is_old_enough_is_not_made(hosting: Hosting, days: int | None) -> None:
    await write_many(hosting, 10)
    await hosting.checkpoints.make()

    assert await (await archiving(hosting, days=days)).run() is None
    assert await numbers(hosting) == (1, 10)


async def test_archive_when_nothing_was_signed_is_not_made(hosting: Hosting) -> None:
    await write_many(hosting, 10)

    assert await (await archiving(hosting)).run() is None


async def test_archive_when_a_crash_left_entries_removes_them_the_next_time(hosting: Hosting) -> None:
    await write_many(hosting, 10)
    await hosting.checkpoints.make()
    crashing = await archiving(hosting)
    chosen = await crashing.choose()
    assert chosen is not None
    await crashing.archive(*chosen)  # and here the machine stops
    between = await hosting.get("/audit/verify")

    assert await (await archiving(hosting)).run() == "10 archived entries removed"
    assert between["is_intact"], between
    assert await numbers(hosting) == (11, 11)


async def test_archive_when_a_crash_left_parts_of_no_archive_removes_them(hosting: Hosting) -> None:
    await store_file(hosting.database, io.BytesIO(b"half an archive"), "0" * 64)

    await archive_ten(hosting)

    async with hosting.database.read() as session:
        assert set(await session.scalars(select(AuditArchivePart.sha256))) == set(
            await session.scalars(select(AuditArchive.sha256))
        )
    assert (await hosting.get("/audit/verify"))["is_intact"]


async def test_archive_when_its_parts_are_taken_away_before_it_is_named_is_not_made(hosting: Hosting) -> None:
    await write_many(hosting, 10)
    await hosting.checkpoints.make()
    first = await archiving(hosting)
    chosen = await first.choose()
    assert chosen is not None
    stop = asyncio.Event()

    async def take_away() -> None:
        while not stop.is_set():
            await forget_leftovers(hosting.database)

    taking = asyncio.create_task(take_away())
    try:
        ended = await asyncio.gather(first.archive(*chosen), return_exceptions=True)
    finally:
        stop.set()
        await taking

    archives = (await hosting.get("/audit/archives"))["items"]
    verified = await hosting.get("/audit/verify")
    assert len(archives) == (0 if isinstance(ended[0], BugError) else 1), ended
    assert (verified["is_intact"], verified["absent_archives"]) == (True, [])
    assert await numbers(hosting) == (1, 10 + len(archives))


async def test_archive_of_more_than_a_part_is_served_and_proven_whole(hosting: Hosting) -> None:
    async def noise(ctx: FleetContext) -> None:
        after = {"noise": random.Random(7).randbytes(PART_BYTES).hex()}  # what gzip cannot make smaller than half
        ctx.changes.append(Change("test.note", "test/1", "x", after=after))

    for _ in range(3):
        await hosting.operations.change(ADMIN, "r", noise)
    stored = await archive_ten_more(hosting)

    (item,) = (await hosting.get("/audit/archives"))["items"]
    file = await hosting.http.get(f"/api/v1/audit/archives/{item['id']}/file")
    assert await hosting.count(AuditArchivePart) > 1
    assert (file.content, len(stored) > PART_BYTES) == (stored, True)
    assert (await hosting.get("/audit/verify"))["is_intact"]


async def archive_ten_more(hosting: Hosting) -> bytes:
    await write_many(hosting, 10)
    await hosting.checkpoints.make()
    await (await archiving(hosting)).run()
    return await file_of(hosting)


@pytest.mark.parametrize("how", ["edited", "cut", "swapped"])
async def test_verify_audit_when_an_archive_was_touched_finds_it(hosting: Hosting, how: str) -> None:
    raw = await archive_ten(hosting)
    content = gzip.decompress(raw)
    forged = {
        "edited": gzip.compress(content.replace(b'"test/3"', b'"test/X"', 1)),
        "cut": raw[: len(raw) // 2],
        "swapped": gzip.compress(content),
    }
    async with unguarded_audit(hosting.database) as session:
        await session.execute(update(AuditArchivePart).values(content=forged[how]))

    verified = await hosting.get("/audit/verify")
    assert (verified["is_intact"], verified["first_bad_number"]) == (False, 1)
    assert verified["reason"].startswith("the archive audit-1-10.jsonl.gz: ")


async def test_verify_audit_when_an_archives_file_was_removed_says_which_and_with_what_hash(hosting: Hosting) -> None:
    await archive_ten(hosting)
    (item,) = (await hosting.get("/audit/archives"))["items"]
    async with unguarded_audit(hosting.database) as session:
        await session.execute(delete(AuditArchivePart))

    verified = await hosting.get("/audit/verify")
    gone = await hosting.get(f"/audit/archives/{item['id']}/file", expect=404)
    assert verified["is_intact"]
    assert verified["absent_archives"] == [f"{item['name']}: entries 1 to 10, SHA-256 {item['sha256']}"]
    assert gone["code"] == "audit_archive_absent"


async def test_verify_audit_when_entries_after_the_archive_were_cut_finds_it(hosting: Hosting) -> None:
    await archive_ten(hosting)
    async with unguarded_audit(hosting.database) as session:
        await session.execute(text("DELETE FROM audit_entries WHERE number < 14"))

    verified = await hosting.get("/audit/verify")
    assert (verified["is_intact"], verified["first_bad_number"]) == (False, 11)


async def test_export_when_the_entries_are_archived_says_where_they_are(hosting: Hosting) -> None:
    await archive_ten(hosting)

    answer = await hosting.get("/audit/export", first=5, expect=400)

    assert (answer["code"], [error["field"] for error in answer["errors"]]) == ("audit_archived", ["first"])


async def test_audit_entries_when_an_archive_names_them_go_and_no_others(hosting: Hosting) -> None:
    await archive_ten(hosting)

    async with refused(hosting) as session:
        await session.execute(text("DELETE FROM audit_entries WHERE number = 11"))
    async with refused(hosting) as session:
        await session.execute(text("UPDATE audit_entries SET actor = 'x' WHERE number = 11"))
    assert await numbers(hosting) == (11, 16)


@pytest.mark.parametrize(
    "statement",
    ["UPDATE audit_archives SET last = 16", "DELETE FROM audit_archives", "UPDATE audit_archives SET sha256 = 'x'"],
)
async def test_audit_archives_when_somebody_would_change_them_are_refused(hosting: Hosting, statement: str) -> None:
    await archive_ten(hosting)

    async with refused(hosting) as session:
        await session.execute(text(statement))


@pytest.mark.parametrize(
    ("first", "last", "value"),
    [
        (11, 16, "the hash"),  # no checkpoint there
        (12, 14, "the hash"),  # leaves a gap
        (1, 10, "the hash"),  # again
        (11, 10, "the hash"),  # backwards
    ],
)
async def test_audit_archives_when_a_row_is_made_up_refuse_it(
    hosting: Hosting, first: int, last: int, value: str
) -> None:
    await archive_ten(hosting)
    columns = "first, last, hash, previous_hash, at, name, size_bytes, sha256, id, created_at, updated_at"
    source = f"SELECT {first}, {last}, '{value}', previous_hash, at, 'x', 1, 'x', 'x', created_at, updated_at"

    async with refused(hosting) as session:
        await session.execute(text(f"INSERT INTO audit_archives ({columns}) {source} FROM audit_archives"))


async def test_audit_entries_when_archived_cannot_be_written_again(hosting: Hosting) -> None:
    await archive_ten(hosting)

    async with refused(hosting) as session:
        row = (await session.scalars(select(AuditEntry).limit(1))).one()
        names = [column.key for column in AuditEntry.__table__.columns if column.key not in ("id", "number")]
        listed = ", ".join(names)
        await session.execute(
            text(
                f"INSERT INTO audit_entries (id, number, {listed}) "
                f"SELECT 'x', 3, {listed} FROM audit_entries WHERE id = '{row.id}'"
            )
        )


async def test_archive_when_there_is_more_than_a_batch_removes_all(hosting: Hosting) -> None:
    await archive_ten(hosting, batch=3)

    assert await numbers(hosting) == (11, 16)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_archive_parts SET content = content",
        "DELETE FROM audit_archive_parts",
        A_PART_MORE,
    ],
)
async def test_files_of_archives_when_somebody_would_change_them_are_refused(hosting: Hosting, statement: str) -> None:
    await archive_ten(hosting)

    async with refused(hosting) as session:
        await session.execute(text(statement))
