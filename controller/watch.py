"""What health checks and metrics of one process look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import func, select, text

from controller.api.handlers.health import Check, Probes
from controller.core.events.publisher import EventPublisher
from controller.db.engine import Database
from controller.fleet.fleet import Fleet
from controller.fleet.signing.signer import Signer
from controller.jobs.models import Job
from controller.metrics.registry import ControllerMetrics
from controller.roles import Role
from shared.errors import UnavailableError


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Looks when somebody asks, not on a timer."""

    role: Role
    database: Database
    fleet: Fleet
    signer: Signer
    publisher: EventPublisher
    metrics: ControllerMetrics

    def make_probes(self) -> Probes:
        """For the handlers of health."""
        return Probes(self.checks(), self.render_metrics)

    def checks(self) -> dict[str, Check]:
        """What this process needs to do its part."""
        checks: dict[str, Check] = {"database": self._check_database, "signer": self._check_signer}
        if self.role.serves_agents:
            checks["gateway"] = self._check_gateway
        return checks

    async def render_metrics(self) -> bytes:
        """In the OpenMetrics text format."""
        self.metrics.set_jobs(await self._count_jobs())
        self.metrics.set_connected(node_count=self.fleet.connected_count, listener_count=self.publisher.listener_count)
        return await self.metrics.render()

    async def _count_jobs(self) -> Mapping[str, int]:
        async with self.database.read() as session:
            rows = (await session.execute(select(Job.state, func.count()).group_by(Job.state))).all()
        return {state.value: count for state, count in rows}

    async def _check_database(self) -> None:
        async with self.database.read() as session:
            await session.execute(text("SELECT 1"))

    async def _check_signer(self) -> None:
        if not await self.signer.current_job_keys():
            raise UnavailableError("no job key is valid now")

    async def _check_gateway(self) -> None:
        if not self.fleet.is_listening:
            raise UnavailableError("the agents' gateway does not listen")
