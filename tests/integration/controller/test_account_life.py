"""Accounts that are deleted, restored and gone; suspensions with an end; labels and notes."""

from __future__ import annotations

import asyncio
import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import DBAPIError

from controller.core.accounts.models import Account, DeletionCertificate
from controller.core.accounts.upkeep import AccountUpkeep
from controller.core.audit.models import AuditEntry
from controller.fleet.models import Node, NodeState
from controller.jobs.models import Job
from shared.specs.base import Presence
from tests.integration.audit_triggers import unguarded_audit
from tests.integration.controller.hosting import Hosting

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


async def let_pass(hosting: Hosting, account_id: str, **columns: Any) -> None:
    """The time of the account comes."""
    async with hosting.database.write() as session:
        await session.execute(update(Account).where(Account.id == account_id).values(**columns))


async def actions_of(hosting: Hosting, account_id: str) -> list[str]:
    async with hosting.database.read() as session:
        statement = select(AuditEntry.action).where(AuditEntry.target == f"account/{account_id}")
        return list(await session.scalars(statement.order_by(AuditEntry.number)))


async def test_delete_account_takes_it_out_of_service_and_keeps_everything(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    await hosting.add_site(account_id, "a.example")
    await hosting.finish(account_id)
    earliest = datetime.now(UTC) + timedelta(days=7)

    answer = await hosting.delete(f"/accounts/{account_id}", expect=202)
    manifest = await hosting.last_manifest(account_id)
    await hosting.finish(account_id)

    account = answer["resource"]
    assert account["state"] == "trashed"
    assert earliest <= datetime.fromisoformat(account["purge_at"]) <= datetime.now(UTC) + timedelta(days=7)
    assert (manifest.presence, {spec.key for spec in manifest.specs}) == (
        Presence.DISABLED,
        {"account/ada", "site/a.example"},
    )
    assert (await hosting.get(f"/accounts/{account_id}"))["is_converged"]
    assert [item["name"] for item in (await hosting.get("/domains"))["items"]] == ["a.example"]
    assert [item["id"] for item in (await hosting.get("/accounts", state="trashed"))["items"]] == [account_id]
    await hosting.get(f"/accounts/{account_id}/deletion-certificate", expect=404)


async def test_account_in_the_trash_takes_no_change_and_keeps_its_name(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    body = {"name": "ada", "client_id": await hosting.add_client(), "package_id": await hosting.add_package()}
    await hosting.delete(f"/accounts/{account_id}", expect=202)

    refusals = [
        await hosting.post("/sites", {"account_id": account_id, "domain": "a.example"}, expect=409),
        await hosting.post(f"/accounts/{account_id}/suspend", {}, expect=409),
        await hosting.delete(f"/accounts/{account_id}", expect=409),
    ]

    assert {problem["code"] for problem in refusals} == {"account_trashed"}
    taken = await hosting.post("/accounts", body, expect=409)
    assert "in the trash" in taken["detail"]


async def test_restore_brings_back_what_ran_before(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    await hosting.add_site(account_id, "a.example")
    before = await hosting.get(f"/accounts/{account_id}")
    await hosting.delete(f"/accounts/{account_id}", expect=202)

    answer = await hosting.post(f"/accounts/{account_id}/restore", expect=202)

    after, manifest = answer["resource"], await hosting.last_manifest(account_id)
    assert (after["state"], after["uid"], after["name"], after["purge_at"]) == ("active", before["uid"], "ada", None)
    assert after["desired_generation"] == before["desired_generation"] + 2
    assert (manifest.presence, len(manifest.specs)) == (Presence.ENABLED, 2)
    await hosting.post(f"/accounts/{account_id}/restore", expect=409)
    assert await AccountUpkeep(hosting.operations).run() is None


async def test_restore_of_an_account_that_was_suspended_leaves_it_suspended(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    await hosting.post(f"/accounts/{account_id}/suspend", {"reason": "unpaid"}, expect=202)
    await hosting.delete(f"/accounts/{account_id}", expect=202)

    restored = (await hosting.post(f"/accounts/{account_id}/restore", expect=202))["resource"]

    assert (restored["state"], restored["suspension_reason"]) == ("suspended", "unpaid")
    assert (await hosting.last_manifest(account_id)).presence is Presence.DISABLED


@pytest.mark.parametrize("days", [-1, 91, 10**9])
async def test_delete_account_with_a_grace_that_is_none_is_bad_input(hosting: Hosting, days: int) -> None:
    account_id = await hosting.add_account("ada")

    problem = await hosting.delete(f"/accounts/{account_id}", expect=400, grace_days=days)

    assert [error["field"] for error in problem["errors"]] == ["grace_days"]
    assert (await hosting.get(f"/accounts/{account_id}"))["state"] == "active"


async def test_delete_account_at_once_takes_one_from_the_trash(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    await hosting.delete(f"/accounts/{account_id}", expect=202)

    answer = await hosting.delete(f"/accounts/{account_id}", expect=202, grace_days=0)

    assert answer["resource"]["state"] == "deleting"
    await hosting.post(f"/accounts/{account_id}/restore", expect=409)


async def test_upkeep_when_the_grace_is_over_purges_once_with_several_processes(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    young_id = await hosting.add_account("bob")
    for one in (account_id, young_id):
        await hosting.delete(f"/accounts/{one}", expect=202)
    await let_pass(hosting, account_id, purge_at=LONG_AGO)
    jobs = await hosting.count(Job)

    await asyncio.gather(*(AccountUpkeep(hosting.operations).run() for _ in range(3)))

    assert (await hosting.get(f"/accounts/{account_id}"))["state"] == "deleting"
    assert (await hosting.get(f"/accounts/{young_id}"))["state"] == "trashed"
    assert await hosting.count(Job) == jobs + 1
    assert await actions_of(hosting, account_id) == ["account.create", "account.trash", "account.delete"]


async def gone(hosting: Hosting) -> str:
    """An account that was purged, and whose node has removed it."""
    account_id = await hosting.add_account("ada")
    await hosting.add_site(account_id, "a.example", aliases=["www.a.example"])
    await hosting.finish(account_id)
    await hosting.delete(f"/accounts/{account_id}", expect=202)
    await let_pass(hosting, account_id, purge_at=LONG_AGO)
    await AccountUpkeep(hosting.operations).run()
    await hosting.finish(account_id)
    return account_id


async def test_certificate_when_the_account_is_gone_says_what_was_removed(hosting: Hosting) -> None:
    account_id = await gone(hosting)
    job = await hosting.last_job(account_id)
    await AccountUpkeep(hosting.operations).run()

    shown = await hosting.get(f"/accounts/{account_id}/deletion-certificate")

    content = shown["content"]
    assert content["account"]["name"] == "ada"
    assert content["domains"] == ["a.example", "www.a.example"]
    assert (content["sites"], content["homes"]) == (["a.example"], ["/srv/accounts/ada"])
    assert content["proof"] == {"kind": "job", "job_id": job.id, "generation": job.generation}
    assert (content["asked_by_name"], content["node"]["name"]) == ("root", "node1")
    text = json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(text.encode()).hexdigest() == shown["content_hash"]
    assert (shown["is_verified"], shown["problem"]) == (True, "")
    assert (await hosting.get("/audit/verify"))["is_intact"]


async def test_certificate_has_one_place_in_the_audit_log_with_several_processes(hosting: Hosting) -> None:
    account_id = await gone(hosting)
    assert (await hosting.get(f"/accounts/{account_id}/deletion-certificate"))["audit"] is None

    await asyncio.gather(*(AccountUpkeep(hosting.operations).run() for _ in range(3)))

    assert (await actions_of(hosting, account_id)).count("account.certify_deletion") == 1
    shown = await hosting.get(f"/accounts/{account_id}/deletion-certificate")
    async with hosting.database.read() as session:
        statement = select(AuditEntry).where(AuditEntry.number == shown["audit"]["number"])
        entry = (await session.scalars(statement)).one()
    assert (entry.hash, entry.after["certificate_hash"]) == (shown["audit"]["hash"], shown["content_hash"])


@pytest.mark.parametrize("is_hash_made_anew", [False, True])
async def test_certificate_when_somebody_edited_it_is_not_verified(
    hosting: Hosting, *, is_hash_made_anew: bool
) -> None:
    account_id = await gone(hosting)
    await AccountUpkeep(hosting.operations).run()
    async with unguarded_audit(hosting.database) as session:
        row = (await session.scalars(select(DeletionCertificate))).one()
        row.content = {**row.content, "domains": []}
        if is_hash_made_anew:
            text = json.dumps(row.content, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
            row.content_hash = hashlib.sha256(text.encode()).hexdigest()

    shown = await hosting.get(f"/accounts/{account_id}/deletion-certificate")

    assert not shown["is_verified"]
    assert shown["problem"]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE deletion_certificates SET content_hash = 'x'",
        "UPDATE deletion_certificates SET content = '{}'",
        "UPDATE deletion_certificates SET audit_number = 1, audit_hash = 'x', account_id = 'x'",
        "UPDATE deletion_certificates SET audit_number = 1",
        "UPDATE deletion_certificates SET created_at = updated_at, audit_hash = 'x'",
        "DELETE FROM deletion_certificates",
    ],
)
@pytest.mark.parametrize("is_sealed", [False, True])
async def test_certificate_when_somebody_would_change_it_is_refused_by_the_database(
    hosting: Hosting, statement: str, *, is_sealed: bool
) -> None:
    account_id = await gone(hosting)
    if is_sealed:
        await AccountUpkeep(hosting.operations).run()
    before = await hosting.get(f"/accounts/{account_id}/deletion-certificate")

    with pytest.raises(DBAPIError, match="append-only"):
        async with hosting.database.write() as session:
            await session.execute(text(statement))

    assert await hosting.get(f"/accounts/{account_id}/deletion-certificate") == before


async def test_certificate_when_its_place_is_noted_keeps_it(hosting: Hosting) -> None:
    await gone(hosting)
    await AccountUpkeep(hosting.operations).run()

    for statement in (
        "UPDATE deletion_certificates SET audit_number = 1, audit_hash = 'x'",
        "UPDATE deletion_certificates SET audit_number = NULL, audit_hash = NULL",
    ):
        with pytest.raises(DBAPIError, match="append-only"):
            async with hosting.database.write() as session:
                await session.execute(text(statement))


async def test_certificate_when_a_superuser_of_postgresql_asks_is_refused_all_the_same(hosting: Hosting) -> None:
    await gone(hosting)
    is_sqlite = hosting.database.is_sqlite  # it has neither a superuser nor TRUNCATE; REPLACE is its way around DELETE
    copied = "INSERT OR REPLACE INTO deletion_certificates SELECT * FROM deletion_certificates"
    before = "SELECT 1" if is_sqlite else "SET LOCAL session_replication_role = replica"

    async def run(statement: str) -> None:
        async with hosting.database.write() as session:
            await session.execute(text(before))
            await session.execute(text(statement))

    for statement in (copied if is_sqlite else "TRUNCATE deletion_certificates", "DELETE FROM deletion_certificates"):
        with pytest.raises(DBAPIError, match="append-only"):
            await run(statement)


async def test_certificate_of_an_account_on_a_revoked_node_says_that_nothing_is_proven(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    await hosting.add_site(account_id, "a.example")
    async with hosting.database.write() as session:
        await session.execute(update(Node).values(state=NodeState.REVOKED))

    await hosting.delete(f"/accounts/{account_id}", expect=202)

    content = (await hosting.get(f"/accounts/{account_id}/deletion-certificate"))["content"]
    assert (content["proof"]["kind"], content["sites"], content["domains"]) == ("none", ["a.example"], ["a.example"])


async def test_suspension_says_who_and_until_when_and_ends_by_itself(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    until = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    body = {"reason": "unpaid", "until": until, "liftable_by": "client"}

    suspended = (await hosting.post(f"/accounts/{account_id}/suspend", body, expect=202))["resource"]
    early = await AccountUpkeep(hosting.operations).run()
    await let_pass(hosting, account_id, suspended_until=LONG_AGO)
    await asyncio.gather(*(AccountUpkeep(hosting.operations).run() for _ in range(2)))

    account = await hosting.get(f"/accounts/{account_id}")
    assert (suspended["liftable_by"], suspended["suspended_by"][:5]) == ("client", "user/")
    assert early is None
    assert (account["state"], account["suspended_until"], account["liftable_by"]) == ("active", None, None)
    assert await actions_of(hosting, account_id) == ["account.create", "account.suspend", "account.unsuspend"]


async def test_suspension_with_bad_input_names_the_field(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")

    wrong = await hosting.wrong_fields(
        "POST",
        f"/accounts/{account_id}/suspend",
        [({"until": LONG_AGO.isoformat()}, "until"), ({"liftable_by": "nobody"}, "liftable_by")],
    )

    assert wrong == []


async def test_labels_are_kept_and_found(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    await hosting.add_account("bob")

    answer = await hosting.patch(f"/accounts/{account_id}", {"labels": {"plan": "gold", "vip": ""}}, expect=202)
    again = await hosting.patch(f"/accounts/{account_id}", {"labels": {"plan": "gold", "vip": ""}}, expect=202)

    assert (answer["resource"]["labels"], answer["jobs"]) == ({"plan": "gold", "vip": ""}, [])
    assert again["resource"] == answer["resource"]
    for label, found in (("plan=gold", [account_id]), ("vip", [account_id]), ("plan=silver", []), ("plan=", [])):
        assert [item["id"] for item in (await hosting.get("/accounts", label=label))["items"]] == found


async def test_labels_with_bad_input_change_nothing(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    cases: list[tuple[Any, str]] = [
        ({"labels": {"Plan": "x"}}, "labels"),
        ({"labels": {"plan": "x\ny"}}, "labels.plan"),
        ({"labels": {"plan": "x" * 201}}, "labels.plan"),
        ({"labels": {f"k{number}": "" for number in range(33)}}, "labels"),
    ]

    assert await hosting.wrong_fields("PATCH", f"/accounts/{account_id}", cases) == []
    assert await hosting.wrong_fields("GET", "/accounts", [({"label": "No=x"}, "label")]) == []
    assert (await hosting.get(f"/accounts/{account_id}"))["labels"] == {}


async def test_search_finds_accounts_by_all_that_names_them(hosting: Hosting) -> None:
    account_id = await hosting.add_account("zoe")
    await hosting.add_account("bob")
    await hosting.add_site(account_id, "shop.example")
    await hosting.patch(f"/accounts/{account_id}", {"labels": {"plan": "gold"}}, expect=202)
    client_id = (await hosting.get(f"/accounts/{account_id}"))["client_id"]
    await hosting.patch(f"/clients/{client_id}", {"name": "Grace Hopper"}, expect=200)
    await hosting.http.put(f"/api/v1/accounts/{account_id}/note", json={"text": "Asks for\na discount."})

    for word in ("ZOE", "shop.ex", "gold", "hopper", "discount"):
        assert [item["id"] for item in (await hosting.get("/accounts", search=word))["items"]] == [account_id], word
    assert (await hosting.get("/accounts", search="nothing like it"))["items"] == []


async def test_note_is_kept_and_never_told(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")

    written = await hosting.http.put(f"/api/v1/accounts/{account_id}/note", json={"text": " Owes us\r\nmoney. "})

    assert written.json() == {"text": "Owes us\nmoney."}
    assert await hosting.get(f"/accounts/{account_id}/note") == written.json()
    assert "Owes" not in json.dumps(await hosting.get(f"/accounts/{account_id}"))
    assert "Owes" not in json.dumps(await hosting.get("/audit"))
    cases: list[tuple[Any, str]] = [({"text": "x" * 2001}, "text"), ({"text": "x\x00"}, "text")]
    assert await hosting.wrong_fields("PUT", f"/accounts/{account_id}/note", cases) == []
