"""Every part of the controller in a process of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from controller.db.migrations import runner
from tests.faults.processes import Zygote
from tests.integration.postgresql import PostgresCluster
from tests.integration.scale.deployment import Deployment, deployment


async def test_split_when_a_node_is_pinged_every_process_does_its_part(split: Deployment) -> None:
    await split.start_nodes(2)
    nodes = await split.wait_nodes(2)

    for node in nodes:
        job = (await split.call("POST", f"/nodes/{node['id']}/ping"))["jobs"][0]
        ended = await split.wait_job(job["id"])
        assert ended["state"] == "succeeded", split.describe()


async def test_split_each_process_answers_about_its_health(split: Deployment) -> None:
    async with httpx.AsyncClient(timeout=20) as http:
        for name, checks in {
            "gateway-1": {"database": "ok", "signer": "ok", "gateway": "ok"},
            "worker-1": {"database": "ok", "signer": "ok"},
        }.items():
            base = f"http://127.0.0.1:{split.members[name].status_port}"
            ready = await http.get(f"{base}/readyz")
            assert (ready.status_code, ready.json()["checks"]) == (200, checks)
            assert (await http.get(f"{base}/healthz")).json()["role"] == name.partition("-")[0]
            assert b"wcp360_event_loop_lag_seconds" in (await http.get(f"{base}/metrics")).content
            assert (await http.get(f"{base}/api/v1/nodes")).status_code == 404
    async with split.client() as api:
        ready = await api.get(str(api.base_url).removesuffix("/api/v1/") + "/readyz")
        assert (ready.status_code, ready.json()["checks"]) == (200, {"database": "ok", "signer": "ok"})


async def test_split_when_no_process_hears_another_everything_still_gets_done(
    zygote: Zygote, tmp_path: Path, postgres_url: str
) -> None:
    """All hints lost, always: the polls alone carry a job through its four hand-overs."""
    async with deployment(zygote, tmp_path, postgres_url, hints="none") as made:
        for role in ("api", "gateway", "worker"):
            await made.start(role)
        await made.start_nodes(1)
        (node,) = await made.wait_nodes(1)

        for _ in range(3):
            job = (await made.call("POST", f"/nodes/{node['id']}/ping"))["jobs"][0]
            ended = await made.wait_job(job["id"], timeout_seconds=30.0)
            assert ended["state"] == "succeeded", made.describe()


async def test_part_of_a_controller_on_sqlite_says_what_it_needs(zygote: Zygote, tmp_path: Path) -> None:
    made = Deployment(zygote, tmp_path, f"sqlite+aiosqlite:///{tmp_path / 'x.db'}")
    made.data_dir.mkdir()
    await made.api.start()
    await made.gateway.start()
    try:
        with pytest.raises(RuntimeError, match="needs PostgreSQL"):
            await made.start("worker")
    finally:
        await made.close()


@pytest.fixture
def outdated_url(postgres_cluster: PostgresCluster) -> Iterator[str]:
    """A database with the tables of an earlier release."""
    with postgres_cluster.lend_empty() as name:
        asyncio.run(runner.upgrade(postgres_cluster.url(name), "0001"))
        yield postgres_cluster.url(name)


async def test_part_of_a_controller_on_tables_of_an_earlier_release_does_not_start(
    zygote: Zygote, tmp_path: Path, outdated_url: str
) -> None:
    made = Deployment(zygote, tmp_path, outdated_url)
    made.data_dir.mkdir()
    await made.api.start()
    await made.gateway.start()
    try:
        with pytest.raises(RuntimeError, match="wcpd migrate"):
            await made.start("api")
    finally:
        await made.close()
