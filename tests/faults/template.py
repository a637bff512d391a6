"""A fleet that is enrolled and at rest: made once for a run of the tests, copied for each."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from agent.bootstrap import build_registry
from agent.simulator.fleet import FleetPlan, SimulatedFleet
from controller.core.auth.attempts import Device
from controller.core.auth.passwords import Passwords
from controller.core.auth.service import Authenticator
from controller.core.auth.users import create_user
from controller.core.context import Role
from controller.core.policies.models import PlatformPolicyRow
from controller.db.engine import Database
from tests.faults.processes import Zygote
from tests.faults.proxy import TcpProxy
from tests.faults.stage import NODES, TOKEN_FILE, SimNode, Stage
from tests.integration.conftest import FAST_HASHER

ADMIN, PASSWORD = "admin", "correct horse battery staple"
LIMITS = {"cpu_percent": 100, "memory_bytes": 256 * 1024**2, "processes_max": 60}
ACCOUNTS = {"sim-1": "ada", "sim-2": "bob"}


async def build_template(zygote: Zygote, folder: Path, database_url: str) -> None:
    """Enrol the nodes, give each an account with a site, and leave all of it at rest in the folder."""
    (folder / "data").mkdir(parents=True)
    stage = Stage(zygote, folder, database_url, await add_admin(database_url))
    (folder / TOKEN_FILE).write_text(stage.token)
    try:
        await stage.start_controller()
        await enrol_nodes(stage, NODES)
        await make_accounts(stage)
        await stage.settle()
        for node in stage.nodes.values():
            assert node.process is not None
            await node.process.terminate()
        await stage.controller.terminate()
    finally:
        await stage.close()
    (folder / "data/controller.ready").unlink(missing_ok=True)


async def add_admin(database_url: str, name: str = ADMIN) -> str:
    """A token that lasts."""
    database = Database(database_url)
    try:
        async with database.write() as session:
            hashed = FAST_HASHER.hash(PASSWORD)
            await create_user(session, name, hashed, role=Role.ROOT, must_change_password=False)
            if name == ADMIN:
                session.add(PlatformPolicyRow(name="session_hours", value=720, changed_by="tests"))
        authenticator = Authenticator(database, Passwords(FAST_HASHER))
        device = Device(address="127.0.0.1", user_agent="tests")
        return (await authenticator.sign_in(name, PASSWORD, device)).secret
    finally:
        await database.close()


async def enrol_nodes(stage: Stage, names: tuple[str, ...]) -> None:
    """New nodes, connected, with every module enabled."""
    tokens = [(await stage.call("POST", "/enrolment-tokens", {"name": name}))["token"] for name in names]
    plan = FleetPlan(
        controller_url=f"https://127.0.0.1:{stage.api_port}",
        names=names,
        state_dir=stage.folder / "nodes",
        tokens=tuple(tokens),
    )
    fleet = SimulatedFleet(plan, build_registry())
    await fleet.enrol()
    for name in names:
        proxy = TcpProxy(stage.gateway_port)
        await proxy.start()
        stage.nodes[name] = SimNode(name=name, root=fleet.paths_of(name).root, proxy=proxy)
        await stage.start_node(name)
    for name in names:
        await wait_modules(stage, name)


async def wait_modules(stage: Stage, name: str) -> None:
    """Until the node can take accounts."""
    try:
        async with asyncio.timeout(60):
            while not await _are_enabled(stage, name):  # noqa: ASYNC110 - asked over HTTP
                await asyncio.sleep(0.1)
    except TimeoutError as error:
        jobs = await stage.call("GET", "/jobs")
        raise TimeoutError(f"{name} has not its modules\n{jobs}\n{stage.describe()}") from error


async def _are_enabled(stage: Stage, name: str) -> bool:
    found = (await stage.call("GET", f"/nodes/{stage.nodes[name].node_id}/modules"))["items"]
    return {item["name"] for item in found if item["observed_status"] == "enabled"} >= {"account", "php", "ssh", "web"}


async def make_accounts(stage: Stage) -> dict[str, Any]:
    """One account with one site on each node."""
    package = await stage.call("POST", "/packages", {"name": "starter", **LIMITS})
    client = await stage.call("POST", "/clients", {"name": "Demo Ltd", "email": "owner@demo.example"})
    made = {}
    for node, account in ACCOUNTS.items():
        body = {"client_id": client["id"], "package_id": package["id"], "node_id": stage.nodes[node].node_id}
        made[account] = (await stage.call("POST", "/accounts", {"name": account, **body}))["resource"]
        await stage.call("POST", "/sites", {"account_id": made[account]["id"], "domain": f"{account}.example"})
    return made
