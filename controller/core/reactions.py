"""Shows every change and every result of a node to whoever follows them: webhooks and rules.

Invariant: in the transaction of what happened. Most installations follow nothing, and a result is the most frequent
transaction there is, so all of them are asked for with one small statement before anything else is looked up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from sqlalchemy import ColumnElement, select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.operations import FleetContext, Operations
from controller.core.webhooks.audience import OwnerFinder, Owners
from controller.jobs.engine import JobEngine
from controller.jobs.models import Job
from shared.protocol.job import JobResult


class Follower(Protocol):
    """Somebody who wants to know."""

    def is_there(self) -> ColumnElement[bool]:
        """Condition: there is somebody to tell."""
        ...

    async def add_changes(self, ctx: FleetContext, owners: Sequence[Owners]) -> None:
        """What was changed, and whose each thing is."""
        ...

    async def add_result(self, session: AsyncSession, job: Job, whose: Owners) -> None:
        """A job is done, well or not."""
        ...


class Reactions:
    """All followers."""

    def __init__(self) -> None:
        """Nobody yet."""
        self._followers: Final[list[Follower]] = []

    def add(self, follower: Follower) -> None:
        """To be told from now on, after those before."""
        self._followers.append(follower)

    async def add_changes(self, ctx: FleetContext) -> None:
        """For Operations, at the end of each change."""
        if not ctx.changes:
            return
        followers = await self._list_those_there(ctx.session)
        if not followers:
            return
        finder = OwnerFinder(ctx.session)
        owners = [await finder.of_change(change) for change in ctx.changes]
        for follower in followers:
            await follower.add_changes(ctx, owners)

    async def on_result(self, session: AsyncSession, job: Job, result: JobResult) -> None:  # noqa: ARG002 - the engine's contract
        """For the job engine: a result, in the transaction that stores it."""
        followers = await self._list_those_there(session)
        if not followers:
            return
        whose = await OwnerFinder(session).of_account(job.account_id)
        for follower in followers:
            await follower.add_result(session, job, whose)

    async def _list_those_there(self, session: AsyncSession) -> list[Follower]:
        if not self._followers:
            return []
        there = (await session.execute(select(*(follower.is_there() for follower in self._followers)))).one()
        return [follower for follower, is_there in zip(self._followers, there, strict=True) if is_there]


def connect_reactions(operations: Operations, engine: JobEngine) -> Reactions:
    """From now on each change and each result is shown to those who are added."""
    reactions = Reactions()
    operations.on_change(reactions.add_changes)
    engine.on_result(reactions.on_result)
    return reactions
