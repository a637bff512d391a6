"""Nodes as witnesses of the audit log: whoever has the controller's database and all of its keys is found out by them."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import delete, func, select, text, update
from sqlalchemy.exc import DBAPIError

from agent.bootstrap import build_registry
from agent.simulator.fleet import FleetPlan, SimulatedFleet
from controller.core.audit.chain import entry_hash
from controller.core.audit.checkpoints import Checkpoints
from controller.core.audit.models import AuditCheckpoint, AuditEntry, AuditHead
from controller.core.audit.witness_models import AuditContradiction, AuditWitness
from controller.core.audit.witnesses import SIGNERS_MAX, choose_signers
from controller.fleet.signing.checkpoints import FILE_NAME
from shared.audit_csv import parse_rows
from shared.audit_proof import GENESIS_HASH, parse_lines
from shared.audit_walk import ProofReport, verify_export
from shared.audit_witness import read_record
from shared.protocol.witness import CheckpointSeen
from tests.integration.audit_triggers import unguarded_audit
from tests.integration.conftest import running_controller
from tests.integration.live import LiveController, wait_until

NAMES = ("sim-1", "sim-2")
TABLES = ("audit_witnesses", "audit_witness_certificates", "audit_contradictions")


class Stage:
    """A controller, two nodes, and what an auditor does."""

    def __init__(self, live: LiveController, fleet: SimulatedFleet, http: httpx.AsyncClient) -> None:
        self.live = live
        self.fleet = fleet
        self.http = http
        self.database = live.controller.database
        self.signer = live.controller.fleet.keys.signer
        self.checkpoints = Checkpoints(self.database, self.signer)
        self.witnesses = live.controller.machinery.witnesses

    async def count(self, model: Any) -> int:
        async with self.database.read() as session:
            return int((await session.execute(select(func.count()).select_from(model))).scalar_one())

    async def make_package(self, name: str) -> None:
        answer = await self.http.post("/api/v1/packages", json={"name": name})
        assert answer.is_success, answer.text

    async def wait_for(self, model: Any, count: int) -> None:
        """Show the newest checkpoint and wait until this many rows are there."""
        async with asyncio.timeout(30):
            while await self.count(model) < count:
                await self.witnesses.show()
                await self.witnesses.flush()
                await asyncio.sleep(0.02)

    async def export(self, file_format: str = "jsonl") -> str:
        answer = await self.http.get("/api/v1/audit/export", params={"format": file_format})
        assert answer.status_code == 200, answer.text
        return answer.text

    def prove(self, content: str, **known: Any) -> ProofReport:
        parse = parse_rows if content.startswith("kind,") else parse_lines
        known = {"public_key": self.checkpoints.public_key, "authorities": self.live.ca_file.read_text()} | known
        return verify_export(parse(io.StringIO(content, newline="")), **known)

    def read_record(self) -> dict[int, str]:
        """What the first node kept."""
        return read_record(self.fleet.paths_of("sim-1").audit_record.read_text().splitlines())

    async def rewrite_with_all_keys(self) -> None:
        """Another log, signed by the root key: what somebody can do who owns the whole controller."""
        async with unguarded_audit(self.database) as session:
            rows = list(await session.scalars(select(AuditEntry).order_by(AuditEntry.number)))
            rows[0].target_name, previous = "forged", GENESIS_HASH
            for row in rows:
                row.previous_hash = previous
                row.hash = previous = entry_hash(row)
            await session.execute(update(AuditHead).values(hash=previous))
            await session.execute(delete(AuditCheckpoint))
            await session.execute(delete(AuditWitness))
        (Path(self.live.ca_file).parent / FILE_NAME).unlink()
        assert await self.checkpoints.make() is not None


@pytest.fixture
async def stage(database_url: str, tmp_path: Path) -> AsyncIterator[Stage]:
    async with running_controller(database_url, tmp_path) as live, live.client() as http:
        tokens = [(await http.post("/api/v1/enrolment-tokens", json={"name": name})).json()["token"] for name in NAMES]
        plan = FleetPlan(controller_url=live.api_url, names=NAMES, state_dir=tmp_path / "nodes", tokens=tuple(tokens))
        fleet = SimulatedFleet(plan, build_registry())
        await fleet.enrol()
        fleet.start()
        made = Stage(live, fleet, http)
        async with asyncio.timeout(30):
            while len(live.controller.fleet.gateway.connected_ids) < len(NAMES):  # noqa: ASYNC110 - two real sessions
                await asyncio.sleep(0.02)
        yield made
        await fleet.stop()


@pytest.mark.parametrize("file_format", ["jsonl", "csv"])
async def test_checkpoint_when_nodes_are_connected_is_signed_by_each_and_proven_offline(
    stage: Stage, file_format: str
) -> None:
    await stage.checkpoints.make()
    await stage.wait_for(AuditWitness, 2)
    online = (await stage.http.get("/api/v1/audit/verify")).json()

    report = stage.prove(await stage.export(file_format), node_record=stage.read_record())

    assert (report.reason, report.nodes, report.witnessed_until) == ("", 2, report.proven_until)
    assert report.proven_until > 0
    assert online["is_intact"], online


async def test_checkpoint_when_the_log_was_rewritten_with_all_keys_is_refused_by_the_nodes(stage: Stage) -> None:
    await stage.make_package("A")
    await stage.checkpoints.make()
    await stage.wait_for(AuditWitness, 2)
    kept = stage.read_record()
    for line in stage.live.controller.fleet.gateway.sessions:
        line.shown_checkpoint = 0

    await stage.rewrite_with_all_keys()
    await stage.wait_for(AuditContradiction, 2)

    items = (await stage.http.get("/api/v1/attention")).json()["items"]
    entries = (await stage.http.get("/api/v1/audit", params={"action": "audit.contradict"})).json()["items"]
    found = stage.prove(await stage.export(), node_record=kept)
    assert [item["severity"] for item in items if item["kind"] == "audit"] == ["critical", "critical"]
    assert {entry["target_name"] for entry in entries} == set(NAMES)
    assert {entry["after"]["code"] for entry in entries} == {"checkpoint_fork"}
    assert "is not the one that a node was shown" in found.reason
    assert stage.prove(await stage.export()).reason == "", "without a node's record nobody would know"
    assert await stage.count(AuditWitness) == 0
    assert stage.read_record() == kept


async def test_contradiction_when_a_node_repeats_it_is_told_once(stage: Stage) -> None:
    await stage.checkpoints.make()
    await stage.wait_for(AuditWitness, 2)
    await stage.rewrite_with_all_keys()
    for line in stage.live.controller.fleet.gateway.sessions:
        line.shown_checkpoint = 0
    await stage.wait_for(AuditContradiction, 2)
    known = await stage.count(AuditContradiction)

    for line in stage.live.controller.fleet.gateway.sessions:
        line.shown_checkpoint = 0
    said: list[str] = []

    def overhear(node_id: str, seen: CheckpointSeen) -> None:
        said.append(seen.refusal)
        stage.witnesses.note(node_id, seen)

    stage.live.controller.fleet.gateway.on_checkpoint_seen = overhear
    await stage.witnesses.show()
    await wait_until(lambda: len(said) >= 2)
    await stage.witnesses.flush()

    assert said[:2] == ["checkpoint_fork"] * 2
    assert await stage.count(AuditContradiction) == known


@pytest.mark.parametrize("table", TABLES)
async def test_what_nodes_said_when_somebody_would_change_it_is_refused_by_the_database(
    stage: Stage, table: str
) -> None:
    await stage.checkpoints.make()
    await stage.wait_for(AuditWitness, 2)
    await stage.rewrite_with_all_keys()
    for line in stage.live.controller.fleet.gateway.sessions:
        line.shown_checkpoint = 0
    await stage.wait_for(AuditContradiction, 2)
    async with unguarded_audit(stage.database) as session:
        session.add(AuditWitness(number=1, node_id="n", payload="{}", fingerprint="f", signature="s"))

    for statement in (f"UPDATE {table} SET id = 'x'", f"DELETE FROM {table}"):
        with pytest.raises(DBAPIError, match="append-only"):
            async with stage.database.write() as session:
                await session.execute(text(statement))


def test_signers_when_there_are_many_nodes_change_with_each_checkpoint() -> None:
    nodes = [f"node-{number}" for number in range(4 * SIGNERS_MAX)]

    turns = [choose_signers(nodes, number) for number in range(1, 40)]

    assert {len(turn) for turn in turns} == {SIGNERS_MAX}
    assert frozenset().union(*turns) == frozenset(nodes)
