"""A fleet of rows for rollouts: nodes that are there or not, releases, and the loop, turned by the test."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import uuid
from pathlib import Path
from typing import Any

from sqlalchemy import select, update

from controller.core.audit.models import AuditEntry
from controller.fleet.models import Node, NodeState
from controller.fleet.rollouts.loop import RolloutLoop, record_update_report
from controller.fleet.rollouts.models import Release, Rollout, RolloutKind, RolloutNode, RolloutNodeState
from controller.fleet.rollouts.releases import ReleaseCreate
from controller.fleet.rollouts.rollouts import list_rollout_nodes
from controller.fleet.rollouts.views import RolloutCreate
from controller.rollout_schedules import make_rollout_loop
from shared.protocol.job import ErrorBody
from shared.protocol.update import UpdateReport, UpdateState
from tests.integration.fleet.bench import FleetBench

OLD_BUILD = "1.0.0-aaaaaaaaaaaa"


def write_bundle(folder: Path, version: str, *, architecture: str = "x86_64") -> str:
    """What packaging/bundle leaves in the bundle folder, in small; returns the build."""
    folder.mkdir(parents=True, exist_ok=True)
    build = f"{version}-{uuid.uuid4().hex[:12]}"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        content = build.encode()
        member = tarfile.TarInfo("bundle.json")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    data = packed.getvalue()
    manifest = {
        "version": version, "build": build, "sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data),
        "architecture": architecture, "capability": 2, "python_tags": ["cp311"],
    }  # fmt: skip
    (folder / "agent.tar.gz").write_bytes(data)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return build


class RolloutBench:
    """Around a FleetBench whose tasks do not run."""

    def __init__(self, bench: FleetBench) -> None:
        self.bench = bench
        self.loop: RolloutLoop = make_rollout_loop(bench.database, bench.operations, bench.fleet, bench.ear)  # type: ignore[arg-type]

    async def add_nodes(self, count: int, **columns: Any) -> list[str]:
        """Active, connected nodes of capability 2 that run OLD_BUILD."""
        values: dict[str, Any] = {
            "state": NodeState.ACTIVE, "is_connected": True, "capability": 2, "agent_build": OLD_BUILD,
            "sealing_public_key": b"", "roles": ["web"], "labels": {}, "facts": {"architecture": "x86_64"},
        }  # fmt: skip
        ids = []
        async with self.bench.database.write() as session:
            for _ in range(count):
                name = f"web{uuid.uuid4().hex[:8]}"
                node = Node(name=name, machine_id_hash=uuid.uuid4().hex, **(values | columns))
                session.add(node)
                await session.flush()
                ids.append(node.id)
        return ids

    async def set_node(self, node_id: str, **columns: Any) -> None:
        async with self.bench.database.write() as session:
            await session.execute(update(Node).where(Node.id == node_id).values(**columns))

    async def release(self, version: str = "1.1.0", **options: Any) -> Release:
        write_bundle(self.bench.fleet.releases.bundle_dir, version, **options)
        release: Release = await self.bench.change(lambda ctx: self.bench.fleet.releases.create(ctx, ReleaseCreate()))
        return release

    async def begin(self, **options: Any) -> str:
        values: dict[str, Any] = {"kind": RolloutKind.AGENT_UPDATE, "soak_seconds": 60}
        params = RolloutCreate(**(values | options))
        rollout: Rollout = await self.bench.change(lambda ctx: self.bench.fleet.rollouts.create(ctx, params))
        return rollout.id

    async def rollout(self, rollout_id: str) -> Rollout:
        async with self.bench.database.read() as session:
            return await session.get_one(Rollout, rollout_id)

    async def nodes(self, rollout_id: str, state: RolloutNodeState | None = None) -> list[RolloutNode]:
        async with self.bench.database.read() as session:
            rows = await list_rollout_nodes(session, rollout_id)
        return [row for row in rows if state in (None, row.state)]

    async def counts(self, rollout_id: str) -> dict[str, int]:
        rows = await self.nodes(rollout_id)
        return {state.value: count for state in RolloutNodeState if (count := sum(row.state is state for row in rows))}

    async def report(
        self,
        row: RolloutNode,
        state: UpdateState = UpdateState.UPDATED,
        *,
        build: str = "",
        code: str = "update_failed",
    ) -> None:
        """What the node says became of it."""
        error = None if state is UpdateState.UPDATED else ErrorBody(code=code, message=f"because of {code}")
        report = UpdateReport(
            attempt_id=row.attempt_id or "",
            state=state,
            build=build,
            from_build=OLD_BUILD,
            finished_at=self.bench.clock().timestamp(),
            error=error,
        )
        async with self.bench.database.write() as session:
            await record_update_report(session, row.node_id, report, clock=self.bench.clock)

    async def succeed_all(self, rollout_id: str, build: str) -> int:
        """Every node that was asked reports success; how many."""
        rows = await self.nodes(rollout_id, RolloutNodeState.SENT)
        for row in rows:
            await self.report(row, build=build)
        return len(rows)

    async def turn(self, *, seconds: float = 0) -> None:
        """One step, so much later."""
        self.bench.clock.advance(seconds=seconds)
        await self.loop.turn()

    async def actions(self) -> list[str]:
        """What the audit log says, in order."""
        async with self.bench.database.read() as session:
            return list((await session.execute(select(AuditEntry.action).order_by(AuditEntry.id))).scalars())
