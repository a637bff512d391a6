"""What runs in a process of a controller, in which order it starts and ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from controller.core.audit.witnesses import Witnesses
from controller.fleet.fleet import Fleet
from controller.jobs.engine import JobEngine
from controller.jobs.hints import Hints
from controller.jobs.schedules import Schedules
from controller.jobs.tasks import Tasks
from controller.metrics.registry import ControllerMetrics
from controller.roles import Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Machinery:
    """Everything that has a life of its own."""

    role: Role
    hints: Hints
    fleet: Fleet
    engine: JobEngine
    schedules: Schedules
    tasks: Tasks
    metrics: ControllerMetrics
    witnesses: Witnesses

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run what the role asks for while the block does; it ends in the opposite order.

        The gateway starts before the engine and ends before it: its results find the engine's observers.
        """
        role = self.role
        lag = asyncio.create_task(self.metrics.watch_event_loop(), name="event-loop-lag")
        async with AsyncExitStack() as stack:
            stack.callback(lag.cancel)
            stack.push_async_callback(self.hints.stop)
            await self.hints.start()
            stack.push_async_callback(self.engine.stop)
            stack.push_async_callback(self.fleet.stop)
            await self.fleet.start(serves_agents=role.serves_agents)
            await self.engine.start(works=role.works, serves_agents=role.serves_agents)
            if role.serves_agents:
                stack.push_async_callback(self.witnesses.stop)
                await self.witnesses.start()
            stack.push_async_callback(self.tasks.stop)
            await self.tasks.start(works=role.works)
            if role.works:
                stack.push_async_callback(self.schedules.stop)
                await self.schedules.start()
            yield
