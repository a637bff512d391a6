"""The audit log as a file: what the API exports is proven offline by the code that the command line has."""

from __future__ import annotations

import csv
import io
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import DBAPIError

from controller.core.audit.chain import BATCH, entry_hash
from controller.core.audit.checkpoints import Checkpoints
from controller.core.audit.models import AuditCheckpoint, AuditEntry, AuditHead
from controller.core.context import Change
from controller.core.operations import FleetContext
from controller.db.base import utc_now
from controller.fleet.signing.signer import LocalSigner
from shared.audit_csv import parse_rows
from shared.audit_proof import GENESIS_HASH, parse_lines
from shared.audit_walk import ProofReport, verify_export
from shared.errors import RefusedError
from tests.integration.audit_triggers import unguarded_audit
from tests.integration.controller.hosting import ADMIN, Hosting

AN_EARLIER_ONE = (
    "INSERT INTO audit_checkpoints (number, hash, at, payload, kid, signature, id, created_at, updated_at) "
    "SELECT number - 1, hash, at, payload, kid, signature, 'x', created_at, updated_at FROM audit_checkpoints"
)
FORMULA = "=cmd|' /C calc'!A0"


async def export(hosting: Hosting, **query: Any) -> str:
    answer = await hosting.http.get("/api/v1/audit/export", params=query)
    assert answer.status_code == 200, answer.text
    return answer.content.decode()


def prove(hosting: Hosting, content: str, **options: Any) -> ProofReport:
    parse = parse_rows if content.startswith("kind,") else parse_lines
    return verify_export(parse(io.StringIO(content, newline="")), public_key=hosting.checkpoints.public_key, **options)


async def write_many(hosting: Hosting, count: int) -> None:
    async def many(ctx: FleetContext) -> None:
        ctx.changes.extend(Change("test.note", f"test/{number}", "x", after={"n": 1.5}) for number in range(count))

    await hosting.operations.change(ADMIN, "r", many)


async def forge(hosting: Hosting, number: int) -> None:
    """Change an entry and make the whole chain anew, as somebody with all rights on the database could."""
    async with unguarded_audit(hosting.database) as session:
        rows = list(await session.scalars(select(AuditEntry).order_by(AuditEntry.number)))
        rows[number - 1].target_name = "forged"
        previous = GENESIS_HASH
        for row in rows:
            row.previous_hash = previous
            row.hash = previous = entry_hash(row)
        await session.execute(update(AuditHead).values(hash=previous))


@pytest.mark.parametrize("file_format", ["jsonl", "csv"])
async def test_export_of_the_whole_log_is_proven_offline(hosting: Hosting, file_format: str) -> None:
    await hosting.add_package(FORMULA)
    await hosting.add_site(await hosting.add_account("ada"), "a.example")
    await hosting.checkpoints.make()
    await hosting.add_package("Bücher ✓\u2028")

    content = await export(hosting, format=file_format)
    report = prove(hosting, content)

    head = (await hosting.get("/audit", limit=1))["items"][0]
    assert (report.reason, report.last, report.head_hash) == ("", head["number"], head["hash"])
    assert (report.checkpoints, report.proven_until) == (1, head["number"] - 1)
    assert prove(hosting, content, expected_head=head["hash"]).reason == ""


async def test_export_as_csv_holds_no_cell_that_a_spreadsheet_runs(hosting: Hosting) -> None:
    await hosting.add_package(FORMULA)

    rows = list(csv.reader(io.StringIO(await export(hosting, format="csv"), newline="")))

    cells = [cell for row in rows for cell in row]
    assert f"'{FORMULA}" in cells
    assert [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))] == []


async def test_export_of_more_than_one_batch_is_whole(hosting: Hosting) -> None:
    await write_many(hosting, 2 * BATCH)

    report = prove(hosting, await export(hosting))

    assert (report.reason, report.entries) == ("", 2 * BATCH)


async def test_export_of_a_range_begins_and_ends_where_it_was_asked_to(hosting: Hosting) -> None:
    await write_many(hosting, 3)
    await hosting.checkpoints.make()
    await write_many(hosting, 5)

    report = prove(hosting, await export(hosting, first=4, last=6))

    assert (report.reason, report.first, report.last, report.checkpoints) == ("", 4, 6, 1)


async def test_export_of_a_selection_says_so_and_proves_each_entry(hosting: Hosting) -> None:
    await hosting.add_package("A")
    await hosting.add_client()

    report = prove(hosting, await export(hosting, action="client.create"))

    assert (report.reason, report.entries, report.is_filtered) == ("", 1, True)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"first": 0}, "first"),
        ({"first": 5, "last": 4}, "last"),
        ({"action": "a\nb"}, "action"),
        ({"since": "2026-01-01T00:00:00"}, "since"),
        ({"until": "9999-12-31T23:59:59Z"}, "until"),
        ({"format": "xml"}, "format"),
    ],
)
async def test_export_when_a_word_is_wrong_names_it_before_the_first_byte(
    hosting: Hosting, query: dict[str, Any], field: str
) -> None:
    answer = await hosting.get("/audit/export", expect=400, **query)

    assert [error["field"] for error in answer["errors"]] == [field]


async def test_export_of_a_log_that_was_written_anew_is_found_by_its_checkpoint(hosting: Hosting) -> None:
    await write_many(hosting, 5)
    await hosting.checkpoints.make()
    await forge(hosting, 2)

    report = prove(hosting, await export(hosting))
    online = await hosting.get("/audit/verify")

    assert report.reason == "entry 5 is not the one of the signed checkpoint: the log was written anew"
    assert (online["is_intact"], online["first_bad_number"], online["reason"]) == (False, 5, report.reason)


async def test_make_checkpoint_signs_once_for_each_end_of_the_log(hosting: Hosting) -> None:
    assert await hosting.checkpoints.make() is None
    await write_many(hosting, 2)
    assert await hosting.checkpoints.make() == "signed at entry 2"
    assert await hosting.checkpoints.make() is None
    await write_many(hosting, 1)
    assert await hosting.checkpoints.make() == "signed at entry 3"

    page = await hosting.get("/audit/checkpoints")

    assert [item["number"] for item in page["items"]] == [3, 2]
    verified = await hosting.get("/audit/verify")
    assert (verified["is_intact"], verified["checkpoints"]) == (True, 2)


async def test_make_checkpoint_when_the_log_was_written_anew_is_refused_by_the_signer(hosting: Hosting) -> None:
    await write_many(hosting, 3)
    await hosting.checkpoints.make()
    await forge(hosting, 2)
    async with unguarded_audit(hosting.database) as session:
        await session.execute(text("DELETE FROM audit_checkpoints"))

    with pytest.raises(RefusedError) as refused:
        await hosting.checkpoints.make()

    assert refused.value.code == "checkpoint_behind"


async def test_verify_audit_when_a_checkpoint_was_forged_finds_it(hosting: Hosting, tmp_path: Any) -> None:
    await write_many(hosting, 3)
    forger = LocalSigner(tmp_path / "other")
    forger.open()
    await Checkpoints(hosting.database, forger).make()

    report = await hosting.get("/audit/verify")

    assert (report["is_intact"], report["first_bad_number"]) == (False, 3)
    assert "is not signed by this controller's key" in report["reason"]


async def test_verify_audit_when_the_log_was_cut_off_behind_a_checkpoint_finds_it(hosting: Hosting) -> None:
    await write_many(hosting, 3)
    await hosting.checkpoints.make()
    async with unguarded_audit(hosting.database) as session:
        await session.execute(text("DELETE FROM audit_entries WHERE number = 3"))
        previous = await session.scalar(select(AuditEntry.hash).where(AuditEntry.number == 2))
        await session.execute(update(AuditHead).values(number=2, hash=previous))

    report = await hosting.get("/audit/verify")

    assert (report["is_intact"], report["reason"]) == (False, "the log ends at 2, and a checkpoint proves 3 entries")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_checkpoints SET hash = 'x'",
        "DELETE FROM audit_checkpoints",
        AN_EARLIER_ONE,
    ],
)
async def test_checkpoints_when_somebody_would_change_them_are_refused_by_the_database(
    hosting: Hosting, statement: str
) -> None:
    await write_many(hosting, 3)
    await hosting.checkpoints.make()

    with pytest.raises(DBAPIError, match="append-only"):
        async with hosting.database.write() as session:
            await session.execute(text(statement))

    assert await hosting.count(AuditCheckpoint) == 1


async def test_list_audit_when_a_tenant_is_named_shows_all_that_was_done_to_it(hosting: Hosting) -> None:
    ada = await hosting.add_account("ada")
    bob = await hosting.add_account("bob")
    await hosting.add_site(ada, "a.example")
    await hosting.add_site(bob, "b.example")
    client_id = (await hosting.get(f"/accounts/{ada}"))["client_id"]

    async def actions(**query: Any) -> list[str]:
        return [entry["action"] for entry in (await hosting.get("/audit", **query))["items"]]

    assert await actions(account_id=ada) == ["site.create", "domain.create", "account.create"]
    assert await actions(client_id=client_id) == ["site.create", "domain.create", "account.create", "client.create"]
    assert prove(hosting, await export(hosting, account_id=ada)).entries == 3


async def test_list_audit_filters_by_time_address_and_request(hosting: Hosting) -> None:
    await hosting.add_package("A")
    entry = (await hosting.get("/audit"))["items"][0]
    now = utc_now()

    async def count(**query: Any) -> int:
        return len((await hosting.get("/audit", **query))["items"])

    assert await count(since=(now - timedelta(minutes=1)).isoformat()) == 1
    assert await count(since=(now + timedelta(minutes=1)).isoformat()) == 0
    assert await count(until=(now - timedelta(minutes=1)).isoformat()) == 0
    assert await count(until=(now + timedelta(minutes=1)).isoformat()) == 1
    assert await count(since=entry["at"], until=entry["at"]) == 0
    assert await count(address=entry["address"]) == 1
    assert await count(address="192.0.2.9") == 0
    assert await count(request_id=entry["request_id"]) == 1
    assert await count(request_id="other") == 0
