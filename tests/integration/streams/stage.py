"""One simulated node with a site, behind a whole controller that serves: what the tests of streams look at."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from agent.bootstrap import build_registry
from agent.simulator.agent import SimulatedAgent
from agent.simulator.fleet import FleetPlan, SimulatedFleet
from controller.fleet.streams.streams import SessionStreams
from shared.specs.site import SITE_LOGS_DIR, site_log_name
from tests.integration.conftest import running_controller
from tests.integration.fleet.test_simulated_nodes import Operator, _are_enabled
from tests.integration.live import LiveController

DOMAIN = "demo.example"


@dataclass
class StreamStage:
    """Everything that a test of streams needs."""

    live: LiveController
    operator: Operator
    agent: SimulatedAgent
    node: Any
    account: Any
    site: Any

    @property
    def streams(self) -> SessionStreams:
        found = self.live.controller.fleet.gateway.find_streams(self.node["id"])
        assert found is not None
        return found

    def log_path(self, log: str = "access") -> Path:
        """The file of the simulated node."""
        path = self.agent.workers.path_of(f"{SITE_LOGS_DIR}/{self.account['name']}/{site_log_name(DOMAIN, log)}")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def url(self, log: str = "access") -> str:
        return f"/api/v1/sites/{self.site['id']}/logs/{log}"

    async def read(self, log: str = "access", **query: Any) -> Any:
        answer = await self.operator.http.get(self.url(log), params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    @asynccontextmanager
    async def following(self, log: str = "access", **query: Any) -> AsyncIterator[AsyncIterator[Any]]:
        """The records of a followed log, as they come."""
        wanted = {"follow": "true", **query}
        async with self.operator.http.stream("GET", self.url(log), params=wanted, timeout=30.0) as answer:
            assert answer.status_code == 200, await answer.aread()
            yield read_records(answer)


async def read_records(answer: httpx.Response) -> AsyncIterator[Any]:
    async for line in answer.aiter_lines():
        if line:
            yield json.loads(line)


@asynccontextmanager
async def stream_stage(database_url: str, folder: Path) -> AsyncIterator[StreamStage]:
    """A controller, a node, an account, a site."""
    async with running_controller(database_url, folder, metrics_seconds=1.0) as live, live.client() as http:
        operator = Operator(http)
        token = (await operator.call("POST", "/enrolment-tokens", {"name": "sim-1"}))["token"]
        plan = FleetPlan(
            controller_url=live.api_url,
            names=("sim-1",),
            state_dir=folder / "nodes",
            tokens=(token,),
            keeps_state=False,
        )
        fleet = SimulatedFleet(plan, build_registry())
        await fleet.enrol()
        fleet.start()
        try:
            (node,) = await operator.wait(
                operator.list_nodes, lambda found: [node["is_connected"] for node in found] == [True]
            )
            path = f"/nodes/{node['id']}/modules"
            await operator.wait(lambda: operator.call("GET", path), _are_enabled)
            account = await operator.make_account(node)
            site = await operator.change("POST", "/sites", {"account_id": account["id"], "domain": DOMAIN})
            yield StreamStage(live, operator, fleet.agents[0], node, account, site)
        finally:
            await fleet.stop()


def request_lines(first: int, last: int) -> str:
    """Lines of an access log, numbered."""
    return "".join(f"request {number}\n" for number in range(first, last + 1))


async def take(records: AsyncIterator[Any], count: int) -> list[Any]:
    """The next records."""
    async with asyncio.timeout(20):
        return [await anext(records) for _ in range(count)]
