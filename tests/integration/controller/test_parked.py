"""Parked resources of every kind: one list, and the way out of each."""

from __future__ import annotations

from typing import Any

from shared.protocol.job import ErrorBody
from tests.integration.controller.hosting import Hosting

REFUSED = ErrorBody(
    code="command_failed",
    message="useradd failed with exit status 4: UID exists",
    hint="Look at the user.",
    context={
        "resource": "account/ada",
        "argv": ["/usr/sbin/useradd", "ada"],
        "exit_code": 4,
        "step": "ensure_user ada",
    },
)


async def parked(hosting: Hosting, **query: Any) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await hosting.get("/parked", **query))["items"]
    return items


async def park_site(hosting: Hosting) -> tuple[str, str]:
    """An account with a site that its node refused after it had served it; ids of both."""
    account_id = await hosting.add_account("ada")
    site_id = await hosting.add_site(account_id, "a.example")
    await hosting.finish(account_id)
    await hosting.patch(f"/sites/{site_id}", {"document_root": "web"}, expect=202)
    await hosting.finish(account_id, parked={"site/a.example": "unknown directive"})
    return account_id, site_id


async def test_parked_site_is_listed_with_the_nodes_words(hosting: Hosting) -> None:
    account_id, _ = await park_site(hosting)

    (row,) = await parked(hosting)

    assert (row["kind"], row["key"], row["subject"]) == ("site", "site/a.example", "account/ada")
    assert (row["account_id"], row["code"], row["message"]) == (account_id, "config_refused", "unknown directive")
    assert row["is_retrying"] is False
    assert (await hosting.get(f"/parked/{row['id']}"))["job_id"] == row["job_id"]
    assert await parked(hosting, kind="account") == []
    assert await parked(hosting, account_id=account_id) == [row]


async def test_parked_site_when_retried_is_wanted_again_and_goes_when_the_node_took_it(hosting: Hosting) -> None:
    account_id, site_id = await park_site(hosting)
    (row,) = await parked(hosting)

    answer = await hosting.post(f"/parked/{row['id']}/retry", expect=202)

    assert answer["resource"]["is_retrying"] is True
    assert (await hosting.get(f"/sites/{site_id}"))["state"] == "pending"
    await hosting.finish(account_id)
    assert await parked(hosting) == []
    actions = [entry["action"] for entry in (await hosting.get("/audit", limit=2))["items"]]
    assert sorted(actions) == ["parked.retry", "site.retry"]


async def test_parked_site_when_edited_is_tried_with_the_edit(hosting: Hosting) -> None:
    account_id, site_id = await park_site(hosting)

    await hosting.patch(f"/sites/{site_id}", {"document_root": "public/app"}, expect=202)
    await hosting.finish(account_id)

    assert await parked(hosting) == []
    assert (await hosting.get(f"/sites/{site_id}"))["state"] == "active"


async def test_parked_site_when_discarded_is_what_the_node_serves(hosting: Hosting) -> None:
    account_id, site_id = await park_site(hosting)
    (row,) = await parked(hosting)

    await hosting.post(f"/parked/{row['id']}/discard", expect=202)
    await hosting.finish(account_id)

    assert await parked(hosting) == []
    assert (await hosting.get(f"/sites/{site_id}"))["document_root"] == "public"


async def test_parked_account_tells_the_command_that_failed(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")

    await hosting.finish(account_id, error=REFUSED)

    (row,) = await parked(hosting)
    assert (row["kind"], row["key"], row["step"]) == ("account", "account/ada", "ensure_user ada")
    assert row["command"] == ["/usr/sbin/useradd", "ada"]
    assert row["hint"] == "Look at the user."


async def test_parked_account_when_retried_succeeds_and_is_parked_no_more(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    await hosting.finish(account_id, error=REFUSED)
    (row,) = await parked(hosting)

    await hosting.post(f"/parked/{row['id']}/retry", expect=202)
    await hosting.finish(account_id)

    assert await parked(hosting) == []


async def test_parked_account_when_discarded_gets_its_last_package_back(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada", memory_bytes=2**28)
    old = (await hosting.get(f"/accounts/{account_id}"))["package_id"]
    await hosting.finish(account_id)
    larger = await hosting.add_package("Larger", memory_bytes=2**30)
    await hosting.patch(f"/accounts/{account_id}", {"package_id": larger}, expect=202)
    await hosting.finish(account_id, error=REFUSED)
    (row,) = await parked(hosting)

    await hosting.post(f"/parked/{row['id']}/discard", expect=202)
    await hosting.finish(account_id)

    assert (await hosting.get(f"/accounts/{account_id}"))["package_id"] == old
    assert await parked(hosting) == []


async def test_parked_account_when_its_suspension_is_discarded_is_active(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    await hosting.finish(account_id)
    await hosting.post(f"/accounts/{account_id}/suspend", {"reason": "unpaid"}, expect=202)
    await hosting.finish(account_id, error=REFUSED)
    (row,) = await parked(hosting)

    await hosting.post(f"/parked/{row['id']}/discard", expect=202)

    account = await hosting.get(f"/accounts/{account_id}")
    assert (account["state"], account["suspension_reason"]) == ("active", "")


async def test_parked_account_when_the_old_limits_are_gone_says_what_to_change(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada", memory_bytes=2**28)
    package_id = (await hosting.get(f"/accounts/{account_id}"))["package_id"]
    await hosting.finish(account_id)
    await hosting.patch(f"/packages/{package_id}", {"memory_bytes": 2**30}, expect=202)
    await hosting.post(f"/accounts/{account_id}/converge", expect=202)
    await hosting.finish(account_id, error=REFUSED)
    (row,) = await parked(hosting)

    problem = await hosting.post(f"/parked/{row['id']}/discard", expect=409)

    assert problem["code"] == "not_discardable"
    assert "package" in problem["hint"]


async def test_parked_account_that_never_was_there_is_deleted_when_discarded(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    await hosting.finish(account_id, error=REFUSED)
    (row,) = await parked(hosting)

    await hosting.post(f"/parked/{row['id']}/discard", expect=202)

    assert (await hosting.get(f"/accounts/{account_id}"))["state"] == "deleting"


async def test_bulk_retry_answers_for_each_and_one_that_fails_stops_no_other(hosting: Hosting) -> None:
    await park_site(hosting)
    (row,) = await parked(hosting)

    result = await hosting.post("/parked/retry", {"ids": ["nothing", row["id"]]}, expect=202)

    assert (result["done"], result["failed"]) == (1, 1)
    assert [(item["is_done"], item["error_code"]) for item in result["items"]] == [(False, "not_found"), (True, None)]
    assert [job["id"] for job in result["jobs"]] == result["items"][1]["job_ids"]


async def test_bulk_retry_of_an_account_takes_all_of_it(hosting: Hosting) -> None:
    account_id, _ = await park_site(hosting)

    assert (await hosting.post("/parked/retry", {"account_id": account_id}, expect=202))["done"] == 1
    problem = await hosting.post("/parked/retry", {}, expect=400)
    assert problem["errors"][0]["field"] == "ids"


async def test_retry_when_dry_run_shows_the_plan_and_changes_nothing(hosting: Hosting) -> None:
    _, site_id = await park_site(hosting)
    (row,) = await parked(hosting)

    plan = await hosting.post(f"/parked/{row['id']}/retry", expect=200, dry_run="true")

    assert plan["nodes"][0]["changes"]
    assert (await hosting.get(f"/sites/{site_id}"))["state"] == "parked"
    assert (await parked(hosting)) == [row]
