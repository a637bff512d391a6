"""What comes back for releases and rollouts; beside bootstrap, since it joins the fleet's loop with core's changes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from controller.core.context import SYSTEM
from controller.core.events.publisher import EventPublisher
from controller.core.operations import FleetContext, Operations
from controller.db.engine import Database
from controller.fleet.fleet import Fleet
from controller.fleet.rollouts.loop import TURN_SECONDS, RolloutLoop
from controller.jobs.schedules import Schedule, Schedules

RELEASE_SECONDS: Final = 600.0
"""How often a newly installed bundle is looked for; the first time at the start."""
REQUEST_ID: Final = "schedule"


def make_rollout_loop(
    database: Database, operations: Operations, fleet: Fleet, publisher: EventPublisher
) -> RolloutLoop:
    """The loop, whose changes go the way of all changes."""

    async def change(use_case: Callable[[Any], Awaitable[None]]) -> None:
        await operations.change(SYSTEM, REQUEST_ID, use_case)

    return RolloutLoop(
        database=database, change=change, nodes=fleet.nodes, record=fleet.rollouts.record, publisher=publisher
    )


def add_rollout_schedules(schedules: Schedules, loop: RolloutLoop, operations: Operations, fleet: Fleet) -> None:
    """Move rollouts along; register the bundle that this controller serves."""

    async def register(ctx: FleetContext) -> str | None:
        release = await fleet.releases.ensure_own(ctx)
        return None if release is None else f"registered {release.build}"

    async def run_register() -> str | None:
        return (await operations.change(SYSTEM, REQUEST_ID, register)).resource

    schedules.add(Schedule(name="rollouts.advance", every_seconds=TURN_SECONDS, run=loop.turn, first_after_seconds=0))
    schedules.add(
        Schedule(name="releases.register", every_seconds=RELEASE_SECONDS, run=run_register, first_after_seconds=0)
    )
