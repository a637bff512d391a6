"""Releases and rollouts over HTTP: what an operator can do, and what bad input is answered with."""

from __future__ import annotations

import hashlib
from typing import Any

import httpx
import pytest

from controller.bootstrap import Controller
from controller.fleet.models import Node, NodeState
from tests.integration.fleet.rollout_bench import write_bundle


@pytest.fixture
def build(controller: Controller) -> str:
    """A bundle in the controller's folder."""
    return write_bundle(controller.fleet.releases.bundle_dir, "1.1.0")


@pytest.fixture
async def nodes(controller: Controller) -> list[str]:
    """Three nodes that nobody is connected to."""
    made = []
    async with controller.database.write() as session:
        for name in ("web1", "web2", "web3"):
            node = Node(
                name=name, state=NodeState.ACTIVE, machine_id_hash=name, sealing_public_key=b"", capability=2,
                agent_build="1.0.0-aaaaaaaaaaaa", roles=["web"], facts={"architecture": "x86_64"},
            )  # fmt: skip
            session.add(node)
            await session.flush()
            made.append(node.id)
    return made


async def register(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    answer = await client.post("/api/v1/releases", json=body)
    assert answer.status_code == 201, answer.text
    release: dict[str, Any] = answer.json()
    return release


async def test_release_when_registered_is_listed_and_its_bytes_are_served_to_anybody(
    client: httpx.AsyncClient, anonymous_client: httpx.AsyncClient, build: str
) -> None:
    release = await register(client, note="first", min_from="0.9.0")

    assert (release["number"], release["build"], release["note"]) == (1, build, "first")
    assert (await client.get("/api/v1/releases")).json()["items"] == [release]
    assert (await client.get(f"/api/v1/releases/{release['id']}")).json() == release
    bundle = await anonymous_client.get(f"/bundle/releases/{build}.tar.gz")
    assert (bundle.status_code, hashlib.sha256(bundle.content).hexdigest()) == (200, release["sha256"])


async def test_release_when_the_bundle_is_built_anew_keeps_its_bytes(
    client: httpx.AsyncClient, controller: Controller, build: str
) -> None:
    first = await register(client)
    write_bundle(controller.fleet.releases.bundle_dir, "1.2.0")
    second = await register(client)

    for release in (first, second):
        bundle = await client.get(f"/bundle/releases/{release['build']}.tar.gz")
        assert hashlib.sha256(bundle.content).hexdigest() == release["sha256"]
    assert [row["number"] for row in (await client.get("/api/v1/releases")).json()["items"]] == [2, 1]


async def test_release_when_it_is_there_already_or_older_is_a_conflict(
    client: httpx.AsyncClient, controller: Controller, build: str
) -> None:
    await register(client)
    assert (await client.post("/api/v1/releases", json={})).status_code == 409

    write_bundle(controller.fleet.releases.bundle_dir, "1.0.9")
    answer = await client.post("/api/v1/releases", json={})

    assert (answer.status_code, "never go back" in answer.json()["hint"]) == (409, True)


async def test_release_when_the_bundle_is_not_whole_is_unavailable(
    client: httpx.AsyncClient, controller: Controller, build: str
) -> None:
    (controller.fleet.releases.bundle_dir / "agent.tar.gz").write_bytes(b"half")
    assert (await client.post("/api/v1/releases", json={})).status_code == 503

    (controller.fleet.releases.bundle_dir / "manifest.json").unlink()
    assert (await client.post("/api/v1/releases", json={})).status_code == 503
    assert (await client.get("/api/v1/releases")).json()["items"] == []


@pytest.mark.parametrize("min_from", ["1.x", "2.0.0", "1.1"])
async def test_release_when_min_from_makes_no_sense_is_refused(
    client: httpx.AsyncClient, build: str, min_from: str
) -> None:
    answer = await client.post("/api/v1/releases", json={"min_from": min_from})

    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "min_from")


@pytest.mark.parametrize("name", ["nothing.tar.gz", "..%2fmanifest.json", ".hidden.tar.gz", "%2e%2e.tar.gz"])
async def test_bundle_when_the_name_is_none_of_ours_is_not_found(
    client: httpx.AsyncClient, build: str, name: str
) -> None:
    assert (await client.get(f"/bundle/releases/{name}")).status_code == 404


async def test_release_when_only_planned_leaves_nothing(client: httpx.AsyncClient, build: str) -> None:
    answer = await client.post("/api/v1/releases?dry_run=true", json={})

    assert [change["action"] for change in answer.json()["changes"]] == ["release.create"]
    assert (await client.get("/api/v1/releases")).json()["items"] == []


async def test_rollout_when_begun_shows_its_waves_and_what_it_waits_for(
    client: httpx.AsyncClient, build: str, nodes: list[str]
) -> None:
    release = await register(client)
    answer = await client.post("/api/v1/rollouts", json={"kind": "agent_update", "name": "November", "waves": ["1"]})

    assert answer.status_code == 201, answer.text
    rollout = answer.json()
    assert (rollout["state"], rollout["release_id"], rollout["wave"]) == ("running", release["id"], 1)
    assert [(wave["size"], wave["nodes"], wave["waiting"]) for wave in rollout["waves"]] == [
        ("1", 1, 1),
        ("100%", 2, 2),
    ]
    shown = await client.get(f"/api/v1/rollouts/{rollout['id']}/nodes")
    assert sorted(node["node_name"] for node in shown.json()["items"]) == ["web1", "web2", "web3"]
    assert (await client.get("/api/v1/rollouts")).json()["items"] == [rollout]


async def test_rollout_when_paused_resumed_and_aborted_says_so_each_time(
    client: httpx.AsyncClient, build: str, nodes: list[str]
) -> None:
    await register(client)
    rollout = (await client.post("/api/v1/rollouts", json={"kind": "agent_update"})).json()
    path = f"/api/v1/rollouts/{rollout['id']}"

    assert (await client.post(f"{path}/pause")).json()["state"] == "paused"
    assert (await client.post(f"{path}/pause")).status_code == 409
    assert (await client.post(f"{path}/resume", json={})).json()["state"] == "running"
    aborted = (await client.post(f"{path}/abort")).json()
    assert (aborted["state"], aborted["waves"][0]["skipped"]) == ("aborted", 1)
    actions = [entry["action"] for entry in (await client.get("/api/v1/audit")).json()["items"]]
    assert [action for action in reversed(actions) if action.startswith("rollout")] == [
        "rollout.create", "rollout.pause", "rollout.resume", "rollout.abort",
    ]  # fmt: skip


async def test_rollout_when_only_planned_shows_its_waves_and_leaves_nothing(
    client: httpx.AsyncClient, nodes: list[str]
) -> None:
    body = {"kind": "module_settings", "module": "php", "presence": "enabled", "settings": {"idle": "60"}}
    answer = await client.post("/api/v1/rollouts?dry_run=true", json=body)

    assert answer.status_code == 200, answer.text
    (change,) = answer.json()["changes"]
    assert (change["action"], change["after"]["nodes_per_wave"]) == ("rollout.create", [1, 0, 0, 2])
    assert (await client.get("/api/v1/rollouts")).json()["items"] == []


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"kind": "agent_update", "waves": ["0"]}, 400, "waves"),
        ({"kind": "everything"}, 400, "kind"),
        ({"kind": "agent_update", "soak_seconds": -1}, 400, "soak_seconds"),
        ({"kind": "module_settings", "presence": "enabled"}, 400, "module"),
        ({"kind": "module_settings", "module": "php"}, 400, "presence"),
        ({"kind": "module_settings", "module": "x", "presence": "enabled"}, 404, None),
        ({"kind": "agent_update", "release_id": "nothing"}, 404, None),
    ],
)
async def test_rollout_when_it_makes_no_sense_names_the_field(
    client: httpx.AsyncClient, nodes: list[str], body: dict[str, Any], status: int, field: str | None
) -> None:
    answer = await client.post("/api/v1/rollouts", json=body)

    assert answer.status_code == status, answer.text
    if field is not None:
        assert answer.json()["errors"][0]["field"] == field
    assert (await client.get("/api/v1/rollouts")).json()["items"] == []
