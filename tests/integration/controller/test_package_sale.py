"""To whom packages are given: for whom they are made, and none to anybody once they are suspended."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.controller.hosting import Hosting


async def make_reseller(hosting: Hosting) -> tuple[str, str]:
    """A reseller and a client of theirs, by id."""
    reseller = await hosting.post("/resellers", {"name": "Rita's", "email": "rita@example.com"}, expect=201)
    body = {"name": "Their client", "email": "c@example.com", "reseller_id": reseller["id"]}
    client = await hosting.post("/clients", body, expect=201)
    return reseller["id"], client["id"]


async def test_suspended_package_when_asked_for_is_refused_and_its_accounts_go_on(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    account = await hosting.get(f"/accounts/{account_id}")
    package_id, client_id = account["package_id"], account["client_id"]
    other_id = await hosting.add_package("Other")
    moved = await hosting.post("/accounts", {"name": "bob", "client_id": client_id, "package_id": other_id}, expect=202)
    moved_id = moved["resource"]["id"]

    suspended = await hosting.post(f"/packages/{package_id}/suspend", expect=200)
    twice = await hosting.post(f"/packages/{package_id}/suspend", expect=409)
    new = {"name": "eve", "client_id": client_id, "package_id": package_id}
    refused = [
        await hosting.post("/accounts", new, expect=409),
        await hosting.patch(f"/accounts/{moved_id}", {"package_id": package_id}, expect=409),
        await hosting.post(f"/accounts/{account_id}/clone", {"name": "ada2"}, expect=409),
        await hosting.post("/accounts", new, expect=409, dry_run="true"),
    ]
    edited = await hosting.patch(f"/packages/{package_id}", {"memory_bytes": 512 * 1024 * 1024}, expect=202)
    await hosting.patch(f"/accounts/{account_id}", {"package_id": package_id, "labels": {"a": "b"}}, expect=202)

    assert suspended["is_suspended"] is True
    assert suspended["suspended_at"] is not None
    assert "already suspended" in twice["detail"]
    assert [one["code"] for one in refused] == ["package_suspended"] * 4
    assert all("unsuspend" in one["hint"] for one in refused)
    assert len(edited["jobs"]) == 1
    await hosting.post(f"/packages/{package_id}/unsuspend", expect=200)
    again = await hosting.post(f"/packages/{package_id}/unsuspend", expect=409)
    await hosting.post("/accounts", new, expect=202)
    assert "not suspended" in again["detail"]


async def test_packages_when_listed_say_which_are_suspended_and_for_whom_they_are(hosting: Hosting) -> None:
    plain, old = await hosting.add_package("Plain"), await hosting.add_package("Old", tier="admin")
    await hosting.post(f"/packages/{old}/suspend", expect=200)

    async def ids(**query: Any) -> set[str]:
        return {item["id"] for item in (await hosting.get("/packages", **query))["items"]}

    assert (await ids(is_suspended="true"), await ids(tier="admin")) == ({old}, {old})
    assert plain in await ids(is_suspended="false")
    assert old not in await ids(is_suspended="false")
    assert {plain, old} <= await ids()
    await hosting.get("/packages", tier="nobody", expect=400)


@pytest.mark.parametrize(
    ("tier", "of_the_platform", "of_a_reseller"), [("client", 202, 202), ("reseller", 400, 202), ("admin", 202, 400)]
)
async def test_tier_of_a_package_says_whose_accounts_get_it(
    hosting: Hosting, tier: str, of_the_platform: int, of_a_reseller: int
) -> None:
    _reseller_id, theirs = await make_reseller(hosting)
    ours = await hosting.add_client()
    package_id = await hosting.add_package("Made for some", tier=tier)

    async def give(name: str, client_id: str, expect: int) -> Any:
        body = {"name": name, "client_id": client_id, "package_id": package_id}
        return await hosting.post("/accounts", body, expect=expect)

    answers = [await give("ours", ours, of_the_platform), await give("theirs", theirs, of_a_reseller)]

    refused = [answer for answer in answers if "errors" in answer]
    assert len(refused) == [of_the_platform, of_a_reseller].count(400)
    assert all(answer["errors"][0]["field"] == "package_id" for answer in refused)


async def test_tier_when_it_changes_leaves_the_accounts_that_have_the_package(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    account = await hosting.get(f"/accounts/{account_id}")

    await hosting.patch(f"/packages/{account['package_id']}", {"tier": "reseller"}, expect=202)

    await hosting.post(f"/accounts/{account_id}/converge", expect=202)
    new = {"name": "eve", "client_id": account["client_id"], "package_id": account["package_id"]}
    await hosting.post("/accounts", new, expect=400)


async def test_client_when_transferred_keeps_no_package_that_is_not_made_for_its_new_owner(hosting: Hosting) -> None:
    _reseller_id, theirs = await make_reseller(hosting)
    package_id = await hosting.add_package("Wholesale", tier="reseller")
    body = {"name": "theirs", "client_id": theirs, "package_id": package_id}
    await hosting.post("/accounts", body, expect=202)

    refused = await hosting.post(f"/clients/{theirs}/transfer", {"reseller_id": None}, expect=409)

    assert refused["code"] == "package_not_sold"
