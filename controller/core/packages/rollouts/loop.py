"""Moves package rollouts along: what became of the accounts that were asked, whether it may go on, who is next.

Run by a schedule, so in exactly one process at a time; safe to run again, since every step starts from the rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import or_, select

from controller.core.accounts.converge import converge_account
from controller.core.accounts.models import Account, AccountState
from controller.core.audit.chain import record
from controller.core.context import SYSTEM, Change
from controller.core.events.publisher import EventPublisher
from controller.core.operations import FleetContext, Operations
from controller.core.packages.definition import COLUMNS, values_of
from controller.core.packages.models import Package, PackageVersion
from controller.core.packages.rollouts.models import PackageRollout, PackageRolloutAccount
from controller.core.packages.rollouts.service import get_package_rollout
from controller.fleet.models import Node, NodeState
from controller.fleet.rollouts.models import RolloutNodeState, RolloutState
from controller.fleet.rollouts.plan import Standing
from controller.fleet.rollouts.steps import end, judge, watch, why_not_now
from controller.jobs.holds import held_node_ids
from controller.jobs.models import Job
from controller.jobs.states import FINAL, JobState
from shared.errors import FleetError

TURN_SECONDS: Final = 2.0
SENDS_PER_TURN: Final = 100
"""Changes are serialised, so each batch holds up everybody else for its time."""
_WAITING, _SENT, _SUCCEEDED = RolloutNodeState.WAITING, RolloutNodeState.SENT, RolloutNodeState.SUCCEEDED
_FAILED, _SKIPPED = RolloutNodeState.FAILED, RolloutNodeState.SKIPPED


@dataclass(slots=True)
class _Sight:
    """What is looked at of every account at every turn: columns only, since a package may have ten thousand."""

    row_id: str
    wave: int
    state: RolloutNodeState
    note: str
    sent_at: datetime | None
    lost_at: datetime | None
    generation: int
    job_state: JobState | None
    name: str
    account_state: AccountState
    observed_generation: int
    node_id: str | None
    node_state: NodeState | None
    is_connected: bool | None

    @property
    def is_well(self) -> bool:
        """Its node is connected, or not supposed to be any more."""
        return bool(self.is_connected) or self.node_state is not NodeState.ACTIVE

    @property
    def is_gone(self) -> bool:
        """Nobody wants it any more."""
        return self.account_state not in (AccountState.ACTIVE, AccountState.SUSPENDED)


_SIGHT: Final = (
    select(
        PackageRolloutAccount.id,
        PackageRolloutAccount.wave,
        PackageRolloutAccount.state,
        PackageRolloutAccount.note,
        PackageRolloutAccount.sent_at,
        PackageRolloutAccount.lost_at,
        PackageRolloutAccount.generation,
        Job.state,
        Account.name,
        Account.state,
        Account.observed_generation,
        Account.node_id,
        Node.state,
        Node.is_connected,
    )
    .join(Account, Account.id == PackageRolloutAccount.account_id)
    .outerjoin(Node, Node.id == Account.node_id)
    .outerjoin(Job, Job.id == PackageRolloutAccount.job_id)
    .order_by(PackageRolloutAccount.wave, PackageRolloutAccount.id)
)


class PackageRolloutLoop:
    """Bootstrap builds one and lets it come back."""

    def __init__(self, operations: Operations, publisher: EventPublisher) -> None:
        self._operations = operations
        self._publisher = publisher

    async def turn(self) -> str | None:
        """Move every running rollout by one step; how many there are, for the schedule.

        One that was paused, halted or aborted moves no more, but what it had begun on nodes ends: that is collected.
        """
        is_awaited = PackageRollout.id.in_(
            select(PackageRolloutAccount.rollout_id).where(PackageRolloutAccount.state == _SENT)
        )
        moving = select(PackageRollout.id).where(or_(PackageRollout.state == RolloutState.RUNNING, is_awaited))
        async with self._operations.database.read() as session:
            ids = list(await session.scalars(moving.order_by(PackageRollout.id)))
        for rollout_id in ids:
            await self._advance(rollout_id)
        return f"{len(ids)} under way" if ids else None

    async def _advance(self, rollout_id: str) -> None:
        async def use_case(ctx: FleetContext) -> tuple[object, object, str]:
            rollout = await get_package_rollout(ctx, rollout_id, is_locked=True)
            found = await ctx.session.execute(_SIGHT.where(PackageRolloutAccount.rollout_id == rollout_id))
            rows: list[tuple[Any, ...]] = [tuple(row) for row in found]
            turn = _Turn(ctx, rollout, [_Sight(*row) for row in rows])
            before = turn.summary()
            await turn.collect()
            if rollout.state is RolloutState.RUNNING:
                await turn.judge()
            if rollout.state is RolloutState.RUNNING:
                await turn.send()
            return before, turn.summary(), rollout.state.value

        before, after, state = (await self._operations.change(SYSTEM, "schedule/packages.rollouts", use_case)).resource
        if before != after:
            self._publisher.publish("packages", "package_rollout.changed", {"id": rollout_id, "state": state})


class _Turn:
    """One step of one rollout, in one transaction."""

    def __init__(self, ctx: FleetContext, rollout: PackageRollout, sights: list[_Sight]) -> None:
        self._ctx = ctx
        self._rollout = rollout
        self._sights = sights
        self._patience = timedelta(seconds=rollout.account_timeout_seconds)

    def summary(self) -> tuple[Any, ...]:
        """What changes when there is something to tell."""
        rollout = self._rollout
        states = tuple(sight.state for sight in self._sights)
        return (rollout.state.value, rollout.wave, rollout.blocked_by, states)

    async def _row(self, sight: _Sight) -> PackageRolloutAccount:
        return await self._ctx.session.get_one(PackageRolloutAccount, sight.row_id, populate_existing=True)

    # --- what became of it --------------------------------------------------------------------------------------------

    async def collect(self) -> None:
        """Bring the rows up to what is known now."""
        is_running = self._rollout.state is RolloutState.RUNNING
        for sight in self._sights:
            if sight.state is _SENT and self._has_ended(sight):
                row = await self._row(sight)
                await self._collect_sent(sight, row)
                sight.state, sight.note = row.state, row.note
            elif is_running and sight.state is _SUCCEEDED and (not sight.is_well or sight.lost_at is not None):
                row = await self._row(sight)
                watch(row, is_well=sight.is_well, patience=self._patience, now=self._ctx.now)
                sight.state, sight.note, sight.lost_at = row.state, row.note, row.lost_at

    def _has_ended(self, sight: _Sight) -> bool:
        is_late = sight.sent_at is not None and self._ctx.now - sight.sent_at > self._patience
        is_there = sight.observed_generation >= sight.generation
        return sight.is_gone or is_there or sight.job_state in FINAL - {JobState.SUPERSEDED} or is_late

    async def _collect_sent(self, sight: _Sight, row: PackageRolloutAccount) -> None:
        now = self._ctx.now
        if sight.is_gone:
            end(row, _SKIPPED, "the account was deleted", now=now)
            return
        account = await self._ctx.session.get_one(Account, row.account_id, populate_existing=True)
        if sight.job_state is JobState.SUCCEEDED:
            end(row, _SUCCEEDED, "", now=now)
        elif sight.job_state in FINAL - {JobState.SUPERSEDED}:
            job = await self._ctx.session.get_one(Job, row.job_id, populate_existing=True)
            note = job.error_message or account.observed_message or f"its job ended as {job.state.value}"
            end(row, _FAILED, note, code=job.error_code or job.state.value, now=now)
        elif sight.observed_generation >= sight.generation:
            # A newer change of the account took this one along.
            code = account.observed_code
            end(row, _FAILED if code else _SUCCEEDED, account.observed_message or "", code=code, now=now)
        else:
            end(row, _FAILED, "no answer in time", code="timeout", now=now)

    # --- whether it goes on -------------------------------------------------------------------------------------------

    async def judge(self) -> None:
        """Halt, finish, or go to the next wave."""
        await self._skip_hopeless()
        standings = [
            Standing(name=sight.name, wave=sight.wave, state=sight.state, is_connected=sight.is_well, note=sight.note)
            for sight in self._sights
        ]
        verdict = judge(self._rollout, standings, noun="account", now=self._ctx.now)
        if verdict.halt_reason:
            self._end("package_rollout.halt", RolloutState.HALTED, verdict.halt_reason)
        elif verdict.is_finished:
            self._end("package_rollout.finish", RolloutState.FINISHED, "")

    async def _skip_hopeless(self) -> None:
        is_late = self._ctx.now > self._rollout.deadline_at
        for sight in self._sights:
            if sight.state is not _WAITING or not (is_late or sight.is_gone):
                continue
            row = await self._row(sight)
            note = f"not until the deadline: {sight.note or 'its wave did not come'}"
            end(row, _SKIPPED, "the account was deleted" if sight.is_gone else note, now=self._ctx.now)
            sight.state, sight.note = row.state, row.note

    def _end(self, action: str, state: RolloutState, reason: str) -> None:
        rollout = self._rollout
        before, rollout.state = {"state": rollout.state.value}, state
        after = {"state": state.value, "reason": reason} if reason else {"state": state.value}
        target = f"package_rollout/{rollout.id}"
        record(self._ctx, Change(action, target, rollout.package_name, before=before, after=after))

    # --- who is next --------------------------------------------------------------------------------------------------

    async def send(self) -> None:
        """Let accounts of the waves so far follow the newest version; the others say why they wait."""
        held = await held_node_ids(self._ctx.session)
        reached = [sight for sight in self._sights if sight.state is _WAITING and sight.wave <= self._rollout.wave]
        room = SENDS_PER_TURN
        for sight in reached:
            reason = why_not_now(is_connected=bool(sight.is_connected), is_held=sight.node_id in held)
            if reason and reason != sight.note:
                row = await self._row(sight)
                sight.note = row.note = reason
            elif not reason and room:
                room -= 1
                row = await self._row(sight)
                await self._send_one(row)
                sight.state, sight.note = row.state, row.note

    async def _send_one(self, row: PackageRolloutAccount) -> None:
        ctx = self._ctx
        row.sent_at, row.note, row.error_code = ctx.now, "", None
        account = await ctx.session.get_one(Account, row.account_id, populate_existing=True)
        before = await ctx.session.get_one(PackageVersion, row.version_before_id)
        reason = _why_never(account, before, is_retried=row.generation > 0)
        if reason:
            end(row, _SKIPPED, reason, now=ctx.now)
            return
        package = await ctx.session.get_one(Package, account.package_id)
        registry = ctx.registry.limits
        old, new = values_of(before, registry), values_of(package, registry)
        account.package_version_id, account.updated_at = None, ctx.now
        if all(old[name] == new[name] for name in COLUMNS) and row.generation == 0:
            end(row, _SUCCEEDED, "its node has nothing to do", now=ctx.now)
            return
        try:
            row.job_id = await converge_account(
                ctx, account, reason=f"package {package.name} version {package.version}"
            )
        except FleetError as error:
            end(row, _FAILED, error.message, code=error.code, now=ctx.now)
            return
        row.state, row.generation = _SENT, account.desired_generation


def _why_never(account: Account, before: PackageVersion, *, is_retried: bool) -> str:
    """Why the rollout has nothing to do with the account any more; empty when it has."""
    if account.package_id != before.package_id:
        return "it has another package by now"
    if account.package_version_id == before.id or (account.package_version_id is None and is_retried):
        return ""
    if account.package_version_id is None:
        return "somebody let it follow the newest version"
    return "somebody pinned it to another version"
