"""Two simulated nodes against a whole controller that serves: what an operator can do with a fleet, without a machine."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import select, update

from agent.bootstrap import build_registry
from agent.simulator.answers import answer_like_nginx
from agent.simulator.fleet import FleetPlan, SimulatedFleet
from agent.simulator.host import MemoryHost
from controller.jobs.models import Job
from shared.protocol.envelope import JOB_TYPE, Signature, sign_envelope
from tests.integration.conftest import running_controller
from tests.integration.live import LiveController

NAMES = ("sim-1", "sim-2")
MODULES = {"account", "php", "ssh", "web"}
SITE_FILE = "/etc/nginx/wcp360/sites/demo.example.conf"
POLL_SECONDS = 0.02
TIMEOUT_SECONDS = 60.0


class Operator:
    """The administrator over HTTPS."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        answer = await self.http.request(method, f"/api/v1{path}", json=body)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    async def change(self, method: str, path: str, body: Any = None) -> Any:
        """A mutation whose jobs all succeed; the resource."""
        answer = await self.call(method, path, body)
        for job in answer["jobs"]:
            ended = await self.wait_end(job["id"])
            assert ended["state"] == "succeeded", ended
        return answer["resource"]

    async def wait_end(self, job_id: str) -> Any:
        return await self.wait(lambda: self.call("GET", f"/jobs/{job_id}"), lambda job: job["is_final"])

    async def wait(self, ask: Callable[[], Awaitable[Any]], is_right: Callable[[Any], bool]) -> Any:
        """The first answer that is right."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while not is_right(answer := await ask()):  # noqa: ASYNC110 - it is asked over HTTP
                await asyncio.sleep(POLL_SECONDS)
        return answer

    async def make_tokens(self) -> tuple[str, ...]:
        return tuple([(await self.call("POST", "/enrolment-tokens", {"name": name}))["token"] for name in NAMES])

    async def list_nodes(self) -> list[Any]:
        return sorted((await self.call("GET", "/nodes"))["items"], key=lambda node: str(node["name"]))

    async def wait_ready(self) -> list[Any]:
        """Both nodes, connected, with every module enabled."""
        nodes = await self.wait(self.list_nodes, lambda found: [node["is_connected"] for node in found] == [True, True])
        for node in nodes:
            await self.wait(partial(self.call, "GET", f"/nodes/{node['id']}/modules"), _are_enabled)
        return list(nodes)

    async def make_account(self, node: Any) -> Any:
        limits = {"cpu_percent": 100, "memory_bytes": 256 * 1024**2, "processes_max": 60}
        package = await self.call("POST", "/packages", {"name": "starter", **limits})
        client = await self.call("POST", "/clients", {"name": "Demo Ltd", "email": "owner@demo.example"})
        body = {"name": "demo", "client_id": client["id"], "package_id": package["id"], "node_id": node["id"]}
        return await self.change("POST", "/accounts", body)


def _are_enabled(modules: Any) -> bool:
    return {item["name"] for item in modules["items"] if item["observed_status"] == "enabled"} >= MODULES


@pytest.fixture
async def live(database_url: str, tmp_path: Path) -> AsyncIterator[LiveController]:
    """A controller that serves, on each kind of database."""
    async with running_controller(database_url, tmp_path) as running:
        yield running


@pytest.fixture
async def operator(live: LiveController) -> AsyncIterator[Operator]:
    async with live.client() as http:
        yield Operator(http)


@pytest.fixture
async def fleet(live: LiveController, operator: Operator, tmp_path: Path) -> AsyncIterator[SimulatedFleet]:
    """Two nodes that are enrolled and not running yet."""
    plan = FleetPlan(
        controller_url=live.api_url,
        names=NAMES,
        state_dir=tmp_path / "nodes",
        tokens=await operator.make_tokens(),
    )
    made = SimulatedFleet(plan, build_registry())
    await made.enrol()
    yield made
    await made.stop()


async def start(fleet: SimulatedFleet, operator: Operator) -> tuple[Any, MemoryHost]:
    """The first node as the controller shows it, and its host."""
    fleet.start()
    nodes = await operator.wait_ready()
    return nodes[0], fleet.agents[0].host


async def test_account_with_a_php_site_lives_and_dies_on_its_node(fleet: SimulatedFleet, operator: Operator) -> None:
    node, host = await start(fleet, operator)
    other = fleet.agents[1].host
    neighbour = other.snapshot()

    account = await operator.make_account(node)
    site = await operator.change(
        "POST", "/sites", {"account_id": account["id"], "domain": "demo.example", "php_version": "8.2"}
    )
    uid = host.state.users["demo"].uid
    assert SITE_FILE in host.state.paths
    assert host.state.slices[str(uid)].memory_bytes == 256 * 1024**2
    assert host.state.units[f"wcp-php8.2@{uid}.socket"].is_running
    assert (await operator.call("GET", f"/sites/{site['id']}"))["state"] == "active"

    await operator.change("POST", f"/accounts/{account['id']}/suspend", {"reason": "unpaid"})
    answer = answer_like_nginx(host.state, "demo.example", "/")
    assert answer is not None
    assert answer.status == 503
    assert (await operator.call("GET", f"/accounts/{account['id']}"))["state"] == "suspended"

    await operator.change("POST", f"/accounts/{account['id']}/unsuspend")
    await operator.change("DELETE", f"/accounts/{account['id']}?grace_days=0")
    assert "demo" not in host.state.users
    assert SITE_FILE not in host.state.paths
    assert (await operator.call("GET", "/accounts"))["items"] == []
    assert other.snapshot() == neighbour


async def test_dry_run_shows_what_the_node_would_do_and_does_nothing(fleet: SimulatedFleet, operator: Operator) -> None:
    node, host = await start(fleet, operator)
    account = await operator.make_account(node)
    before = host.snapshot()

    plan = await operator.call("POST", "/sites?dry_run=true", {"account_id": account["id"], "domain": "demo.example"})

    changes = plan["nodes"][0]["changes"]
    assert any("+    server_name demo.example;" in change["diff"] for change in changes), changes
    assert plan["nodes"][0]["reloads"] == ["nginx.service"]
    assert host.snapshot() == before
    assert (await operator.call("GET", "/sites"))["items"] == []


async def test_drift_is_found_shown_and_repaired(fleet: SimulatedFleet, operator: Operator) -> None:
    node, host = await start(fleet, operator)
    account = await operator.make_account(node)
    await operator.change("POST", "/sites", {"account_id": account["id"], "domain": "demo.example"})
    before = host.snapshot()
    host.put_file(SITE_FILE, "# changed by hand\n")

    await operator.change("POST", f"/accounts/{account['id']}/drift-check")

    path = f"/accounts/{account['id']}/drift"
    findings = await operator.wait(lambda: operator.call("GET", path), lambda found: found["items"])
    assert [finding["key"] for finding in findings["items"]] == ["site/demo.example"]
    await operator.change("POST", f"/drift/{findings['items'][0]['id']}/repair")
    assert host.snapshot() == before
    await operator.wait(lambda: operator.call("GET", path), lambda found: not found["items"])


async def test_drift_of_added_lines_is_adopted_and_stays_with_every_later_change(
    fleet: SimulatedFleet, operator: Operator
) -> None:
    node, host = await start(fleet, operator)
    account = await operator.make_account(node)
    site = await operator.change("POST", "/sites", {"account_id": account["id"], "domain": "demo.example"})
    text = host.state.paths[SITE_FILE].content
    added = "    location = /by-hand {\n        return 204;\n    }\n"
    host.put_file(SITE_FILE, text.replace("    index ", f"{added}    index ", 1))
    await operator.change("POST", f"/accounts/{account['id']}/drift-check")
    path = f"/accounts/{account['id']}/drift"
    (finding,) = (await operator.wait(lambda: operator.call("GET", path), lambda found: found["items"]))["items"]

    plan = await operator.call("POST", f"/drift/{finding['id']}/adopt?dry_run=true")
    assert [change["action"] for change in plan["changes"]] == ["site.update", "drift.adopt"]
    assert "# --- additional directives ---" in plan["nodes"][0]["changes"][0]["diff"]
    await operator.change("POST", f"/drift/{finding['id']}/adopt")

    await operator.wait(lambda: operator.call("GET", path), lambda found: not found["items"])
    await operator.change("PATCH", f"/sites/{site['id']}", {"document_root": "web"})
    assert host.state.paths[SITE_FILE].content.count(added) == 1
    assert (await operator.call("GET", f"/sites/{site['id']}"))["extra_directives"] == added.rstrip()


async def test_drift_of_a_changed_line_is_not_adopted(fleet: SimulatedFleet, operator: Operator) -> None:
    node, host = await start(fleet, operator)
    account = await operator.make_account(node)
    site = await operator.change("POST", "/sites", {"account_id": account["id"], "domain": "demo.example"})
    text = host.state.paths[SITE_FILE].content
    host.put_file(SITE_FILE, text.replace("    index ", "    index mine.html ", 1))
    await operator.change("POST", f"/accounts/{account['id']}/drift-check")
    path = f"/accounts/{account['id']}/drift"
    (finding,) = (await operator.wait(lambda: operator.call("GET", path), lambda found: found["items"]))["items"]

    answer = await operator.http.post(f"/api/v1/drift/{finding['id']}/adopt")

    assert (answer.status_code, answer.json()["code"]) == (409, "not_adoptable")
    assert "changed or removed" in answer.json()["detail"]
    assert (await operator.call("GET", f"/sites/{site['id']}"))["extra_directives"] == ""


async def test_job_signed_by_a_wrong_key_ends_as_refused_with_the_nodes_reason(
    live: LiveController, fleet: SimulatedFleet, operator: Operator
) -> None:
    """Somebody who can write the database cannot order anything, and it shows."""
    await operator.wait(
        lambda: operator.call("GET", "/jobs?state=queued"), lambda found: len(found["items"]) == len(NAMES)
    )
    wrong = Ed25519PrivateKey.generate()
    async with live.controller.database.write() as session:
        for job in (await session.execute(select(Job))).scalars().all():
            assert job.payload is not None
            assert job.signatures is not None
            (signature,) = msgspec.msgpack.decode(job.signatures, type=tuple[Signature, ...])
            forged = sign_envelope(JOB_TYPE, job.payload, {signature.kid: wrong}).signatures
            await session.execute(update(Job).where(Job.id == job.id).values(signatures=msgspec.msgpack.encode(forged)))

    fleet.start()

    jobs = await operator.wait(
        lambda: operator.call("GET", "/jobs?state=refused"), lambda found: len(found["items"]) == len(NAMES)
    )
    shown = await operator.call("GET", f"/jobs/{jobs['items'][0]['id']}")
    assert shown["error"]["code"] == "bad_signature"
    assert all("nginx" not in agent.host.state.packages for agent in fleet.agents)


async def test_simulate_as_a_process_serves_its_nodes_and_takes_them_up_again(
    live: LiveController, operator: Operator, tmp_path: Path
) -> None:
    argv = (
        *("-m", "agent", "simulate", "--controller", live.api_url, "--names", ",".join(NAMES)),
        *("--state-dir", str(tmp_path / "nodes")),
    )
    made = await operator.make_tokens()
    for tokens in (made, ("", "")):
        environment = {**os.environ, "WCP360_TOKENS": ",".join(tokens)}
        with (tmp_path / "simulate.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, *argv, env=environment, stdout=log, stderr=asyncio.subprocess.STDOUT
            )
        try:
            nodes = await operator.wait_ready()
            job = (await operator.call("POST", f"/nodes/{nodes[0]['id']}/ping"))["jobs"][0]
            assert (await operator.wait_end(job["id"]))["state"] == "succeeded"
        finally:
            process.terminate()
            await asyncio.wait_for(process.wait(), TIMEOUT_SECONDS)
        assert process.returncode == 0, (tmp_path / "simulate.log").read_text()
        await operator.wait(operator.list_nodes, lambda found: not any(node["is_connected"] for node in found))

    assert len(await operator.list_nodes()) == len(NAMES)
    assert not any(token in (tmp_path / "simulate.log").read_text() for token in made)
