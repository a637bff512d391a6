"""What the fleet asks about accounts; what accounts ask of the fleet is controller.core.operations.Fleet."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import exists, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.accounts.converge import converge_account
from controller.core.accounts.models import Account
from controller.core.context import SYSTEM
from controller.core.operations import FleetContext, Operations
from controller.core.packages.models import Package
from controller.fleet.ports import Committed
from controller.jobs.models import Job
from controller.jobs.states import UNFINISHED
from shared.protocol.job import JobMode


async def committed_by_node(session: AsyncSession) -> Mapping[str, Committed]:
    """Node id to what its accounts were promised; unlimited counts as nothing, as nobody was promised a size."""
    statement = (
        select(
            Account.node_id,
            func.count(),
            func.coalesce(func.sum(Package.memory_bytes), 0),
            func.coalesce(func.sum(Package.disk_bytes), 0),
        )
        .join(Package, Package.id == Account.package_id)
        .where(Account.deleted_at.is_(None))
        .group_by(Account.node_id)
    )
    rows = await session.execute(statement)
    return {
        node_id: Committed(accounts=count, memory_bytes=int(memory or 0), disk_bytes=int(disk or 0))
        for node_id, count, memory, disk in rows
        if node_id is not None
    }


class Reconverger:
    """Asks for the accounts of a node again, when it came back without them or with an older state."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    async def __call__(self, node_id: str, is_everything: bool) -> None:  # noqa: FBT001 - positional by the fleet's contract
        """Converge all accounts of the node, or those that are behind and that nobody is working on."""

        async def use_case(ctx: FleetContext) -> None:
            statement = select(Account).where(Account.node_id == node_id, Account.deleted_at.is_(None))
            if not is_everything:
                is_moving = exists().where(
                    Job.account_id == Account.id, Job.mode == JobMode.APPLY, Job.state.in_(UNFINISHED)
                )
                statement = statement.where(Account.observed_generation < Account.desired_generation, ~is_moving)
            for account in (await ctx.session.scalars(statement.order_by(Account.id))).all():
                await converge_account(ctx, account, reason="node came back")

        await self._operations.change(SYSTEM, f"reconverge/{node_id}", use_case)
