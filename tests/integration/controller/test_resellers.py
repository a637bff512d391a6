"""Resellers: what they may hand out is never passed, whoever asks at the same moment."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from controller.core.accounts.models import Account
from controller.core.clients.models import Client
from controller.core.context import Role
from controller.core.packages.models import Package
from controller.core.tenancy.models import Reseller
from shared.specs.account import GIB
from tests.integration.controller.hosting import Hosting
from tests.integration.controller.reselling import API, open_shop, sign_in


async def test_reseller_from_creation_to_deletion(hosting: Hosting) -> None:
    body = {"name": "Shop", "email": "a@example.com", "caps": {"accounts": 5}, "oversell": {"accounts": 1.5}}
    made = await hosting.post("/resellers", body, expect=201)
    path = f"/resellers/{made['id']}"
    changed = await hosting.patch(path, {"caps": {"disk_bytes": GIB, "accounts": None}}, expect=200)
    same = await hosting.patch(path, {"caps": {"disk_bytes": GIB}}, expect=200)
    await hosting.post("/resellers", body, expect=409)
    await hosting.delete(path, expect=204)

    assert (made["caps"], made["oversell"], made["over"]) == ({"accounts": 5}, {"accounts": 1.5}, [])
    assert changed["caps"] == {"disk_bytes": GIB}
    assert same == changed
    await hosting.get(path, expect=404)
    assert (await hosting.get("/resellers"))["items"] == []
    await hosting.post("/resellers", body, expect=201)


async def test_reseller_with_bad_input_names_the_field_and_changes_nothing(hosting: Hosting) -> None:
    good = {"name": "Shop", "email": "a@example.com"}
    cases: list[tuple[Any, str]] = [
        ({**good, "email": "a"}, "email"),
        ({**good, "name": "\t"}, "name"),
        ({**good, "caps": {"weather": 1}}, "caps.weather"),
        ({**good, "oversell": {"weather": 2}}, "oversell.weather"),
        ({**good, "packages_max": -1}, "packages_max"),
        ({**good, "suspended_at": "2026-01-01T00:00:00Z"}, "suspended_at"),
    ]

    assert await hosting.wrong_fields("POST", "/resellers", cases) == []
    for factor in (0.5, 100.5):
        await hosting.post("/resellers", {**good, "oversell": {"accounts": factor}}, expect=400)
    assert await hosting.count(Reseller) == 0


async def test_reseller_sees_itself_alone_and_changes_nothing_of_its_own_terms(hosting: Hosting) -> None:
    shop, other = await open_shop(hosting, caps={"accounts": 5}), await open_shop(hosting, "other")

    listed = await shop.ask("GET", "/resellers", expect=200)
    own = await shop.ask("GET", f"/resellers/{shop.id}", expect=200)

    assert [item["id"] for item in listed["items"]] == [shop.id]
    assert own["clients"] == 1
    await shop.ask("GET", f"/resellers/{other.id}", expect=404)
    await shop.ask("PATCH", f"/resellers/{shop.id}", {"caps": {"accounts": 500}}, expect=403)
    await shop.ask("PATCH", f"/resellers/{shop.id}", {"oversell": {"accounts": 2}}, expect=403)
    await shop.ask("POST", "/resellers", {"name": "Mine", "email": "m@example.com"}, expect=403)
    await shop.ask("POST", f"/resellers/{shop.id}/suspend", {}, expect=403)
    await shop.ask("POST", f"/resellers/{shop.id}/unsuspend", expect=403)
    await shop.ask("DELETE", f"/resellers/{shop.id}", expect=403)
    headers = await sign_in(hosting, "ada", Role.CLIENT, client_id=shop.client_id)
    for path in ("/resellers", f"/resellers/{shop.id}"):
        assert (await hosting.http.get(f"{API}{path}", headers=headers)).status_code == 403


async def test_delete_reseller_who_has_clients_is_a_conflict(hosting: Hosting) -> None:
    shop = await open_shop(hosting)
    package = await shop.ask("POST", "/packages", {"name": "Mine"}, expect=201)

    problem = await hosting.delete(f"/resellers/{shop.id}", expect=409)
    await hosting.delete(f"/clients/{shop.client_id}", expect=204)
    await hosting.delete(f"/resellers/{shop.id}", expect=204)

    assert "has 1 client" in problem["detail"]
    await hosting.get(f"/packages/{package['id']}", expect=404)
    await shop.ask("GET", "/packages", expect=401)


async def test_create_accounts_200_at_once_against_a_cap_of_100_gives_exactly_100(hosting: Hosting) -> None:
    shop = await open_shop(hosting, caps={"disk_bytes": 100 * GIB})
    package_id = await hosting.add_package("Starter", disk_bytes=GIB)
    bodies = [{"name": f"u{number}", "client_id": shop.client_id, "package_id": package_id} for number in range(200)]

    answers = await asyncio.gather(*(shop.insist("/accounts", body) for body in bodies))

    assert Counter(answer.status_code for answer in answers) == {202: 100, 409: 100}
    refused = [answer.json() for answer in answers if answer.status_code == 409]
    assert {problem["code"] for problem in refused} == {"quota_exceeded"}
    assert {tuple(problem["quota"].items()) for problem in refused} == {
        (("limit", "disk_bytes"), ("used", 100 * GIB), ("allowed", 100 * GIB))
    }
    assert await hosting.count(Account) == 100


async def test_create_clients_200_at_once_against_a_cap_of_100_gives_exactly_100(hosting: Hosting) -> None:
    shop = await open_shop(hosting, caps={"clients": 100})
    body = {"name": "Ada", "email": "a@example.com"}

    answers = await asyncio.gather(*(shop.insist("/clients", body) for _ in range(200)))

    assert Counter(answer.status_code for answer in answers) == {201: 99, 409: 101}
    assert await hosting.count(Client) == 100


async def test_oversell_when_an_administrator_sets_it_multiplies_the_cap(hosting: Hosting) -> None:
    shop = await open_shop(hosting, caps={"accounts": 1, "memory_bytes": GIB})
    package_id = await hosting.add_package("Starter", memory_bytes=GIB)
    await shop.add_account("a1", package_id)

    first = await shop.add_account("a2", package_id, expect=409)
    await hosting.patch(f"/resellers/{shop.id}", {"oversell": {"accounts": 2}}, expect=200)
    second = await shop.add_account("a2", package_id, expect=409)
    await hosting.patch(f"/resellers/{shop.id}", {"oversell": {"memory_bytes": 1.99}}, expect=200)
    await shop.add_account("a2", package_id, expect=409)
    await hosting.patch(f"/resellers/{shop.id}", {"oversell": {"memory_bytes": 2}}, expect=200)
    await shop.add_account("a2", package_id)

    assert (first["quota"]["limit"], second["quota"]["limit"]) == ("accounts", "memory_bytes")
    assert "may hand out 1 accounts, handed out 1, and this asks for 1 more" in first["detail"]


async def test_account_with_an_unlimited_package_is_refused_where_there_is_a_cap(hosting: Hosting) -> None:
    shop = await open_shop(hosting, caps={"mailboxes": 10})
    package_id = await hosting.add_package("Unlimited")

    problem = await shop.add_account("ada", package_id, expect=409)

    assert problem["code"] == "quota_exceeded"
    assert "no account may have any amount" in problem["detail"]
    assert await hosting.count(Account) == 0


async def test_cap_holds_for_another_package_an_edit_of_it_and_the_end_of_a_pin(hosting: Hosting) -> None:
    shop = await open_shop(hosting, caps={"mailboxes": 10})
    own = await shop.ask("POST", "/packages", {"name": "Own", "limits": {"mailboxes": 4}}, expect=201)
    large = await shop.ask("POST", "/packages", {"name": "Large", "limits": {"mailboxes": 8}}, expect=201)
    account_id = await shop.add_account("ada", own["id"])
    await shop.add_account("bob", own["id"])

    update = await shop.ask("PATCH", f"/accounts/{account_id}", {"package_id": large["id"]}, expect=409)
    edit = await shop.ask("PATCH", f"/packages/{own['id']}", {"limits": {"mailboxes": 6}}, expect=409)
    await shop.ask("POST", f"/accounts/{account_id}/package-version", {"version": 1}, expect=202)
    await shop.ask("PATCH", f"/packages/{own['id']}", {"limits": {"mailboxes": 6}}, expect=202)
    await hosting.patch(f"/resellers/{shop.id}", {"caps": {"mailboxes": 9}}, expect=200)
    unpin = await shop.ask("POST", f"/accounts/{account_id}/package-version", {"version": None}, expect=409)

    assert update["quota"] == edit["quota"] == {"limit": "mailboxes", "used": 8, "allowed": 10}
    assert unpin["quota"] == {"limit": "mailboxes", "used": 10, "allowed": 9}


async def test_cap_that_is_cut_is_shown_as_over_and_lets_nothing_new_in(hosting: Hosting) -> None:
    shop = await open_shop(hosting, caps={"mailboxes": 10})
    package_id = await hosting.add_package("Starter", limits={"mailboxes": 5})
    small_id = await hosting.add_package("Small", limits={"mailboxes": 4})
    account_id = await shop.add_account("ada", package_id)
    await shop.add_account("bob", package_id)

    planned = await hosting.patch(f"/resellers/{shop.id}", {"caps": {"mailboxes": 6}}, expect=200, dry_run=True)
    kept = await hosting.get(f"/resellers/{shop.id}")
    cut = await hosting.patch(f"/resellers/{shop.id}", {"caps": {"mailboxes": 6}}, expect=200)
    await shop.add_account("eve", small_id, expect=409)
    await shop.ask("PATCH", f"/accounts/{account_id}", {"package_id": small_id}, expect=202)
    told = [await hosting.get("/attention"), await shop.ask("GET", "/attention", expect=200)]
    other = await (await open_shop(hosting, "other")).ask("GET", "/attention", expect=200)

    assert planned["changes"][0]["after"]["over"] == ["mailboxes"]
    assert (kept["over"], cut["over"]) == ([], ["mailboxes"])
    assert [[item["id"] for item in page["items"]] for page in told] == [[f"reseller.{shop.id}"]] * 2
    assert other["items"] == []


async def test_package_that_an_administrator_edits_may_put_a_reseller_over(hosting: Hosting) -> None:
    shop = await open_shop(hosting, caps={"mailboxes": 10})
    package_id = await hosting.add_package("Starter", limits={"mailboxes": 10})
    await shop.add_account("ada", package_id)

    await hosting.patch(f"/packages/{package_id}", {"limits": {"mailboxes": 11}}, expect=202)

    assert (await hosting.get(f"/resellers/{shop.id}"))["over"] == ["mailboxes"]


async def test_packages_of_a_reseller_are_at_most_as_many_as_allowed(hosting: Hosting) -> None:
    shop = await open_shop(hosting, packages_max=2)
    first = await shop.ask("POST", "/packages", {"name": "One"}, expect=201)
    await hosting.post("/packages", {"name": "Two", "reseller_id": shop.id}, expect=201)

    problem = await shop.ask("POST", f"/packages/{first['id']}/clone", {"name": "Three"}, expect=409)

    assert problem["quota"] == {"limit": "packages", "used": 2, "allowed": 2}
    assert await hosting.count(Package) == 2


async def test_package_of_a_reseller_overrides_only_within_what_it_inherits_and_its_caps(hosting: Hosting) -> None:
    shop = await open_shop(hosting, caps={"mailboxes": 50})
    parent_id = await hosting.add_package("Starter", disk_bytes=GIB, limits={"mailboxes": 60, "sites": 3})
    good = {"name": "Mine", "parent_id": parent_id, "limits": {"mailboxes": 50}}
    cases = [
        ({**good, "disk_bytes": 2 * GIB}, "disk_bytes"),
        ({**good, "disk_bytes": None}, "disk_bytes"),
        ({**good, "limits": {"mailboxes": 51}}, "limits.mailboxes"),
        ({**good, "limits": {"mailboxes": 50, "sites": 4}}, "limits.sites"),
        ({**good, "flags": {"ssh": True}}, "flags.ssh"),
        ({**good, "tier": "admin"}, "tier"),
        ({"name": "Scratch"}, "limits.mailboxes"),
    ]

    for body, name in cases:
        problem = await shop.ask("POST", "/packages", body, expect=400)
        assert [error["field"] for error in problem["errors"]] == [name]
    mine = await shop.ask("POST", "/packages", {**good, "disk_bytes": GIB // 2}, expect=201)
    await shop.ask("PATCH", f"/packages/{mine['id']}", {"flags": {"ssh": True}}, expect=400)
    await shop.ask("PATCH", f"/packages/{parent_id}", {"disk_bytes": 3 * GIB}, expect=403)
    await hosting.patch(f"/packages/{mine['id']}", {"flags": {"ssh": True}}, expect=202)

    assert mine["reseller_id"] == shop.id
    assert await hosting.count(Package) == 2


async def test_owner_when_a_reseller_names_one_is_refused(hosting: Hosting) -> None:
    shop, other = await open_shop(hosting), await open_shop(hosting, "other")

    for reseller_id in (shop.id, other.id):
        body = {"name": "Ada", "reseller_id": reseller_id}
        await shop.ask("POST", "/clients", {**body, "email": "a@example.com"}, expect=403)
        await shop.ask("POST", "/packages", body, expect=403)

    bad = {"name": "Ada", "email": "a@example.com", "reseller_id": shop.client_id}
    assert await hosting.wrong_fields("POST", "/clients", [(bad, "reseller_id")]) == []
    assert (await hosting.count(Client), await hosting.count(Package)) == (2, 0)


async def test_account_gets_no_package_that_its_reseller_does_not_see(hosting: Hosting) -> None:
    shop, other = await open_shop(hosting), await open_shop(hosting, "other")
    good_id = await hosting.add_package("Starter")
    admin_id = await hosting.add_package("Internal", tier="admin")
    foreign = await other.ask("POST", "/packages", {"name": "Foreign"}, expect=201)
    account_id = await shop.add_account("ada", good_id)
    direct_id = await hosting.add_client()

    for package_id in (admin_id, foreign["id"]):
        body = {"name": "bob", "client_id": shop.client_id, "package_id": package_id}
        assert await hosting.wrong_fields("POST", "/accounts", [(body, "package_id")]) == []
        cases: list[tuple[Any, str]] = [({"package_id": package_id}, "package_id")]
        assert await hosting.wrong_fields("PATCH", f"/accounts/{account_id}", cases) == []
    body = {"name": "bob", "client_id": direct_id, "package_id": foreign["id"]}
    assert await hosting.wrong_fields("POST", "/accounts", [(body, "package_id")]) == []
    await hosting.post("/accounts", {**body, "package_id": admin_id}, expect=202)


async def test_reseller_who_is_suspended_is_shut_out_and_gets_nothing_new_until_it_is_lifted(hosting: Hosting) -> None:
    shop = await open_shop(hosting)
    package_id = await hosting.add_package("Starter")
    account_id = await shop.add_account("ada", package_id)

    suspended = await hosting.post(f"/resellers/{shop.id}/suspend", {"reason": "unpaid"}, expect=200)
    await hosting.post(f"/resellers/{shop.id}/suspend", {}, expect=409)
    await shop.ask("GET", "/accounts", None, expect=401)
    bob = {"name": "bob", "client_id": shop.client_id, "package_id": package_id}
    problem = await hosting.post("/accounts", bob, expect=409)
    ada = {"name": "Ada", "email": "a@example.com", "reseller_id": shop.id}
    await hosting.post("/clients", ada, expect=409)
    await hosting.post("/packages", {"name": "Mine", "reseller_id": shop.id}, expect=409)
    await hosting.post(f"/resellers/{shop.id}/unsuspend", expect=200)
    await hosting.post(f"/resellers/{shop.id}/unsuspend", expect=409)
    await shop.add_account("bob", package_id)

    assert (suspended["suspension_reason"], problem["code"]) == ("unpaid", "reseller_suspended")
    assert (await hosting.get(f"/accounts/{account_id}"))["state"] == "active"
