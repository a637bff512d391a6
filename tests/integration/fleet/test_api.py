"""Nodes, enrolment, jobs, drift and modules over HTTP, against the whole application."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from sqlalchemy import select, update

from controller.bootstrap import Controller
from controller.fleet.models import DriftFindingRow, Node
from controller.jobs.models import Job
from controller.jobs.states import JobState
from tests.integration.fleet.agent import Machine

API = "/api/v1"


async def make_token(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    answer = await client.post(f"{API}/enrolment-tokens", json=body)
    assert answer.status_code == 201, answer.text
    token: dict[str, Any] = answer.json()
    return token


def write_bundle(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "install.sh").write_text("url=@CONTROLLER_URL@ sum=@BUNDLE_SHA256@ pin=@SERVER_PIN@ v=@VERSION@\n")
    (directory / "agent.tar.gz").write_bytes(b"a bundle")


async def post_enrol(client: httpx.AsyncClient, machine: Machine, token: str, **options: Any) -> httpx.Response:
    body = msgspec.to_builtins(machine.request(token, **options))
    return await client.post(f"{API}/enrol", json=body)


@pytest.fixture
async def node(client: httpx.AsyncClient) -> dict[str, Any]:
    """An active node."""
    token = await make_token(client, name="web1")
    answer = await post_enrol(client, Machine(), token["token"])
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = (await client.get(f"{API}/nodes/{answer.json()['node_id']}")).json()
    return found


async def test_create_enrolment_token_gives_the_whole_command(
    client: httpx.AsyncClient, controller: Controller
) -> None:
    made = await make_token(client, name="web1", roles=["web"], allowed_networks=["10.0.0.0/8"])

    pin = controller.fleet.server_certificate.pin
    assert made["command"] == (
        f"curl -fsS -k --pinnedpubkey 'sha256//{pin}' https://controller.test:8360/install.sh"
        f" | WCP360_TOKEN='{made['token']}' sh"
    )
    listed = (await client.get(f"{API}/enrolment-tokens")).json()["items"]
    assert [item["state"] for item in listed] == ["open"]
    assert made["token"].split(".")[2] not in str(listed)


async def test_create_enrolment_token_dry_run_makes_none(client: httpx.AsyncClient) -> None:
    answer = await client.post(f"{API}/enrolment-tokens?dry_run=true", json={})

    assert answer.status_code == 200
    assert [change["action"] for change in answer.json()["changes"]] == ["enrolment_token.create"]
    assert (await client.get(f"{API}/enrolment-tokens")).json()["items"] == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "../etc"}, "name"),
        ({"roles": ["king"]}, "roles"),
        ({"allowed_networks": ["everywhere"]}, "allowed_networks"),
        ({"ttl_minutes": 0}, "ttl_minutes"),
        ({"approval": "maybe"}, "approval"),
        ({"unknown": 1}, "unknown"),
    ],
)
async def test_create_enrolment_token_of_a_bad_field_names_it(
    client: httpx.AsyncClient, body: dict[str, Any], field: str
) -> None:
    answer = await client.post(f"{API}/enrolment-tokens", json=body)

    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"].startswith(field)


async def test_delete_enrolment_token_twice_is_not_found(client: httpx.AsyncClient) -> None:
    made = await make_token(client)
    assert (await client.delete(f"{API}/enrolment-tokens/{made['id']}")).status_code == 204
    assert (await client.delete(f"{API}/enrolment-tokens/{made['id']}")).status_code == 404


async def test_enrol_is_public_and_everything_else_is_not(
    anonymous_client: httpx.AsyncClient, client: httpx.AsyncClient
) -> None:
    token = (await make_token(client))["token"]

    answer = await post_enrol(anonymous_client, Machine(), token)

    assert answer.status_code == 200
    assert len(base64.b64decode(answer.json()["root_public_key"])) == 32
    for path in ("nodes", "jobs", "drift", "modules", "enrolment-tokens"):
        assert (await anonymous_client.get(f"{API}/{path}")).status_code == 401


async def test_enrol_refusal_is_a_problem_document_with_its_code(client: httpx.AsyncClient) -> None:
    token = (await make_token(client))["token"]
    await post_enrol(client, Machine(), token)

    answer = await post_enrol(client, Machine(), token)

    assert (answer.status_code, answer.json()["code"]) == (403, "token_used")


async def test_enrol_wrong_secret_is_counted_although_it_is_refused(client: httpx.AsyncClient) -> None:
    token = (await make_token(client))["token"]
    head, token_id, secret, pin = token.split(".")
    wrong = ".".join((head, token_id, "0" * len(secret), pin))

    assert (await post_enrol(client, Machine(), wrong)).status_code == 401

    assert (await client.get(f"{API}/enrolment-tokens")).json()["items"][0]["failures"] == 1


async def test_enrol_too_often_is_rate_limited(client: httpx.AsyncClient) -> None:
    token = f"e1.{'0' * 16}.{'0' * 64}.{'0' * 64}"
    statuses = [(await post_enrol(client, Machine(), token)).status_code for _ in range(8)]

    assert statuses[:5] == [401] * 5
    assert 429 in statuses[5:]


async def test_show_node_tells_what_is_wanted_and_what_was_said(
    client: httpx.AsyncClient, node: dict[str, Any]
) -> None:
    assert (node["name"], node["state"], node["roles"]) == ("web1", "active", ["web"])
    assert (node["desired_generation"], node["observed_generation"], node["is_connected"]) == (1, 0, False)
    assert node["certificate_not_after"] > datetime.now(UTC).isoformat()
    listed = (await client.get(f"{API}/nodes?search=WEB&state=active")).json()["items"]
    assert [item["id"] for item in listed] == [node["id"]]
    assert (await client.get(f"{API}/nodes/nobody")).status_code == 404


async def test_update_node_changes_what_is_given_only(client: httpx.AsyncClient, node: dict[str, Any]) -> None:
    answer = await client.patch(f"{API}/nodes/{node['id']}", json={"is_cordoned": True, "labels": {"rack": "7"}})

    assert answer.status_code == 202
    changed = answer.json()["resource"]
    assert (changed["is_cordoned"], changed["labels"], changed["roles"]) == (True, {"rack": "7"}, ["web"])
    assert answer.json()["jobs"] == []


async def test_update_node_drift_policy_goes_to_the_node(client: httpx.AsyncClient, node: dict[str, Any]) -> None:
    answer = await client.patch(f"{API}/nodes/{node['id']}", json={"drift_policy": "repair"})

    (job,) = answer.json()["jobs"]
    assert (job["resource_key"], job["generation"]) == ("node", 2)
    assert answer.headers["location"] == f"{API}/jobs/{job['id']}"


@pytest.mark.parametrize("body", [{"roles": ["king"]}, {"labels": {"A b": ""}}, {"is_cordoned": "yes"}, {"name": "x"}])
async def test_update_node_of_a_bad_field_changes_nothing(
    client: httpx.AsyncClient, node: dict[str, Any], body: dict[str, Any]
) -> None:
    answer = await client.patch(f"{API}/nodes/{node['id']}", json=body)

    assert answer.status_code == 400
    assert (await client.get(f"{API}/nodes/{node['id']}")).json() == node


async def test_revoke_then_delete_node_forgets_it(client: httpx.AsyncClient, node: dict[str, Any]) -> None:
    address = f"{API}/nodes/{node['id']}"
    assert (await client.delete(address)).status_code == 409

    revoked = await client.post(f"{address}/revoke")

    assert (revoked.status_code, revoked.json()["state"]) == (200, "revoked")
    assert revoked.json()["certificate_not_after"] is None
    assert (await client.post(f"{address}/revoke")).status_code == 409
    assert (await client.post(f"{address}/ping")).status_code == 409
    assert (await client.delete(address)).status_code == 204
    assert (await client.get(address)).status_code == 404


async def test_approve_over_http_follows_the_six_words(client: httpx.AsyncClient) -> None:
    token = (await make_token(client, approval="manual"))["token"]
    waiting = (await post_enrol(client, Machine(), token)).json()
    (node,) = (await client.get(f"{API}/nodes?state=pending")).json()["items"]
    assert node["fingerprint_words"] == waiting["fingerprint_words"]

    answer = await client.post(f"{API}/nodes/{node['id']}/approve")

    assert answer.status_code == 202
    assert answer.json()["resource"]["state"] == "active"
    assert len(answer.json()["jobs"]) == 1
    assert (await client.post(f"{API}/nodes/{node['id']}/reject")).status_code == 409


async def test_ping_node_answers_its_job(client: httpx.AsyncClient, node: dict[str, Any]) -> None:
    answer = await client.post(f"{API}/nodes/{node['id']}/ping")

    (job,) = answer.json()["jobs"]
    assert (job["action"], job["state"], job["is_final"]) == ("fleet.noop@1", "requested", False)


@pytest.mark.parametrize(
    ("verb", "presence"),
    [("install", "disabled"), ("enable", "enabled"), ("disable", "disabled"), ("remove", "absent")],
)
async def test_module_each_verb_picks_its_presence(
    client: httpx.AsyncClient, node: dict[str, Any], verb: str, presence: str
) -> None:
    address = f"{API}/nodes/{node['id']}/modules/web"
    assert (await client.get(f"{address}/status")).json()["presence"] == "enabled"

    answer = await client.post(f"{address}/{verb}")

    assert answer.status_code == 202
    assert answer.json()["resource"]["presence"] == presence
    assert len(answer.json()["jobs"]) == 1
    listed = (await client.get(f"{API}/nodes/{node['id']}/modules")).json()["items"]
    assert {item["name"]: item["presence"] for item in listed}["web"] == presence


async def test_set_module_of_an_unknown_one_is_not_found(client: httpx.AsyncClient, node: dict[str, Any]) -> None:
    answer = await client.put(f"{API}/nodes/{node['id']}/modules/gopher", json={"presence": "enabled"})

    assert answer.status_code == 404


async def test_dry_run_of_a_module_on_an_offline_node_says_so(client: httpx.AsyncClient, node: dict[str, Any]) -> None:
    answer = await client.post(f"{API}/nodes/{node['id']}/modules/web/remove?dry_run=true")

    assert (answer.status_code, answer.json()["code"]) == (503, "agent_offline")
    assert (await client.get(f"{API}/nodes/{node['id']}")).json()["desired_generation"] == 1


async def test_show_job_explains_it(client: httpx.AsyncClient, node: dict[str, Any]) -> None:
    (job,) = (await client.get(f"{API}/jobs?node_id={node['id']}")).json()["items"]

    shown = (await client.get(f"{API}/jobs/{job['id']}")).json()

    assert shown["state"] == "requested"
    assert shown["explanation"]["timeline"][0]["to_state"] == "requested"
    assert "node" in shown["explanation"]["rule"]
    assert (await client.get(f"{API}/jobs/nothing")).status_code == 404


async def test_cancel_retry_discard_over_http(
    client: httpx.AsyncClient, controller: Controller, node: dict[str, Any]
) -> None:
    ping = (await client.post(f"{API}/nodes/{node['id']}/ping")).json()["jobs"][0]["id"]

    cancelled = await client.post(f"{API}/jobs/{ping}/cancel")
    assert (cancelled.status_code, cancelled.json()["resource"]["state"]) == (202, "cancelled")
    assert (await client.post(f"{API}/jobs/{ping}/cancel")).status_code == 409
    retried = await client.post(f"{API}/jobs/{ping}/retry")
    assert retried.json()["resource"]["retry_of"] == ping
    assert (await client.post(f"{API}/jobs/{ping}/discard")).status_code == 409
    async with controller.database.write() as session:
        await session.execute(update(Job).where(Job.id == ping).values(state=JobState.FAILED))
    discarded = await client.post(f"{API}/jobs/{ping}/discard")
    assert (discarded.status_code, discarded.json()["state"]) == (200, "discarded")
    listed = (await client.get(f"{API}/jobs?state=discarded")).json()["items"]
    assert [item["id"] for item in listed] == [ping]


async def test_drift_of_the_node_is_listed_and_repaired(
    client: httpx.AsyncClient, controller: Controller, node: dict[str, Any]
) -> None:
    now = datetime.now(UTC)
    async with controller.database.write() as session:
        row = DriftFindingRow(
            node_id=node["id"], subject="node", key="module/web", summary="changed", found_at=now, checked_at=now
        )
        session.add(row)
    (finding,) = (await client.get(f"{API}/drift?node_id={node['id']}")).json()["items"]

    answer = await client.post(f"{API}/drift/{finding['id']}/repair")

    assert answer.status_code == 202
    assert [job["resource_key"] for job in answer.json()["jobs"]] == ["node"]
    assert (await client.post(f"{API}/drift/nothing/repair")).status_code == 404


async def test_check_node_drift_asks_the_node(client: httpx.AsyncClient, node: dict[str, Any]) -> None:
    answer = await client.post(f"{API}/nodes/{node['id']}/drift-check")

    assert [job["action"] for job in answer.json()["jobs"]] == ["manifest.drift@1"]


async def test_list_modules_names_all_of_this_release(client: httpx.AsyncClient) -> None:
    items = (await client.get(f"{API}/modules")).json()["items"]

    assert [item["name"] for item in items] == ["account", "php", "ssh", "web"]


async def test_install_files_are_served_with_this_controllers_values(
    anonymous_client: httpx.AsyncClient, controller: Controller
) -> None:
    directory: Path = controller.settings.effective_bundle_dir
    assert (await anonymous_client.get("/install.sh")).status_code == 503
    write_bundle(directory)

    script = await anonymous_client.get("/install.sh")

    assert script.status_code == 200
    assert "url=https://controller.test:8360 " in script.text
    assert f"pin=sha256//{controller.fleet.server_certificate.pin} " in script.text
    assert "@" not in script.text
    assert (await anonymous_client.get("/bundle/agent.tar.gz")).content == b"a bundle"
    assert (await anonymous_client.get("/ca.pem")).text == controller.fleet.authority.ca_pem


async def test_database_rows_of_a_node_hold_no_secret_of_its_token(
    client: httpx.AsyncClient, controller: Controller
) -> None:
    token = (await make_token(client))["token"]
    await post_enrol(client, Machine(), token)

    async with controller.database.read() as session:
        node = (await session.execute(select(Node))).scalar_one()
    secret = token.split(".")[2]
    assert secret not in repr(vars(node))
