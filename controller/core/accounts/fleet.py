"""What the fleet asks about accounts; what accounts ask of the fleet is controller.core.operations.Fleet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import structlog
from sqlalchemy import ColumnElement, Select, case, exists, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.accounts.converge import converge_account
from controller.core.accounts.models import Account
from controller.core.context import SYSTEM
from controller.core.operations import FleetContext, Operations
from controller.core.packages.models import Package, PackageVersion
from controller.db.criteria import EVERYBODY
from controller.db.engine import Database
from controller.db.prepared import Prepared, param
from controller.fleet.ports import Committed
from controller.jobs.models import Job
from controller.jobs.states import UNFINISHED
from controller.jobs.tasks import TaskKind, TaskRun, Tasks
from shared.protocol.job import JobMode

RECONVERGE_NODE: Final = "node.reconverge"
RECONVERGE_PACKAGE: Final = "package.reconverge"
BATCH: Final = 50
"""Accounts in one transaction: changes are serialised, so each batch holds up everybody else for its time."""

_log = structlog.get_logger("controller.accounts")


async def committed_by_node(session: AsyncSession) -> Mapping[str, Committed]:
    """Node id to what the accounts of all tenants were promised; unlimited counts as nothing: nobody named a size."""
    statement = (
        select(
            Account.node_id,
            func.count(),
            func.coalesce(func.sum(_promised("memory_bytes")), 0),
            func.coalesce(func.sum(_promised("disk_bytes")), 0),
        )
        .join(Package, Package.id == Account.package_id)
        .outerjoin(PackageVersion, PackageVersion.id == Account.package_version_id)
        .where(Account.deleted_at.is_(None))
        .group_by(Account.node_id)
    )
    rows = await session.execute(statement.execution_options(**EVERYBODY))
    return {
        node_id: Committed(accounts=count, memory_bytes=int(memory or 0), disk_bytes=int(disk or 0))
        for node_id, count, memory, disk in rows
        if node_id is not None
    }


def _promised(name: str) -> ColumnElement[int | None]:
    pinned, newest = getattr(PackageVersion, name), getattr(Package, name)
    return case((Account.package_version_id.is_not(None), pinned), else_=newest)


def select_accounts_of_node(node_id: str, *, is_everything: bool) -> Select[Account]:
    """All accounts of the node, or those that are behind and that nobody is working on."""
    statement = select(Account).where(Account.node_id == node_id, Account.deleted_at.is_(None))
    if is_everything:
        return statement
    is_moving = exists().where(Job.account_id == Account.id, Job.mode == JobMode.APPLY, Job.state.in_(UNFINISHED))
    return statement.where(Account.observed_generation < Account.desired_generation, ~is_moving)


_BEHIND: Final = Prepared(
    select(Account.id)
    .where(
        Account.node_id == param("node_id"),
        Account.deleted_at.is_(None),
        Account.observed_generation < Account.desired_generation,
    )
    .limit(1)
)


async def queue_reconverge(database: Database, tasks: Tasks, node_id: str, *, is_everything: bool) -> None:
    """Let the accounts of a node be asked for again, when it came back without them or with an older state."""
    if not is_everything and not await database.glance(_BEHIND, node_id=node_id):
        return  # the usual case at every reconnect, ten thousand times after a restart

    async def is_due(session: AsyncSession) -> bool:
        if is_everything:
            return True
        behind = select_accounts_of_node(node_id, is_everything=False).limit(1)
        return (await session.scalars(behind)).first() is not None  # None: somebody works on all of them

    args = {"node_id": node_id, "is_everything": is_everything}
    key = f"{RECONVERGE_NODE}/{node_id}/{is_everything}"
    await tasks.add_when_due(is_due, RECONVERGE_NODE, args, dedup_key=key)


class Reconvergence:
    """Tasks that ask for many accounts again, a batch in a transaction, so that nobody waits for all of them."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    def kinds(self) -> tuple[TaskKind, ...]:
        """For Tasks.register."""
        return (
            TaskKind(name=RECONVERGE_NODE, run=self._run_node),
            TaskKind(name=RECONVERGE_PACKAGE, run=self._run_package),
        )

    async def _run_node(self, run: TaskRun) -> str:
        """args: node_id, is_everything."""
        node_id = str(run.args["node_id"])
        statement = select_accounts_of_node(node_id, is_everything=bool(run.args["is_everything"]))
        return await self._run_all(run, statement, f"reconverge/{node_id}", "node came back")

    async def _run_package(self, run: TaskRun) -> str:
        """args: package_id, after (an account's id)."""
        package_id = str(run.args["package_id"])
        statement = select(Account).where(
            Account.package_id == package_id,
            Account.package_version_id.is_(None),
            Account.deleted_at.is_(None),
            Account.id > str(run.args["after"]),
        )
        return await self._run_all(run, statement, f"package/{package_id}", "its package changed")

    async def _run_all(self, run: TaskRun, statement: Select[Account], request_id: str, reason: str) -> str:
        count, after = 0, ""
        while True:
            converged = await self._converge_batch(statement.where(Account.id > after), request_id, reason)
            if not converged:
                return f"{count} accounts asked for again"
            count, after = count + len(converged), converged[-1]
            _log.info("accounts.reconverged", task_id=run.task_id, count=count)

    async def _converge_batch(self, statement: Select[Account], request_id: str, reason: str) -> list[str]:
        async def use_case(ctx: FleetContext) -> list[str]:
            accounts = (await ctx.session.scalars(statement.order_by(Account.id).limit(BATCH))).all()
            for account in accounts:
                await converge_account(ctx, account, reason=reason)
            return [account.id for account in accounts]

        return (await self._operations.change(SYSTEM, request_id, use_case)).resource
