"""A fleet with its engine and its gateway on a free port."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import select

from controller.core.audit.chain import record
from controller.core.context import SYSTEM, Actor, Change, Role
from controller.core.manifest import ManifestRegistry
from controller.core.operations import FleetContext, Operations
from controller.db.base import utc_now
from controller.db.engine import Database
from controller.fleet.enrolment.tokens import TokenParams
from controller.fleet.fleet import Fleet, FleetParts, FleetPorts
from controller.fleet.models import Node
from controller.fleet.ports import ChangeNote
from controller.fleet.signing.signer import LocalSigner
from controller.jobs.engine import JobEngine
from controller.jobs.models import Job as JobRow
from controller.jobs.models import JobTransition
from controller.jobs.queue import JobRequest, request_job
from controller.jobs.states import JobState
from controller.settings import Settings
from shared.errors import FleetError
from shared.protocol.enrolment import EnrolmentReply, EnrolmentRequest, EnrolmentState
from shared.protocol.job import ACTION_NOOP
from tests.integration.fleet.agent import FakeAgent, Machine

ADMIN = Actor(kind="user", id="admin", name="admin", role=Role.ROOT)
TIMEOUT_SECONDS = 15.0


class Clock:
    """The time, moved by hand from where it really is."""

    def __init__(self) -> None:
        self._offset = timedelta()

    def __call__(self) -> datetime:
        return utc_now() + self._offset

    def advance(self, **options: float) -> None:
        self._offset += timedelta(**options)


@dataclass
class Ear:
    """A publisher that remembers."""

    heard: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)

    def is_heard(self, topic: str) -> bool:
        return bool(topic)

    def publish(self, topic: str, event: str, data: Mapping[str, Any]) -> None:
        self.heard.append((topic, event, dict(data)))

    def events(self, topic: str) -> list[str]:
        return [event for heard_topic, event, _ in self.heard if heard_topic == topic]


@dataclass
class FleetBench:
    """Everything a test of the fleet needs."""

    settings: Settings
    database: Database
    engine: JobEngine
    fleet: Fleet
    operations: Operations
    signer: LocalSigner
    ear: Ear
    clock: Clock
    reconverged: list[tuple[str, bool]]

    # --- enrolment ----------------------------------------------------------------------------------------------------

    async def token(self, **options: Any) -> str:
        outcome = await self.operations.change(
            ADMIN, "request-token", lambda ctx: self.fleet.create_token(ctx, TokenParams(**options))
        )
        return outcome.resource.token

    async def post_enrol(self, request: EnrolmentRequest, *, address: str = "10.0.0.1") -> EnrolmentReply:
        """As the API's handler does it."""
        outcome = await self.operations.change(
            SYSTEM, "request-enrol", lambda ctx: self.fleet.enrolments.enrol(ctx, request, address=address)
        )
        if isinstance(outcome.resource, FleetError):
            raise outcome.resource
        return outcome.resource

    async def enrol(self, **options: Any) -> FakeAgent:
        """An approved node with its agent, not connected."""
        machine = Machine()
        reply = await self.post_enrol(machine.request(await self.token(**options)))
        assert reply.state is EnrolmentState.APPROVED
        return FakeAgent(self, machine, reply)

    # --- looking ------------------------------------------------------------------------------------------------------

    async def node(self, node_id: str) -> Node:
        async with self.database.read() as session:
            return (await session.execute(select(Node).where(Node.id == node_id))).scalar_one()

    async def job(self, job_id: str) -> JobRow:
        async with self.database.read() as session:
            return (await session.execute(select(JobRow).where(JobRow.id == job_id))).scalar_one()

    async def jobs(self, node_id: str) -> list[JobRow]:
        async with self.database.read() as session:
            statement = select(JobRow).where(JobRow.node_id == node_id).order_by(JobRow.id)
            return list((await session.execute(statement)).scalars())

    async def path(self, job_id: str) -> list[str]:
        """The states a job went through, in order."""
        async with self.database.read() as session:
            statement = select(JobTransition).where(JobTransition.job_id == job_id).order_by(JobTransition.id)
            return [row.to_state.value for row in (await session.execute(statement)).scalars()]

    async def request(self, node_id: str, **options: Any) -> str:
        """Ask for a job, as a use case does."""
        values: dict[str, Any] = {
            "action": ACTION_NOOP,
            "args": b"",
            "resource_key": f"test/{uuid.uuid4()}",
            "actor": "user/admin",
            "request_id": "request-test",
        }
        async with self.database.write() as session:
            job_request = JobRequest(node_id=node_id, **(values | options))
            job_id = await request_job(session, job_request, now=self.clock())
        self.engine.notify()
        return job_id

    async def wait_state(self, job_id: str, *states: JobState) -> JobRow:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while (job := await self.job(job_id)).state not in states:  # noqa: ASYNC110 - the truth is in the database
                await asyncio.sleep(0.01)
            return job

    async def change(self, use_case: Any) -> Any:
        return (await self.operations.change(ADMIN, "request-change", use_case)).resource


def note_change(ctx: FleetContext, note: ChangeNote) -> None:
    record(
        ctx,
        Change(
            action=note.action,
            target=note.target,
            target_name=note.target_name,
            before=note.before,
            after=note.after,
        ),
    )


def build_bench(
    database: Database, data_dir: Path, clock: Clock | None = None, *, signer: Any = None, **overrides: Any
) -> FleetBench:
    """Put a fleet together; nothing runs yet."""
    values: dict[str, Any] = {
        "data_dir": data_dir,
        "gateway_host": "127.0.0.1",
        "gateway_port": 0,
        "public_names": ("127.0.0.1",),
        "controller_url": "https://127.0.0.1:8360",
    }
    settings = Settings(**(values | overrides))
    ear, clock = Ear(), clock or Clock()
    signer = signer or LocalSigner(data_dir / "pki", clock=clock)
    engine = JobEngine(database, signer, publisher=ear, clock=clock)
    reconverged: list[tuple[str, bool]] = []

    async def reconverge(node_id: str, is_everything: bool) -> None:
        reconverged.append((node_id, is_everything))

    async def change(use_case: Any) -> None:
        await operations.change(SYSTEM, "fleet", use_case)

    fleet = Fleet(
        FleetParts(
            settings=settings,
            database=database,
            engine=engine,
            publisher=ear,
            signer=signer,
            ports=FleetPorts(record=note_change, reconverge=reconverge, change=change),
            clock=clock,
        )
    )
    operations = Operations(
        database, registry=ManifestRegistry(), fleet=fleet, engine=engine, publisher=ear, clock=clock
    )
    fleet.open_keys()
    return FleetBench(settings, database, engine, fleet, operations, signer, ear, clock, reconverged)


@asynccontextmanager
async def running(bench: FleetBench) -> AsyncIterator[FleetBench]:
    """The bench with its tasks, until the block ends."""
    await bench.fleet.start()
    await bench.engine.start()
    try:
        yield bench
    finally:
        await bench.fleet.stop()
        await bench.engine.stop()
