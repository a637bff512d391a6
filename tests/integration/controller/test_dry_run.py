"""Dry run: the whole answer and no trace."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import func, select

from controller.db.base import Model
from controller.fleet.models import Node
from shared.protocol.job import JobMode
from tests.integration.controller.hosting import Hosting


async def _snapshot(hosting: Hosting) -> dict[str, Any]:
    """How many rows each table has, and every number that counts upwards."""
    async with hosting.database.read() as session:
        counts = {
            table.name: await session.scalar(select(func.count()).select_from(table))
            for table in Model.metadata.sorted_tables
        }
        return {**counts, "uids": (await session.scalars(select(Node.next_uid).order_by(Node.id))).all()}


async def test_create_account_dry_run_shows_the_plan_and_leaves_no_row(hosting: Hosting) -> None:
    body = {"name": "ada", "client_id": await hosting.add_client(), "package_id": await hosting.add_package()}
    before = await _snapshot(hosting)

    plan = await hosting.post("/accounts", body, expect=200, dry_run=True)

    assert [(change["action"], change["target_name"]) for change in plan["changes"]] == [("account.create", "ada")]
    (node,) = plan["nodes"]
    assert node["subject"] == "account/ada"
    assert [(step["kind"], step["target"]) for step in node["changes"]] == [("create", "/etc/account/ada")]
    assert node["changes"][0]["diff"].startswith("---")
    assert node["reloads"] == ["nginx.service"]
    assert [request.mode for request in hosting.engine.planned] == [JobMode.PLAN]
    assert hosting.engine.notified == 0
    assert await _snapshot(hosting) == before


async def test_create_site_dry_run_plans_the_manifest_with_the_site(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    before = await _snapshot(hosting)

    body = {"account_id": account_id, "domain": "a.example", "php_version": "8.2"}
    plan = await hosting.post("/sites", body, expect=200, dry_run=True)

    assert [change["action"] for change in plan["changes"]] == ["domain.create", "site.create"]
    targets = [step["target"] for step in plan["nodes"][0]["changes"]]
    assert targets == ["/etc/account/ada", "/etc/php_pool/ada-8.2", "/etc/site/a.example"]
    assert await _snapshot(hosting) == before
    assert (await hosting.get(f"/accounts/{account_id}"))["desired_generation"] == 1


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/packages", {"name": "New"}),
        ("PATCH", "/packages/{package}", {"cpu_percent": 10}),
        ("DELETE", "/packages/{unused}", None),
        ("POST", "/clients", {"name": "New", "email": "new@example.com"}),
        ("PATCH", "/clients/{client}", {"name": "New"}),
        ("PATCH", "/accounts/{account}", {"package_id": "{unused}"}),
        ("POST", "/accounts/{account}/suspend", {}),
        ("POST", "/accounts/{account}/converge", None),
        ("DELETE", "/accounts/{account}", None),
        ("DELETE", "/accounts/{account}?grace_days=0", None),
        ("POST", "/domains", {"name": "new.example", "account_id": "{account}"}),
        ("PATCH", "/sites/{site}", {"document_root": "web"}),
        ("DELETE", "/sites/{site}", None),
    ],
)
async def test_dry_run_of_any_change_answers_200_and_changes_nothing(
    hosting: Hosting, method: str, path: str, body: Any
) -> None:
    account_id = await hosting.add_account("ada")
    account = await hosting.get(f"/accounts/{account_id}")
    names = {
        "account": account_id,
        "package": account["package_id"],
        "client": account["client_id"],
        "unused": await hosting.add_package("Unused"),
        "site": await hosting.add_site(account_id, "a.example"),
    }
    values = (
        {key: value.format(**names) if isinstance(value, str) else value for key, value in body.items()}
        if body is not None
        else None
    )
    before = await _snapshot(hosting), await hosting.get(f"/accounts/{account_id}"), await hosting.get("/sites")

    answer = await hosting.http.request(
        method, f"/api/v1{path.format(**names)}", json=values, params={"dry_run": "true"}
    )

    assert answer.status_code == 200, answer.text
    assert len(answer.json()["changes"]) == 1
    after = await _snapshot(hosting), await hosting.get(f"/accounts/{account_id}"), await hosting.get("/sites")
    assert after == before


async def test_dry_run_when_the_node_is_offline_is_unavailable(hosting: Hosting) -> None:
    account_id = await hosting.add_account("ada")
    hosting.engine.is_offline = True

    problem = await hosting.post(f"/accounts/{account_id}/suspend", {}, expect=503, dry_run=True)

    assert problem["code"] == "agent_offline"
    assert (await hosting.get(f"/accounts/{account_id}"))["state"] == "active"


async def test_dry_run_without_a_node_needs_no_node(hosting: Hosting) -> None:
    hosting.engine.is_offline = True

    plan = await hosting.post("/packages", {"name": "New"}, expect=200, dry_run=True)

    assert plan["nodes"] == []
    assert plan["changes"][0]["after"]["name"] == "New"


async def test_dry_run_with_bad_input_is_refused_like_the_real_change(hosting: Hosting) -> None:
    problem = await hosting.post("/packages", {"name": "New", "cpu_percent": -1}, expect=400, dry_run=True)

    assert problem["errors"][0]["field"] == "cpu_percent"


async def test_dry_run_that_is_no_yes_or_no_is_refused_and_changes_nothing(hosting: Hosting) -> None:
    before = await _snapshot(hosting)

    await hosting.post("/packages", {"name": "New"}, expect=400, dry_run="perhaps")

    assert await _snapshot(hosting) == before
