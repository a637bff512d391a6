"""Ignoring and adopting findings over HTTP: what is refused, and what is told about the rest."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from controller.bootstrap import Controller
from controller.fleet.models import DriftFindingRow, Node, NodeState

API = "/api/v1"
REASON = "Waits for the next release."


@pytest.fixture
async def node_id(controller: Controller) -> str:
    """An active node that never connects."""
    row = Node(
        name="web1", state=NodeState.ACTIVE, roles=["web"], machine_id_hash="m", sealing_public_key=b"", facts={}
    )
    async with controller.database.write() as session:
        session.add(row)
    return row.id


@pytest.fixture
async def finding_id(controller: Controller, node_id: str) -> str:
    """Something of the node itself."""
    now = datetime.now(UTC)
    row = DriftFindingRow(
        node_id=node_id, subject="node", key="module/web", summary="edited", found_at=now, checked_at=now
    )
    async with controller.database.write() as session:
        session.add(row)
    return row.id


def body(**options: float) -> dict[str, Any]:
    return {"until": (datetime.now(UTC) + timedelta(**options)).isoformat(), "reason": REASON}


async def listed(client: httpx.AsyncClient, query: str = "") -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await client.get(f"{API}/drift{query}")).json()["items"]
    return items


async def test_ignore_drift_shows_who_why_and_until_when(client: httpx.AsyncClient, finding_id: str) -> None:
    sent = body(days=7)

    answer = await client.post(f"{API}/drift/{finding_id}/ignore", json=sent)

    assert answer.status_code == 200, answer.text
    (shown,) = await listed(client, "?is_ignored=true")
    me = (await client.get(f"{API}/auth/me")).json()
    assert shown == answer.json()
    assert (shown["is_ignored"], shown["ignore_reason"]) == (True, REASON)
    assert shown["ignored_by"] == f"user/{me['id']}"
    assert datetime.fromisoformat(shown["ignored_until"]) == datetime.fromisoformat(sent["until"])
    assert await listed(client, "?is_ignored=false") == []
    (entry,) = (await client.get(f"{API}/audit?limit=1")).json()["items"]
    assert (entry["action"], entry["target_name"]) == ("drift.ignore", "node: module/web")


async def test_unignore_drift_opens_it_again_and_twice_is_once(client: httpx.AsyncClient, finding_id: str) -> None:
    await client.post(f"{API}/drift/{finding_id}/ignore", json=body(days=7))

    answers = [await client.post(f"{API}/drift/{finding_id}/unignore") for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    (shown,) = await listed(client, "?is_ignored=false")
    assert (shown["ignored_until"], shown["ignored_by"], shown["ignore_reason"]) == (None, "", "")


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        (body(days=91), "until"),
        (body(seconds=-1), "until"),
        ({"until": "2030-01-01T00:00:00", "reason": REASON}, "until"),
        ({**body(days=1), "reason": ""}, "reason"),
    ],
    ids=["too long", "past", "without a zone", "without a reason"],
)
async def test_ignore_drift_of_a_bad_field_names_it(
    client: httpx.AsyncClient, finding_id: str, sent: dict[str, Any], field: str
) -> None:
    answer = await client.post(f"{API}/drift/{finding_id}/ignore", json=sent)

    assert (answer.status_code, [error["field"] for error in answer.json()["errors"]]) == (400, [field])
    assert [item["is_ignored"] for item in await listed(client)] == [False]


async def test_ignore_drift_of_a_node_that_repairs_by_itself_is_refused(
    client: httpx.AsyncClient, node_id: str, finding_id: str
) -> None:
    await client.patch(f"{API}/nodes/{node_id}", json={"drift_policy": "repair"})

    answer = await client.post(f"{API}/drift/{finding_id}/ignore", json=body(days=7))

    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert "--drift-policy report" in answer.json()["hint"]


async def test_repair_by_policy_is_refused_while_something_is_ignored(
    client: httpx.AsyncClient, node_id: str, finding_id: str
) -> None:
    await client.post(f"{API}/drift/{finding_id}/ignore", json=body(days=7))

    refused = await client.patch(f"{API}/nodes/{node_id}", json={"drift_policy": "repair"})
    await client.post(f"{API}/drift/{finding_id}/unignore")
    accepted = await client.patch(f"{API}/nodes/{node_id}", json={"drift_policy": "repair"})

    assert (refused.status_code, refused.json()["code"], accepted.status_code) == (409, "conflict", 202)


async def test_ignore_drift_dry_run_ignores_nothing(client: httpx.AsyncClient, finding_id: str) -> None:
    answer = await client.post(f"{API}/drift/{finding_id}/ignore?dry_run=true", json=body(days=7))

    assert [change["action"] for change in answer.json()["changes"]] == ["drift.ignore"]
    assert [item["is_ignored"] for item in await listed(client)] == [False]


async def test_adopt_drift_of_another_kind_is_refused(client: httpx.AsyncClient, finding_id: str) -> None:
    answer = await client.post(f"{API}/drift/{finding_id}/adopt")

    assert (answer.status_code, answer.json()["code"]) == (409, "not_adoptable")
    assert "drift repair" in answer.json()["hint"]


async def test_drift_decisions_about_nothing_are_not_found(client: httpx.AsyncClient) -> None:
    for verb, sent in (("adopt", None), ("ignore", body(days=1)), ("unignore", None)):
        answer = await client.post(f"{API}/drift/nothing/{verb}", json=sent)
        assert (verb, answer.status_code) == (verb, 404)
