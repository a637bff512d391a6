"""Another package for many accounts, and the packages that a new controller begins with."""

from __future__ import annotations

from controller.core.packages.default_packages import ensure_default_packages
from tests.integration.controller.hosting import Hosting

MIB = 1024 * 1024


async def test_bulk_change_gives_each_account_the_package_or_says_why_not(hosting: Hosting) -> None:
    ids = [await hosting.add_account(name) for name in ("ada", "bob", "eve")]
    await hosting.add_site(ids[1], "a.example")
    package_id = await hosting.add_package("Tiny", memory_bytes=64 * MIB, limits={"sites": 0})
    body = {"account_ids": [*ids, "0190f3c2-7b6e-7c3a-9d54-3f6f2a1b0c9d"], "package_id": package_id}

    answer = await hosting.post("/accounts/bulk-package", body, expect=202)

    assert (answer["done"], answer["failed"]) == (2, 2)
    assert [item["error_code"] for item in answer["items"]] == [None, "quota_exceeded", None, "not_found"]
    assert [job["account_id"] for job in answer["jobs"]] == [ids[0], ids[2]]
    packages = [(await hosting.get(f"/accounts/{account_id}"))["package_id"] == package_id for account_id in ids]
    assert packages == [True, False, True]


async def test_bulk_change_when_run_dry_plans_each_and_changes_nothing(hosting: Hosting) -> None:
    ids = [await hosting.add_account(name) for name in ("ada", "bob")]
    await hosting.add_site(ids[1], "a.example")
    package_id = await hosting.add_package("Tiny", memory_bytes=64 * MIB, limits={"sites": 0})

    answer = await hosting.post(
        "/accounts/bulk-package", {"account_ids": ids, "package_id": package_id}, expect=200, dry_run=True
    )

    assert [(item["is_done"], item["error_code"]) for item in answer["items"]] == [
        (True, None), (False, "quota_exceeded"),
    ]  # fmt: skip
    assert answer["items"][0]["plan"]["nodes"][0]["changes"][0]["target"] == "/etc/account/ada"
    assert answer["jobs"] == []
    assert (await hosting.get(f"/accounts/{ids[0]}"))["package_id"] != package_id


async def test_bulk_change_of_too_many_or_twice_the_same_is_bad_input(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    package_id = await hosting.add_package("Other")

    for ids in ([], [account_id, account_id], ["x"] * 201):
        problem = await hosting.post(
            "/accounts/bulk-package", {"account_ids": ids, "package_id": package_id}, expect=400
        )
        assert [error["field"] for error in problem["errors"]] == ["account_ids"]


async def test_default_packages_are_made_once_and_not_again_when_deleted(hosting: Hosting) -> None:
    assert await ensure_default_packages(hosting.operations) == 3
    large, medium, small = (await hosting.get("/packages"))["items"]
    assert [item["name"] for item in (small, medium, large)] == ["Small", "Medium", "Large"]
    assert (medium["parent_id"], large["parent_id"]) == (small["id"], medium["id"])
    assert (large["flags"]["ssh"], large["flags"]["git"], medium["flags"]["git"]) == (True, True, False)

    for package in (large, medium, small):
        await hosting.delete(f"/packages/{package['id']}", expect=204)

    assert await ensure_default_packages(hosting.operations) == 0
    assert (await hosting.get("/packages"))["items"] == []
