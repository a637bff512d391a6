"""Accounts and clients change hands; both sides find it in the audit log, and nobody keeps access."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from controller.core.context import Role
from controller.core.tenancy.models import AccountMember
from tests.integration.controller.hosting import Hosting
from tests.integration.controller.reselling import API, Shop, open_shop, sign_in


async def actions_of(shop: Shop) -> list[str]:
    """What the reseller's audit log says of transfers."""
    items = (await shop.ask("GET", "/audit", expect=200))["items"]
    return [item["action"] for item in items if item["action"].split(".")[1] in ("transfer", "lose", "lose_client")]


async def test_transfer_account_between_resellers_moves_all_it_has_and_both_sides_know(hosting: Hosting) -> None:
    shop, other = await open_shop(hosting), await open_shop(hosting, "other")
    account_id = await shop.add_account("ada", await hosting.add_package("Starter"))
    site_id = await hosting.add_site(account_id, "a.example")

    body = {"client_id": other.client_id}
    moved = await hosting.post(f"/accounts/{account_id}/transfer", body, expect=202)
    await hosting.post(f"/accounts/{account_id}/transfer", body, expect=409)

    assert (moved["resource"]["client_id"], moved["jobs"]) == (other.client_id, [])
    for path in (f"/accounts/{account_id}", f"/sites/{site_id}", f"/accounts/{account_id}/usage"):
        await shop.ask("GET", path, expect=404)
        await other.ask("GET", path, expect=200)
    assert (await actions_of(shop), await actions_of(other)) == (["account.lose"], ["account.transfer"])
    shown = (await other.ask("GET", "/audit", expect=200, action="account.transfer"))["items"][0]
    assert shop.client_id not in str(shown)


async def test_transfer_account_to_a_foreign_client_is_for_administrators(hosting: Hosting) -> None:
    shop, other = await open_shop(hosting), await open_shop(hosting, "other")
    account_id = await shop.add_account("ada", await hosting.add_package("Starter"))
    own = await shop.ask("POST", "/clients", {"name": "Own", "email": "o@example.com"}, expect=201)
    headers = await sign_in(hosting, "ada", Role.CLIENT, client_id=shop.client_id)

    for path in ("transfer", "transfer-preview"):
        body = {"client_id": other.client_id}
        await shop.ask("POST", f"/accounts/{account_id}/{path}", body, expect=400)
        await other.ask("POST", f"/accounts/{account_id}/{path}", body, expect=404)
        refused = await hosting.http.post(f"{API}/accounts/{account_id}/{path}", json=body, headers=headers)
        assert refused.status_code == 403
    moved = await shop.ask("POST", f"/accounts/{account_id}/transfer", {"client_id": own["id"]}, expect=202)

    assert moved["resource"]["client_id"] == own["id"]


async def test_transfer_account_takes_access_from_team_members_and_the_preview_names_them(hosting: Hosting) -> None:
    shop, other = await open_shop(hosting), await open_shop(hosting, "other")
    account_id = await shop.add_account("ada", await hosting.add_package("Starter"))
    headers = await sign_in(hosting, "bob", Role.MEMBER, client_id=shop.client_id)
    user_id = (await hosting.http.get(f"{API}/auth/me", headers=headers)).json()["id"]
    async with hosting.database.write() as session:
        session.add(AccountMember(user_id=user_id, account_id=account_id))
    assert (await hosting.http.get(f"{API}/accounts/{account_id}", headers=headers)).status_code == 200

    body = {"client_id": other.client_id}
    preview = await hosting.post(f"/accounts/{account_id}/transfer-preview", body, expect=200)
    await hosting.post(f"/accounts/{account_id}/transfer", body, expect=202)

    assert preview["is_possible"] and preview["is_between_resellers"]
    assert [(item["username"], item["tokens"]) for item in preview["lost_access"]] == [("bob", 1), ("shop.boss", 1)]
    assert (await hosting.http.get(f"{API}/accounts/{account_id}", headers=headers)).status_code == 404
    async with hosting.database.read() as session:
        assert (await session.scalars(select(AccountMember))).all() == []


async def test_transfer_account_whose_package_is_not_sold_there_needs_another(hosting: Hosting) -> None:
    shop, other = await open_shop(hosting), await open_shop(hosting, "other", caps={"mailboxes": 5})
    own = await shop.ask("POST", "/packages", {"name": "Own"}, expect=201)
    starter_id = await hosting.add_package("Starter", limits={"mailboxes": 5}, processes_max=50)
    large_id = await hosting.add_package("Large", limits={"mailboxes": 6})
    account_id = await shop.add_account("ada", own["id"])
    path, body = f"/accounts/{account_id}/transfer", {"client_id": other.client_id}

    preview = await hosting.post(f"{path}-preview", body, expect=200)
    refused = await hosting.post(path, body, expect=409)
    full = await hosting.post(path, {**body, "package_id": large_id}, expect=409)
    cases: list[tuple[Any, str]] = [({**body, "package_id": other.client_id}, "package_id"), ({}, "client_id")]
    assert await hosting.wrong_fields("POST", path, cases) == []
    possible = await hosting.post(f"{path}-preview", {**body, "package_id": starter_id}, expect=200)
    assert (await hosting.get(f"/accounts/{account_id}"))["client_id"] == shop.client_id
    moved = await hosting.post(path, {**body, "package_id": starter_id}, expect=202)

    assert [item["code"] for item in preview["obstacles"]] == ["package_not_sold"]
    assert (refused["code"], full["code"], possible["is_possible"]) == ("package_not_sold", "quota_exceeded", True)
    assert full["quota"] == {"limit": "mailboxes", "used": 0, "allowed": 5}
    assert (moved["resource"]["package_id"], len(moved["jobs"])) == (starter_id, 1)


async def test_transfer_client_takes_accounts_and_people_to_the_other_reseller(hosting: Hosting) -> None:
    shop, other = await open_shop(hosting), await open_shop(hosting, "other", caps={"accounts": 1, "clients": 2})
    own = await shop.ask("POST", "/packages", {"name": "Own"}, expect=201)
    starter_id = await hosting.add_package("Starter")
    account_id = await shop.add_account("ada", own["id"])
    path, body = f"/clients/{shop.client_id}/transfer", {"reseller_id": other.id}

    await shop.ask("POST", path, body, expect=403)
    refused = await hosting.post(path, body, expect=409)
    moved = await hosting.post(path, {**body, "package_id": starter_id}, expect=202)

    assert (refused["code"], moved["resource"]["reseller_id"]) == ("package_not_sold", other.id)
    await shop.ask("GET", f"/clients/{shop.client_id}", expect=404)
    await shop.ask("GET", f"/accounts/{account_id}", expect=404)
    assert (await other.ask("GET", f"/accounts/{account_id}", expect=200))["package_id"] == starter_id
    assert (await actions_of(shop), await actions_of(other)) == (["reseller.lose_client"], ["client.transfer"])


async def test_transfer_client_beyond_a_cap_is_refused_and_changes_nothing(hosting: Hosting) -> None:
    shop, other = await open_shop(hosting), await open_shop(hosting, "other", caps={"accounts": 1})
    starter_id = await hosting.add_package("Starter")
    for name in ("ada", "bob"):
        await shop.add_account(name, starter_id)

    problem = await hosting.post(f"/clients/{shop.client_id}/transfer", {"reseller_id": other.id}, expect=409)
    await hosting.post(f"/resellers/{other.id}/suspend", {}, expect=200)
    suspended = await hosting.post(f"/clients/{shop.client_id}/transfer", {"reseller_id": other.id}, expect=409)
    taken = await hosting.post(f"/clients/{shop.client_id}/transfer", {"reseller_id": None}, expect=202)

    assert problem["quota"] == {"limit": "accounts", "used": 0, "allowed": 1}
    assert (suspended["code"], taken["resource"]["reseller_id"]) == ("reseller_suspended", None)
