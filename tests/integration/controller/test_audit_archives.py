"""Old audit entries as files: nothing leaves the database that is not proven elsewhere, and what was touched is found."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError

from controller.core.audit import archives
from controller.core.audit.archive_models import AuditArchive
from controller.core.audit.archives import AuditArchiving
from controller.core.audit.models import AuditEntry
from controller.db.base import utc_now
from shared.audit_proof import parse_lines
from shared.audit_walk import verify_export
from tests.integration.audit_triggers import unguarded_audit
from tests.integration.controller.hosting import Hosting
from tests.integration.controller.test_audit_export import export, prove, write_many

LATER = timedelta(days=2)


def folder_of(hosting: Hosting) -> Path:
    folder = hosting.checkpoints.archive_dir
    assert folder is not None
    return folder


def archiving(hosting: Hosting, *, days: float | None = 1.0) -> AuditArchiving:
    """As it is two days from now."""
    return AuditArchiving(
        hosting.operations, hosting.checkpoints, folder_of(hosting), days=days, clock=lambda: utc_now() + LATER
    )


async def numbers(hosting: Hosting) -> tuple[int, int]:
    """The first and the last entry that is in the database."""
    async with hosting.database.read() as session:
        row = (await session.execute(select(func.min(AuditEntry.number), func.max(AuditEntry.number)))).one()
    return int(row[0]), int(row[1])


async def archive_ten(hosting: Hosting) -> Path:
    """Ten entries in an archive, one (its making) and five more in the database."""
    await write_many(hosting, 10)
    await hosting.checkpoints.make()
    assert await archiving(hosting).run() == "entries 1 to 10 are in audit-1-10.jsonl.gz"
    await write_many(hosting, 5)
    return folder_of(hosting) / "audit-1-10.jsonl.gz"


@asynccontextmanager
async def refused(hosting: Hosting) -> AsyncIterator[Any]:
    with pytest.raises(DBAPIError, match="append-only"):
        async with hosting.database.write() as session:
            yield session


async def test_archive_when_made_proves_itself_and_the_chain_goes_on(hosting: Hosting) -> None:
    path = await archive_ten(hosting)

    verified = await hosting.get("/audit/verify")
    with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
        report = verify_export(parse_lines(lines), public_key=hosting.checkpoints.public_key)
    rest = prove(hosting, await export(hosting), expected_head=report.head_hash)
    assert (report.reason, report.first, report.last, report.proven_until) == ("", 1, 10, 10)
    assert await numbers(hosting) == (11, 16)
    assert (verified["is_intact"], verified["entries"], verified["archived"]) == (True, 16, 10)
    assert (verified["absent_archives"], verified["checkpoints"]) == ([], 1)
    assert (rest.reason, rest.first, rest.last) == ("", 11, 16)
    assert oct(path.stat().st_mode)[-3:] == "600"


async def test_archive_when_made_is_listed_audited_and_downloaded(hosting: Hosting) -> None:
    path = await archive_ten(hosting)

    (item,) = (await hosting.get("/audit/archives"))["items"]
    shown = await hosting.get(f"/audit/archives/{item['id']}")
    file = await hosting.http.get(f"/api/v1/audit/archives/{item['id']}/file")
    (entry,) = (await hosting.get("/audit", action="audit.archive"))["items"]
    assert (shown, item["first"], item["last"]) == (item, 1, 10)
    assert file.content == path.read_bytes()
    assert entry["after"]["sha256"] == item["sha256"]
    await hosting.get("/audit/archives/none", expect=404)


async def test_archives_when_made_one_after_the_other_are_one_chain(hosting: Hosting) -> None:
    await archive_ten(hosting)
    await hosting.checkpoints.make()
    await archiving(hosting).run()

    verified = await hosting.get("/audit/verify")
    assert (verified["is_intact"], verified["archived"], verified["checkpoints"]) == (True, 16, 2)
    assert await numbers(hosting) == (17, 17)


@pytest.mark.parametrize("days", [None, 3.0])
async def test_archive_when_nothing_is_old_enough_is_not_made(hosting: Hosting, days: float | None) -> None:
    await write_many(hosting, 10)
    await hosting.checkpoints.make()

    assert await archiving(hosting, days=days).run() is None
    assert await numbers(hosting) == (1, 10)


async def test_archive_when_nothing_was_signed_is_not_made(hosting: Hosting) -> None:
    await write_many(hosting, 10)

    assert await archiving(hosting).run() is None


async def test_archive_when_a_crash_left_entries_removes_them_the_next_time(
    hosting: Hosting, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write_many(hosting, 10)
    await hosting.checkpoints.make()
    broken = archiving(hosting)

    async def crash() -> int:
        if await hosting.count(AuditArchive):
            raise OSError("the machine stopped")
        return 0

    monkeypatch.setattr(broken, "_remove_archived", crash)
    with pytest.raises(OSError, match="stopped"):
        await broken.run()
    between = await hosting.get("/audit/verify")

    assert await archiving(hosting).run() == "10 archived entries removed"
    assert between["is_intact"], between
    assert await numbers(hosting) == (11, 11)


@pytest.mark.parametrize("how", ["edited", "cut", "swapped"])
async def test_verify_audit_when_an_archive_was_touched_finds_it(hosting: Hosting, how: str) -> None:
    path = await archive_ten(hosting)
    raw = path.read_bytes()
    content = gzip.decompress(raw)
    forged = {
        "edited": gzip.compress(content.replace(b'"test/3"', b'"test/X"', 1)),
        "cut": raw[: len(raw) // 2],
        "swapped": gzip.compress(content),
    }
    path.write_bytes(forged[how])

    verified = await hosting.get("/audit/verify")
    assert (verified["is_intact"], verified["first_bad_number"]) == (False, 1)
    assert verified["reason"].startswith("the archive audit-1-10.jsonl.gz: ")


async def test_verify_audit_when_an_archive_is_elsewhere_says_which_and_with_what_hash(hosting: Hosting) -> None:
    path = await archive_ten(hosting)
    (item,) = (await hosting.get("/audit/archives"))["items"]
    path.rename(path.with_suffix(".moved"))

    verified = await hosting.get("/audit/verify")
    gone = await hosting.get(f"/audit/archives/{item['id']}/file", expect=404)
    assert verified["is_intact"]
    assert verified["absent_archives"] == [f"{path.name}: entries 1 to 10, SHA-256 {item['sha256']}"]
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


async def test_archive_when_there_is_more_than_a_batch_removes_all(
    hosting: Hosting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "DELETE_BATCH", 3)

    await archive_ten(hosting)

    assert await numbers(hosting) == (11, 16)
