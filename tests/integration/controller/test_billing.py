"""The life of an account as a billing system drives it (docs/operations/billing.md), and the usage that it reads."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.integration.controller.hosting import Hosting


def window(**more: str) -> dict[str, str]:
    now = datetime.now(UTC)
    return {"begins_at": (now - timedelta(hours=1)).isoformat(), "ends_at": now.isoformat(), **more}


async def usage(hosting: Hosting, **more: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await hosting.get("/billing/usage", **window(**more)))["items"]
    return items


async def test_life_cycle_when_driven_by_billing_is_what_the_usage_says(hosting: Hosting) -> None:
    small, large = await hosting.add_package("Small"), await hosting.add_package("Large")
    client = await hosting.add_client()
    body = {"name": "ada", "client_id": client, "package_id": small}
    account = (await hosting.post("/accounts", body, expect=202))["resource"]["id"]
    await hosting.finish(account)
    await hosting.post(f"/accounts/{account}/suspend", {"reason": "unpaid"}, expect=202)
    await hosting.post(f"/accounts/{account}/unsuspend", expect=202)
    await hosting.patch(f"/accounts/{account}", {"package_id": large}, expect=202)
    await hosting.delete(f"/accounts/{account}", expect=202, grace_days=0)
    await hosting.finish(account)

    (found,) = await usage(hosting)

    seen = [(period["package_name"], period["state"]) for period in found["periods"]]
    assert seen == [
        ("Small", "active"), ("Small", "suspended"), ("Small", "active"), ("Large", "active"), ("Large", "deleting"),
    ]  # fmt: skip
    ends = [period["ends_at"] for period in found["periods"]]
    assert [period["begins_at"] for period in found["periods"]] == [found["created_at"], *ends[:-1]]
    assert ends[-1] == found["deleted_at"]
    assert (found["client_email"], found["state"]) == ("ada@example.com", "deleted")


async def test_create_when_repeated_after_a_lost_answer_makes_no_second_account(hosting: Hosting) -> None:
    account = await hosting.add_account("ada")
    view = await hosting.get(f"/accounts/{account}")
    body = {"name": "ada", "client_id": view["client_id"], "package_id": view["package_id"]}

    problem = await hosting.post("/accounts", body, expect=409)

    assert problem["code"] == "conflict"
    assert [item["account_id"] for item in await usage(hosting)] == [account]


async def test_usage_when_read_page_by_page_has_every_account_once(hosting: Hosting) -> None:
    accounts = {await hosting.add_account(name) for name in ("ada", "grace", "linus")}
    seen: list[str] = []
    query = window(limit="2")
    while True:
        page = await hosting.get("/billing/usage", **query)
        seen += [item["account_id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]

    assert (len(seen), set(seen)) == (3, accounts)


async def test_usage_when_one_client_is_asked_for_has_its_accounts_only(hosting: Hosting) -> None:
    await hosting.add_account("ada")
    grace = await hosting.add_account("grace")
    client_id = (await hosting.get(f"/accounts/{grace}"))["client_id"]

    assert [item["account_id"] for item in await usage(hosting, client_id=client_id)] == [grace]


async def test_usage_when_the_account_was_not_there_yet_leaves_it_out(hosting: Hosting) -> None:
    await hosting.add_account("ada")
    past = {"begins_at": "2020-01-01T00:00:00Z", "ends_at": "2020-02-01T00:00:00Z"}

    assert (await hosting.get("/billing/usage", **past))["items"] == []


@pytest.mark.parametrize(
    ("query", "field_name"),
    [
        ({"ends_at": "2999-01-01T00:00:00Z"}, "ends_at"),
        ({"begins_at": "2020-01-01T00:00:00Z"}, "ends_at"),
        ({"begins_at": "2026-01-02T00:00:00Z", "ends_at": "2026-01-01T00:00:00Z"}, "ends_at"),
        ({"begins_at": "yesterday"}, "begins_at"),
        ({"begins_at": "2026-01-02T00:00:00"}, "begins_at"),
        ({"client_id": "nobody"}, "client_id"),
    ],
)
async def test_usage_with_a_bad_period_names_the_field(
    hosting: Hosting, query: dict[str, str], field_name: str
) -> None:
    problem = await hosting.get("/billing/usage", expect=400, **(window() | query))

    assert [error["field"] for error in problem["errors"]] == [field_name]


async def test_usage_without_a_period_is_of_the_last_thirty_days(hosting: Hosting) -> None:
    account = await hosting.add_account("ada")

    page = await hosting.get("/billing/usage")

    length = datetime.fromisoformat(page["ends_at"]) - datetime.fromisoformat(page["begins_at"])
    assert (length, [item["account_id"] for item in page["items"]]) == (timedelta(days=30), [account])
