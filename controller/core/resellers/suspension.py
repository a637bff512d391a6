"""Suspending resellers: at once what they may sell, as a task what they sold."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import structlog
from sqlalchemy import select

from controller.core.accounts.models import Account, AccountState
from controller.core.accounts.suspension import suspend_account, unsuspend_account
from controller.core.accounts.views import AccountSuspend
from controller.core.clients.models import Client
from controller.core.context import SYSTEM
from controller.core.fields import require_text
from controller.core.operations import FleetContext, Operations
from controller.core.resellers import store
from controller.core.resellers.models import SuspendedAccount
from controller.core.resellers.service import note, view
from controller.core.resellers.views import ResellerSuspend, ResellerView
from controller.core.tenancy.models import Reseller
from controller.jobs.tasks import TaskKind, TaskRun
from shared.errors import ConflictError

SUSPEND: Final = "reseller.suspend_accounts"
UNSUSPEND: Final = "reseller.unsuspend_accounts"
BATCH: Final = 50
"""Accounts in one transaction: changes are serialised, so each batch holds up everybody else for its time."""

_log = structlog.get_logger("controller.resellers")


async def suspend_reseller(ctx: FleetContext, reseller_id: str, params: ResellerSuspend) -> ResellerView:
    """Let nothing new be made for a reseller, and stop serving its accounts if that is wanted.

    Raises:
        ForbiddenError, InvalidInputError, NotFoundError
        ConflictError: It is suspended already.
    """
    ctx.actor.require_platform("resellers", "write")
    reseller = await store.get_reseller(ctx.session, reseller_id)
    reason = require_text("reason", params.reason, high=500)
    if reseller.suspended_at is not None:
        raise ConflictError(f"the reseller {reseller.name!r} is suspended already")
    before = await view(ctx, reseller)
    reseller.suspended_at, reseller.suspension_reason, reseller.updated_at = ctx.now, reason, ctx.now
    await ctx.session.flush()
    if params.with_accounts:
        await ctx.later(SUSPEND, {"reseller_id": reseller.id, "since": ctx.now.isoformat()})
    return await note(ctx, "reseller.suspend", reseller, before=before)


async def unsuspend_reseller(ctx: FleetContext, reseller_id: str) -> ResellerView:
    """Let a reseller sell again; accounts come back that the suspension suspended, and no others.

    Raises:
        ForbiddenError, NotFoundError
        ConflictError: It is not suspended.
    """
    ctx.actor.require_platform("resellers", "write")
    reseller = await store.get_reseller(ctx.session, reseller_id)
    if reseller.suspended_at is None:
        raise ConflictError(f"the reseller {reseller.name!r} is not suspended")
    before = await view(ctx, reseller)
    since = reseller.suspended_at
    reseller.suspended_at, reseller.suspension_reason, reseller.updated_at = None, "", ctx.now
    await ctx.session.flush()
    statement = select(SuspendedAccount.id).where(SuspendedAccount.reseller_id == reseller.id).limit(1)
    if (await ctx.session.scalars(statement)).first() is not None:
        await ctx.later(UNSUSPEND, {"reseller_id": reseller.id, "since": since.isoformat()})
    return await note(ctx, "reseller.unsuspend", reseller, before=before)


class ResellerSuspensions:
    """The tasks, a batch of accounts in a transaction; safe to run again from the beginning."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    def kinds(self) -> tuple[TaskKind, ...]:
        """For Tasks.register."""
        return (TaskKind(name=SUSPEND, run=self._suspend), TaskKind(name=UNSUSPEND, run=self._unsuspend))

    async def _suspend(self, run: TaskRun) -> str:
        count, after = 0, ""
        while True:
            batch = _Batch(str(run.args["reseller_id"]), datetime.fromisoformat(str(run.args["since"])), after)
            outcome = await self._operations.change(SYSTEM, f"reseller/{batch.reseller_id}", batch.suspend)
            if not outcome.resource:
                return f"{count} accounts suspended"
            count, after = count + batch.done, outcome.resource

    async def _unsuspend(self, run: TaskRun) -> str:
        count, after = 0, ""
        while True:
            batch = _Batch(str(run.args["reseller_id"]), datetime.fromisoformat(str(run.args["since"])), after)
            outcome = await self._operations.change(SYSTEM, f"reseller/{batch.reseller_id}", batch.unsuspend)
            if not outcome.resource:
                return f"{count} accounts unsuspended"
            count, after = count + batch.done, outcome.resource


class _Batch:
    """Some accounts of one suspension."""

    def __init__(self, reseller_id: str, since: datetime, after: str) -> None:
        self.reseller_id = reseller_id
        self._since = since
        self._after = after
        self.done = 0

    async def suspend(self, ctx: FleetContext) -> str:
        """Id of the last account that was looked at; empty: there are no more, or the suspension was lifted."""
        self.done = 0
        reseller = await ctx.session.get_one(Reseller, self.reseller_id)
        if reseller.suspended_at != self._since:
            return ""
        statement = (
            select(Account)
            .join(Client, Client.id == Account.client_id)
            .where(Client.reseller_id == reseller.id, Account.deleted_at.is_(None), Account.id > self._after)
        )
        accounts = (await ctx.session.scalars(statement.order_by(Account.id).limit(BATCH))).all()
        kept = await _read_kept(ctx, [account.id for account in accounts])
        for account in accounts:
            row = kept.get(account.id)
            if row is not None and account.suspended_at == row.suspended_at:
                row.since = self._since  # of the suspension before, whose end has not come to it yet
            elif account.state is AccountState.ACTIVE:
                self.done += await self._suspend_one(ctx, account, reseller.suspension_reason, row)
        await ctx.session.flush()
        return accounts[-1].id if accounts else ""

    async def _suspend_one(self, ctx: FleetContext, account: Account, reason: str, row: SuspendedAccount | None) -> int:
        words = f"reseller suspended: {reason}" if reason else "reseller suspended"
        try:
            await suspend_account(ctx, account.id, AccountSuspend(reason=words[:500]))
        except ConflictError as error:
            # Its node was revoked: nothing can be done to it, and the others are still to be suspended.
            _log.warning("reseller.suspend", account=account.name, error=error.message)
            return 0
        if row is None:
            row = SuspendedAccount(account_id=account.id)
            ctx.session.add(row)
        row.reseller_id, row.since, row.suspended_at = self.reseller_id, self._since, ctx.now
        return 1

    async def unsuspend(self, ctx: FleetContext) -> str:
        """Id of the last row that was looked at; empty: there are no more."""
        self.done = 0
        statement = select(SuspendedAccount).where(
            SuspendedAccount.reseller_id == self.reseller_id,
            SuspendedAccount.since == self._since,
            SuspendedAccount.id > self._after,
        )
        rows = (await ctx.session.scalars(statement.order_by(SuspendedAccount.id).limit(BATCH))).all()
        for row in rows:
            account = await ctx.session.get_one(Account, row.account_id)
            await ctx.session.delete(row)
            if account.state is AccountState.SUSPENDED and account.suspended_at == row.suspended_at:
                self.done += await _unsuspend_one(ctx, account)
        await ctx.session.flush()
        return rows[-1].id if rows else ""


async def _unsuspend_one(ctx: FleetContext, account: Account) -> int:
    try:
        await unsuspend_account(ctx, account.id)
    except ConflictError as error:
        _log.warning("reseller.unsuspend", account=account.name, error=error.message)
        return 0
    return 1


async def _read_kept(ctx: FleetContext, ids: Sequence[str]) -> dict[str, SuspendedAccount]:
    rows = await ctx.session.scalars(select(SuspendedAccount).where(SuspendedAccount.account_id.in_(ids)))
    return {row.account_id: row for row in rows}
