"""Measuring: one pass over all accounts, a batch in a transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

from sqlalchemy import delete, select

from controller.core.accounts.models import Account, AccountState
from controller.core.audit.chain import record
from controller.core.context import SYSTEM, Change
from controller.core.limits.registry import LimitKind
from controller.core.operations import FleetContext, Operations
from controller.core.packages.terms import Terms, hard_of, soft_of, terms_of
from controller.core.policies.book import read_policies
from controller.core.usage.figures import FindSample, collect_figures
from controller.core.usage.models import AccountFigure, AccountMeter, AccountUsage, OveruseCase, UsageDay
from controller.core.usage.overuse import apply_policy

MEASURE_SECONDS: Final = 3600.0
BATCH: Final = 100
"""Accounts in one transaction: changes are serialised, so each batch holds up everybody else for its time."""

Rows = dict[tuple[str, str], AccountUsage]


class UsageLedger:
    """Bootstrap builds one and lets it come back."""

    def __init__(self, operations: Operations, find_sample: FindSample | None = None) -> None:
        """`find_sample`: what a node said last about its accounts; None: nobody says anything."""
        self._operations = operations
        self._find_sample = find_sample

    async def run(self) -> str | None:
        """Measure every account, act by policy, forget old days. Safe to run again from the beginning."""
        await self.collect()
        count, after = 0, ""
        while True:
            outcome = await self._operations.change(SYSTEM, "schedule/usage.measure", _Batch(after).measure)
            if not outcome.resource:
                break
            count, after = count + len(outcome.resource), outcome.resource[-1]
        await self._operations.change(SYSTEM, "schedule/usage.measure", _forget)
        return f"{count} accounts measured" if count else None

    async def collect(self) -> str | None:
        """Keep what the nodes' latest samples say of their accounts."""
        if self._find_sample is None:
            return None
        count = await collect_figures(self._operations.database, self._find_sample, self._operations.now())
        return f"{count} accounts" if count else None


async def _forget(ctx: FleetContext) -> None:
    """Old days; and what deleted accounts used last, of which only the days stay."""
    gone = select(Account.id).where(Account.deleted_at.is_not(None))
    await ctx.session.execute(delete(AccountUsage).where(AccountUsage.account_id.in_(gone)))
    await ctx.session.execute(delete(AccountFigure).where(AccountFigure.account_id.in_(gone)))
    await ctx.session.execute(delete(OveruseCase).where(OveruseCase.account_id.in_(gone)))
    keep = timedelta(days=(await read_policies(ctx.session)).usage_retention_days)
    oldest = (ctx.now - keep).date()
    await ctx.session.execute(delete(UsageDay).where(UsageDay.day < oldest))
    await ctx.session.execute(delete(AccountMeter).where(AccountMeter.month < oldest.replace(day=1)))


class _Batch:
    """The accounts after one id."""

    def __init__(self, after: str) -> None:
        self._after = after

    async def measure(self, ctx: FleetContext) -> list[str]:
        """Ids of the accounts that were measured, in order."""
        states = (AccountState.ACTIVE, AccountState.SUSPENDED)
        statement = select(Account).where(
            Account.id > self._after, Account.deleted_at.is_(None), Account.state.in_(states)
        )
        accounts = (await ctx.session.scalars(statement.order_by(Account.id).limit(BATCH))).all()
        ids = [account.id for account in accounts]
        if ids:
            await measure_accounts(ctx, accounts)
        return ids


async def measure_accounts(ctx: FleetContext, accounts: Sequence[Account]) -> None:
    """Write what these accounts use now, note what crossed a limit, and act by policy."""
    ids = [account.id for account in accounts]
    kinds = ctx.registry.limits.counted
    counts = {kind.key: await kind.count(ctx.session, ids) for kind in kinds if kind.count is not None}
    found = await ctx.session.scalars(select(AccountUsage).where(AccountUsage.account_id.in_(ids)))
    rows: Rows = {(row.account_id, row.limit_key): row for row in found}
    days = await _read_days(ctx, ids)
    for account in accounts:
        terms = await terms_of(ctx.session, account)
        for kind in kinds:
            used = counts[kind.key].get(account.id, None if kind.is_measured else 0)
            if used is None:
                continue  # its node has not said yet
            _note_day(ctx, account, kind.key, used, days)
            _note_use(ctx, account, kind, terms, (used, rows))
    await ctx.session.flush()
    for account in accounts:
        await apply_policy(
            ctx, account, [rows[at] for kind in kinds if _is_too_much(rows, at := (account.id, kind.key), kind)]
        )


def _is_too_much(rows: Rows, at: tuple[str, str], kind: LimitKind) -> bool:
    row = rows.get(at)
    is_soft_binding = kind.is_measured and not kind.is_monthly
    return row is not None and (row.over_since is not None or (is_soft_binding and row.near_since is not None))


async def _read_days(ctx: FleetContext, ids: Sequence[str]) -> dict[tuple[str, str], UsageDay]:
    statement = select(UsageDay).where(UsageDay.account_id.in_(ids), UsageDay.day == ctx.now.date())
    return {(row.account_id, row.limit_key): row for row in await ctx.session.scalars(statement)}


def _note_day(
    ctx: FleetContext, account: Account, key: str, used: int, days: Mapping[tuple[str, str], UsageDay]
) -> None:
    row = days.get((account.id, key))
    if row is None:
        row = UsageDay(account_id=account.id, limit_key=key, day=ctx.now.date(), peak=used)
        ctx.session.add(row)
    row.package_id, row.last, row.peak = account.package_id, used, max(row.peak, used)


def _note_use(ctx: FleetContext, account: Account, kind: LimitKind, terms: Terms, known: tuple[int, Rows]) -> None:
    used, rows = known
    row = rows.get((account.id, kind.key))
    if row is None:
        row = AccountUsage(account_id=account.id, limit_key=kind.key, peak=used, peak_at=ctx.now)
        rows[account.id, kind.key] = row
        ctx.session.add(row)
    before = state_of(row)
    row.used, row.measured_at = used, ctx.now
    row.soft, row.hard = soft_of(terms, kind.key), hard_of(terms, kind.key)
    if used > row.peak:
        row.peak, row.peak_at = used, ctx.now
    is_over = row.hard is not None and used > row.hard
    is_near = not is_over and row.soft is not None and used > row.soft
    row.over_since = (row.over_since or ctx.now) if is_over else None
    row.near_since = (row.near_since or ctx.now) if is_near else None
    after = state_of(row)
    if after != before:
        action = {"over": "account.over_limit", "near": "account.near_limit", "ok": "account.within_limit"}[after]
        figures = {"limit": kind.key, "used": used, "soft": row.soft, "hard": row.hard}
        record(ctx, Change(action, f"account/{account.id}", account.name, after=figures))


def state_of(row: AccountUsage) -> str:
    """over, near (over the soft value) or ok."""
    return "over" if row.over_since is not None else "near" if row.near_since is not None else "ok"
