"""Puts rules together: what follows events, what acts, and what comes back."""

from __future__ import annotations

from controller.core.events.catalogue import Catalogue
from controller.core.operations import Operations
from controller.core.reactions import Reactions
from controller.core.rules.following import RuleBook
from controller.core.rules.runner import FORGET_SECONDS, SWEEP_SECONDS, RuleRunner
from controller.jobs.schedules import Schedule, Schedules
from controller.jobs.tasks import Tasks


def connect_rules(
    operations: Operations, reactions: Reactions, tasks: Tasks, schedules: Schedules, catalogue: Catalogue
) -> None:
    """From now on each change and each result is shown to the rules, and what applies is done."""
    runner = RuleRunner(operations.database, operations)
    reactions.add(RuleBook(tasks, catalogue))
    operations.attach_tasks(tasks, runner.kinds())

    async def sweep() -> str | None:
        return await runner.sweep(tasks)

    schedules.add(Schedule(name="rules.run", every_seconds=SWEEP_SECONDS, run=sweep))
    schedules.add(Schedule(name="rules.forget", every_seconds=FORGET_SECONDS, run=runner.forget_old))
