"""The audit log: one entry for each change, in its transaction, in a chain that shows every touch."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import delete, select, text, update
from sqlalchemy.exc import DBAPIError

from controller.core.audit.chain import GENESIS_HASH, append_entries, entry_hash, verify_chain
from controller.core.audit.models import AuditEntry, AuditHead
from controller.core.audit.service import verify_audit
from controller.core.context import Actor, Change, OpContext, Role
from controller.core.operations import FleetContext
from controller.db.base import utc_now
from controller.db.engine import Database
from shared.errors import ConflictError, ForbiddenError
from tests.integration.audit_triggers import unguarded_audit
from tests.integration.controller.hosting import ADMIN, Hosting


async def test_every_change_leaves_one_entry_with_before_and_after(hosting: Hosting) -> None:
    package_id = await hosting.add_package("Starter")
    await hosting.patch(f"/packages/{package_id}", {"cpu_percent": 50}, expect=202)
    await hosting.delete(f"/packages/{package_id}", expect=204)

    entries = (await hosting.get("/audit"))["items"]

    assert [entry["action"] for entry in entries] == ["package.delete", "package.update", "package.create"]
    assert [entry["number"] for entry in entries] == [3, 2, 1]
    deleted, changed, created = entries
    assert created["before"] is None
    assert (changed["before"]["cpu_percent"], changed["after"]["cpu_percent"]) == (None, 50)
    assert deleted["after"] is None
    assert {entry["target"] for entry in entries} == {f"package/{package_id}"}
    assert {entry["actor_name"] for entry in entries} == {"root"}
    assert created["previous_hash"] == GENESIS_HASH


async def test_create_site_audits_the_names_that_it_claims(hosting: Hosting) -> None:
    await hosting.add_site(await hosting.add_account("ada"), "a.example", aliases=["b.example"])

    newest = [(entry["action"], entry["target_name"]) for entry in (await hosting.get("/audit", limit=3))["items"]]

    assert newest == [("site.create", "a.example"), ("domain.create", "b.example"), ("domain.create", "a.example")]


async def test_refused_change_leaves_no_entry(hosting: Hosting) -> None:
    await hosting.post("/packages", {"name": "P", "cpu_percent": -1}, expect=400)
    await hosting.post("/accounts/x/suspend", {}, expect=404)

    assert (await hosting.get("/audit"))["items"] == []


async def test_list_audit_filters(hosting: Hosting) -> None:
    package_id = await hosting.add_package("Starter")
    await hosting.add_client()

    async def actions(**query: Any) -> list[str]:
        return [entry["action"] for entry in (await hosting.get("/audit", **query))["items"]]

    assert await actions(action="client.create") == ["client.create"]
    assert await actions(target=f"package/{package_id}") == ["package.create"]
    assert await actions(by="user/nobody") == []
    assert await actions(search="start") == ["package.create"]


async def test_verify_audit_of_an_untouched_log_is_intact(hosting: Hosting) -> None:
    empty = await hosting.get("/audit/verify")
    await hosting.add_package("Bücher ✓")
    await hosting.add_site(await hosting.add_account("ada"), "a.example")

    report = await hosting.get("/audit/verify")

    assert (empty["is_intact"], empty["entries"], empty["head_hash"]) == (True, 0, GENESIS_HASH)
    assert report["is_intact"]
    assert report["entries"] == (await hosting.get("/audit", limit=1))["items"][0]["number"]


@pytest.mark.parametrize(
    ("tamper", "first_bad", "words"),
    [
        (update(AuditEntry).where(AuditEntry.number == 2).values(target_name="X"), 2, "was changed"),
        (update(AuditEntry).where(AuditEntry.number == 2).values(after={"name": "X"}), 2, "was changed"),
        (update(AuditEntry).where(AuditEntry.number == 1).values(actor_name="X"), 1, "was changed"),
        (delete(AuditEntry).where(AuditEntry.number == 2), 2, "is missing"),
        (delete(AuditEntry).where(AuditEntry.number == 3), 3, "but 3 entries were written"),
        (delete(AuditEntry), 1, "3 entries were written"),
        (delete(AuditHead), 4, "but 0 entries were written"),
    ],
)
async def test_verify_audit_finds_what_was_touched(hosting: Hosting, tamper: Any, first_bad: int, words: str) -> None:
    for name in ("A", "B", "C"):
        await hosting.add_package(name)

    async with unguarded_audit(hosting.database) as session:
        await session.execute(tamper)

    report = await hosting.get("/audit/verify")
    assert (report["is_intact"], report["first_bad_number"]) == (False, first_bad)
    assert words in report["reason"]


async def test_verify_audit_finds_two_entries_that_changed_places(hosting: Hosting) -> None:
    for name in ("A", "B", "C"):
        await hosting.add_package(name)
    async with unguarded_audit(hosting.database) as session:
        for old, new in ((2, 4), (3, 2), (4, 3)):
            await session.execute(update(AuditEntry).where(AuditEntry.number == old).values(number=new))

    report = await hosting.get("/audit/verify")

    assert (report["is_intact"], report["first_bad_number"]) == (False, 2)
    assert report["reason"] == "entry 2 does not continue entry 1"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_entries SET target_name = 'X' WHERE number = 2",
        "UPDATE audit_entries SET number = 9 WHERE number = 3",
        "DELETE FROM audit_entries WHERE number = 3",
        "DELETE FROM audit_entries",
        "UPDATE audit_head SET number = 2",
        "UPDATE audit_head SET number = 3, hash = 'X'",
        "DELETE FROM audit_head",
    ],
)
async def test_audit_log_when_somebody_would_change_it_is_refused_by_the_database(
    hosting: Hosting, statement: str
) -> None:
    for name in ("A", "B", "C"):
        await hosting.add_package(name)

    with pytest.raises(DBAPIError, match="append-only"):
        async with hosting.database.write() as session:
            await session.execute(text(statement))

    report = await hosting.get("/audit/verify")
    assert (report["is_intact"], report["entries"]) == (True, 3)


async def test_audit_log_when_an_entry_is_written_over_is_refused_by_the_database(hosting: Hosting) -> None:
    for name in ("A", "B"):
        await hosting.add_package(name)
    columns = ", ".join(column.name for column in AuditEntry.__table__.columns)
    again = f"INSERT INTO audit_entries ({columns}) SELECT {columns} FROM audit_entries WHERE number = 1"
    statements = [again]
    if hosting.database.is_sqlite:
        # REPLACE removes the old row without a word to a trigger for DELETE.
        statements.append(again.replace("INSERT", "INSERT OR REPLACE"))

    for statement in statements:
        with pytest.raises(DBAPIError, match="append-only"):
            async with hosting.database.write() as session:
                await session.execute(text(statement))

    assert (await hosting.get("/audit/verify"))["entries"] == 2


@pytest.mark.postgresql
async def test_audit_log_when_a_superuser_of_postgresql_asks_is_refused_all_the_same(postgres_url: str) -> None:
    database = Database(postgres_url)
    async with database.write() as session:
        change = Change(action="test.note", target="test/1", target_name="x")
        await append_entries(OpContext(ADMIN, session, "r", utc_now()), (change,))

    async def run(statement: str) -> None:
        async with database.write() as session:
            await session.execute(text("SET LOCAL session_replication_role = replica"))
            await session.execute(text(statement))

    for statement in ("TRUNCATE audit_entries", "TRUNCATE audit_head", "DELETE FROM audit_entries"):
        with pytest.raises(DBAPIError, match="append-only"):
            await run(statement)
    await database.close()


async def test_verify_audit_finds_an_entry_that_was_forged_with_a_hash_of_its_own(hosting: Hosting) -> None:
    for name in ("A", "B", "C"):
        await hosting.add_package(name)
    async with unguarded_audit(hosting.database) as session:
        row = (await session.scalars(select(AuditEntry).where(AuditEntry.number == 2))).one()
        row.target_name = "forged"
        row.hash = entry_hash(row)

    async with hosting.database.read() as session:
        report = await verify_chain(session)

    assert (report.first_bad_number, report.reason) == (3, "entry 3 does not continue entry 2")


async def test_verify_audit_reads_more_than_one_batch(hosting: Hosting) -> None:
    async def many(ctx: FleetContext) -> None:
        ctx.changes.extend(Change("test.note", f"test/{number}", "x") for number in range(1203))

    await hosting.operations.change(ADMIN, "r", many)

    report = await hosting.get("/audit/verify")
    assert (report["is_intact"], report["entries"]) == (True, 1203)


async def test_change_that_fails_after_its_notes_writes_none_of_them(hosting: Hosting) -> None:
    async def failing(ctx: FleetContext) -> None:
        ctx.changes.append(Change("test.note", "test/1", "x"))
        raise ConflictError("no")

    with pytest.raises(ConflictError):
        await hosting.operations.change(ADMIN, "r", failing)

    assert await hosting.count(AuditEntry) == 0


async def test_audit_is_not_for_clients(hosting: Hosting) -> None:
    client = Actor(kind="user", id="1", name="ada", role=Role.CLIENT)

    with pytest.raises(ForbiddenError):
        await hosting.operations.read(client, "r", verify_audit)
