"""Fault 26: the controller's disk is full, its database is read-only, or goes away in the middle of a transaction."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Iterator

import pytest

from controller.db.migrations import runner
from tests.faults.invariants import check_invariants
from tests.faults.processes import Zygote, wait_until
from tests.faults.stage import Stage, open_stage
from tests.faults.template import build_template
from tests.faults.workload import Operator, work
from tests.integration.postgresql import PostgresCluster, find_binaries, start_cluster


async def require_problem(stage: Stage, path: str, body: dict[str, str]) -> None:
    """A change is refused in words, and not acknowledged."""
    answer = await stage.ask("PATCH", path, body)
    assert answer.status_code == 503, answer.text
    assert (answer.json()["code"], answer.headers["content-type"]) == ("unavailable", "application/problem+json")
    assert "database" in answer.json()["detail"]


async def test_fault_26_full_disk_acknowledges_nothing_says_so_and_goes_on(stage: Stage) -> None:
    await stage.start_controller()
    for name in stage.nodes:
        await stage.start_node(name, pace=0.3)
    await stage.wait_connected(*stage.nodes)
    operator, node = Operator(stage), stage.nodes["sim-1"]
    site = await operator.find("/sites", "domain", "ada.example")
    await operator.move_site(site["id"], "result-meets-a-full-disk")
    await wait_until(lambda: bool(node.journal("SELECT 1 FROM jobs WHERE state = 'started'")), what="a running job")

    stage.controller.limit_file_size(1)
    await wait_until(lambda: bool(node.spool("SELECT 1 FROM event")), what="a result that nobody takes")
    await require_problem(stage, f"/sites/{site['id']}", {"document_root": "never"})
    assert stage.controller.status is None
    stage.controller.limit_file_size(resource.RLIM_INFINITY)

    await operator.move_site(site["id"], "after-the-full-disk")
    await stage.settle()
    assert (await stage.call("GET", f"/sites/{site['id']}"))["document_root"] == "after-the-full-disk"
    await check_invariants(stage)


@pytest.fixture
def own_cluster() -> Iterator[PostgresCluster]:
    """A server that may be hurt."""
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL server is installed")
    # The fast cluster of the other tests forgets its last commits when it crashes; what is asked here is about ours.
    with start_cluster(binaries, options=("synchronous_commit=on",)) as cluster:
        cluster.create_database("wcp")
        yield cluster


@pytest.fixture
async def own_stage(own_cluster: PostgresCluster, zygote: Zygote, tmp_path):
    """A fleet whose database no other test uses."""
    url = own_cluster.url("wcp")
    await runner.upgrade(url)
    await build_template(zygote, tmp_path / "template", url)
    made = await open_stage(zygote, tmp_path / "template", tmp_path / "stage", url)
    yield made
    await made.close()


@pytest.mark.postgresql
async def test_fault_26_server_restarted_under_work_loses_and_doubles_nothing(own_stage, own_cluster) -> None:
    await own_stage.start_all()
    working = asyncio.create_task(work(own_stage, rounds=6))
    for _ in range(2):
        await asyncio.to_thread(own_cluster.restart)
    await working

    await own_stage.settle()
    await check_invariants(own_stage)


@pytest.mark.postgresql
async def test_fault_26_database_that_is_read_only_says_so_and_goes_on(own_stage, own_cluster) -> None:
    await own_stage.start_all()
    operator = Operator(own_stage)
    site = await operator.find("/sites", "domain", "ada.example")
    await asyncio.to_thread(own_cluster.set_read_only, "wcp", is_read_only=True)

    await wait_refused(own_stage, site["id"])
    await require_problem(own_stage, f"/sites/{site['id']}", {"document_root": "never"})
    await asyncio.to_thread(own_cluster.set_read_only, "wcp", is_read_only=False)

    await operator.move_site(site["id"], "writable-again")
    await own_stage.settle()
    await check_invariants(own_stage)


async def wait_refused(stage: Stage, site_id: str) -> None:
    """Connections that were open before learn of it when they are made again."""
    async with asyncio.timeout(20):
        while (await stage.ask("PATCH", f"/sites/{site_id}", {"document_root": "never"})).status_code != 503:  # noqa: ASYNC110 - asked over HTTP
            await asyncio.sleep(0.1)
