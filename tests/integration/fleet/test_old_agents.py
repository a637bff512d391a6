"""The controller serves agents that are two capability versions old: the real old code, over real mutual TLS."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from controller.fleet.models import Node, NodeCertificate
from tests.golden.golden_agents import FOLDER, SERVED, unpack_golden_agent
from tests.integration.conftest import running_controller
from tests.integration.fleet.old_agent import running_old_agent
from tests.integration.fleet.rollout_bench import write_bundle
from tests.integration.fleet.test_simulated_nodes import MODULES, Operator
from tests.integration.live import LiveController

NAME = "old-1"
REPOSITORY = Path(__file__).resolve().parents[3]
KNOWN_TO_1 = {
    "Welcome", "Reject", "Drain", "OfferJob", "CancelJob", "OfferTrust", "AckEvents", "CheckDrift",
}  # fmt: skip


def test_golden_agents_when_listed_are_those_that_are_served() -> None:
    """Whoever bumps CAPABILITY_VERSION keeps the agent before it: packaging/dev/add-golden-agent."""
    kept = {int(path.name.removeprefix("capability-").removesuffix(".tar.gz")) for path in FOLDER.glob("*.tar.gz")}

    assert kept == set(SERVED)


@pytest.fixture(params=SERVED, ids=lambda capability: f"capability-{capability}")
def sources(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An old release, unpacked."""
    return unpack_golden_agent(request.param, tmp_path / "golden")


@pytest.fixture
async def live(sqlite_url: str, tmp_path: Path) -> AsyncIterator[LiveController]:
    async with running_controller(sqlite_url, tmp_path / "data") as running:
        yield running


@pytest.fixture
async def operator(live: LiveController) -> AsyncIterator[Operator]:
    async with live.client() as http:
        yield Operator(http)


async def wait_for_modules(operator: Operator) -> Any:
    (node,) = await operator.wait(operator.list_nodes, lambda found: len(found) == 1 and found[0]["is_connected"])
    wanted = partial(operator.call, "GET", f"/nodes/{node['id']}/modules")
    known = MODULES - {"ssh"}  # which came later
    await operator.wait(
        wanted,
        lambda found: {m["name"]: m["observed_status"] for m in found["items"]} == dict.fromkeys(known, "enabled"),
    )
    return node


async def test_old_agent_when_it_joins_works_renews_and_gets_nothing_it_does_not_know(
    live: LiveController, operator: Operator, sources: Path, tmp_path: Path
) -> None:
    token = (await operator.call("POST", "/enrolment-tokens", {"name": NAME}))["token"]
    state_dir = tmp_path / "state"
    async with running_old_agent(sources, live.api_url, NAME, state_dir, token=token) as agent:
        node = await wait_for_modules(operator)
        account = await operator.make_account(node)
        await operator.change("POST", "/sites", {"account_id": account["id"], "domain": "old.example"})
        await ping(operator, node)
        before = await list_fingerprints(live)
        await agent.tell("renew")
        seen = agent.frames
    async with running_old_agent(sources, live.api_url, NAME, state_dir) as agent:
        # A session of its own, with the certificate that it has renewed.
        await agent.wait(lambda: "Welcome" in agent.frames)
        await ping(operator, node)
        await begin_update(live, operator)
        await ping(operator, node)
        seen += agent.frames

    assert len(await list_fingerprints(live) - before) == 1
    assert set(seen) <= KNOWN_TO_1
    assert {"Welcome", "OfferJob", "AckEvents"} <= set(seen)


async def ping(operator: Operator, node: Any) -> None:
    await operator.change("POST", f"/nodes/{node['id']}/ping")


async def list_fingerprints(live: LiveController) -> set[str]:
    async with live.controller.database.read() as session:
        return set((await session.execute(select(NodeCertificate.fingerprint))).scalars())


async def begin_update(live: LiveController, operator: Operator) -> None:
    """A rollout that the old agent cannot take: it is told nothing, and the operator is told why."""
    write_bundle(live.controller.fleet.releases.bundle_dir, "9.0.0")
    await operator.call("POST", "/releases", {})
    rollout = await operator.call("POST", "/rollouts", {"kind": "agent_update"})
    ended = await operator.wait(
        lambda: operator.call("GET", f"/rollouts/{rollout['id']}"), lambda found: found["state"] != "running"
    )
    nodes = await operator.call("GET", f"/rollouts/{rollout['id']}/nodes")
    assert ended["state"] == "finished"
    assert "run the installer" in nodes["items"][0]["note"]


async def test_agent_when_updated_and_taken_back_goes_on_with_what_the_newer_one_wrote(
    live: LiveController, operator: Operator, sources: Path, tmp_path: Path
) -> None:
    """An update that does not come up leaves the older code with journal and spool of the newer: it must read them."""
    token = (await operator.call("POST", "/enrolment-tokens", {"name": NAME}))["token"]
    state_dir = tmp_path / "state"
    async with running_old_agent(sources, live.api_url, NAME, state_dir, token=token):
        node = await wait_for_modules(operator)
        account = await operator.make_account(node)
        epoch = await read_journal_epoch(live)

    for code, domain in ((REPOSITORY, "newer.example"), (sources, "older.example"), (REPOSITORY, "again.example")):
        async with running_old_agent(code, live.api_url, NAME, state_dir) as agent:
            await agent.wait(lambda agent=agent: "Welcome" in agent.frames)
            await operator.change("POST", "/sites", {"account_id": account["id"], "domain": domain})
            await ping(operator, node)

    assert await read_journal_epoch(live) == epoch


async def read_journal_epoch(live: LiveController) -> str:
    """Changes when a node's journal could not be read and was begun anew."""
    async with live.controller.database.read() as session:
        return (await session.execute(select(Node.journal_epoch))).scalar_one()
