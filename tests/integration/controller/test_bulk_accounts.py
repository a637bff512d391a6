"""One change of many accounts, each by itself."""

from __future__ import annotations

from typing import Any

import pytest

from controller.jobs.models import Job
from tests.integration.controller.hosting import Hosting

NOBODY = "0190f3c2-7b6e-7c3a-9d54-3f6f2a1b0c9d"


async def states(hosting: Hosting, ids: list[str]) -> list[str]:
    return [(await hosting.get(f"/accounts/{account_id}"))["state"] for account_id in ids]


async def test_bulk_suspend_does_each_by_itself_and_says_why_not(hosting: Hosting) -> None:
    ids = [await hosting.add_account(name) for name in ("ada", "bob", "eve")]
    await hosting.post(f"/accounts/{ids[1]}/suspend", {"reason": "before"}, expect=202)
    body = {"action": "suspend", "ids": [*ids, NOBODY], "suspension": {"reason": "unpaid", "liftable_by": "reseller"}}

    answer = await hosting.post("/accounts/bulk", body, expect=202)

    assert (answer["done"], answer["failed"]) == (2, 2)
    assert [item["error_code"] for item in answer["items"]] == [None, "conflict", None, "not_found"]
    assert [job["account_id"] for job in answer["jobs"]] == [ids[0], ids[2]]
    shown = [await hosting.get(f"/accounts/{account_id}") for account_id in ids]
    assert [account["suspension_reason"] for account in shown] == ["unpaid", "before", "unpaid"]
    assert shown[0]["liftable_by"] == "reseller"


async def test_bulk_goes_there_and_back(hosting: Hosting) -> None:
    ids = [await hosting.add_account(name) for name in ("ada", "bob")]
    seen = []

    for action in ("suspend", "unsuspend", "delete", "restore", "converge"):
        answer = await hosting.post("/accounts/bulk", {"action": action, "ids": ids}, expect=202)
        seen.append((answer["done"], len(answer["jobs"]), await states(hosting, ids)))

    assert seen == [
        (2, 2, ["suspended"] * 2),
        (2, 2, ["active"] * 2),
        (2, 2, ["trashed"] * 2),
        (2, 2, ["active"] * 2),
        (2, 2, ["active"] * 2),
    ]


async def test_bulk_label_by_filter_sets_and_takes_away(hosting: Hosting) -> None:
    ids = [await hosting.add_account(name) for name in ("zoe1", "zoe2", "bob")]
    await hosting.patch(f"/accounts/{ids[0]}", {"labels": {"plan": "gold", "vip": "yes"}}, expect=202)
    body = {"action": "label", "filter": {"search": "zoe"}, "labels": {"plan": "silver", "vip": None}}

    answer = await hosting.post("/accounts/bulk", body, expect=202)

    assert {item["account_id"] for item in answer["items"]} == set(ids[:2])
    labels = [(await hosting.get(f"/accounts/{account_id}"))["labels"] for account_id in ids]
    assert labels == [{"plan": "silver"}, {"plan": "silver"}, {}]
    assert answer["jobs"] == []


async def test_bulk_when_run_dry_plans_each_and_changes_nothing(hosting: Hosting) -> None:
    ids = [await hosting.add_account(name) for name in ("ada", "bob")]
    jobs = await hosting.count(Job)
    await hosting.delete(f"/accounts/{ids[1]}", expect=202)

    answer = await hosting.post("/accounts/bulk", {"action": "delete", "ids": ids}, expect=200, dry_run=True)

    assert [(item["is_done"], item["error_code"]) for item in answer["items"]] == [
        (True, None),
        (False, "account_trashed"),
    ]
    assert answer["items"][0]["plan"]["changes"][0]["action"] == "account.trash"
    assert await states(hosting, ids) == ["active", "trashed"]
    assert await hosting.count(Job) == jobs + 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"action": "converge", "ids": ["x"] * 501}, "ids"),
        ({"action": "converge", "ids": [NOBODY, NOBODY]}, "ids"),
        ({"action": "converge"}, "ids"),
        ({"action": "converge", "ids": [NOBODY], "filter": {"label": "a"}}, "ids"),
        ({"action": "converge", "filter": {}}, "filter"),
        ({"action": "converge", "filter": {"search": "nobody is called this"}}, "filter"),
        ({"action": "explode", "ids": [NOBODY]}, "action"),
        ({"action": "label", "ids": [NOBODY]}, "labels"),
        ({"action": "label", "ids": [NOBODY], "labels": {"Plan": "x"}}, "labels"),
        ({"action": "delete", "ids": [NOBODY], "grace_days": 91}, "grace_days"),
    ],
)
async def test_bulk_with_bad_input_names_the_field_before_any_work(
    hosting: Hosting, body: dict[str, Any], field: str
) -> None:
    assert await hosting.wrong_fields("POST", "/accounts/bulk", [(body, field)]) == []


async def test_bulk_of_a_million_is_refused_before_any_work(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    jobs = await hosting.count(Job)

    answer = await hosting.http.post(
        "/api/v1/accounts/bulk", json={"action": "delete", "ids": [account_id] * 1_000_000}
    )

    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
    assert await hosting.count(Job) == jobs
    assert await states(hosting, [account_id]) == ["active"]
