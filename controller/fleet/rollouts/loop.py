"""Moves rollouts along: what became of the nodes that were asked, whether it may go on, whom to ask next.

Run by a schedule, so in exactly one process at a time; safe to run again, since every step starts from the rows.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, Protocol

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.db.base import new_id
from controller.db.engine import Database
from controller.fleet.models import Node, NodeModule, NodeState
from controller.fleet.nodes.nodes import Nodes
from controller.fleet.ports import ChangeNote, FleetOp, Publisher, Recorder
from controller.fleet.rollouts.models import Release, Rollout, RolloutNode, RolloutNodeState, RolloutState
from controller.fleet.rollouts.plan import Standing
from controller.fleet.rollouts.rollouts import get_rollout, name_of, recall_unoffered
from controller.fleet.rollouts.steps import end, judge, watch, why_not_now
from controller.jobs.holds import held_node_ids
from controller.jobs.models import Job
from controller.jobs.states import FINAL, JobState
from shared.errors import FleetError
from shared.protocol.update import UpdateReport, UpdateState
from shared.specs.base import Presence

TURN_SECONDS: Final = 2.0
SENDS_PER_TURN: Final = 500
"""All of them fetch a bundle, or get a job, at once; the next ones follow a moment later."""
_ROWS_PER_QUERY: Final = 500
UPDATES_FROM_CAPABILITY: Final = 2
"""Older agents have no updater."""
TRIED_AGAIN: Final = frozenset({"node_busy", "update_interrupted"})
"""Refusals that say nothing about the release."""


class RolloutOp(FleetOp, Protocol):
    """A use case that knows which jobs it has asked for (controller.core.operations.FleetContext)."""

    @property
    def job_ids(self) -> list[str]: ...


RunChange = Callable[[Callable[[Any], Awaitable[None]]], Awaitable[None]]
"""Runs a use case in a transaction of its own, as the controller itself (controller.core.operations)."""


@dataclass(frozen=True, slots=True)
class _Pair:
    """One node of a rollout, and the node itself."""

    row: RolloutNode
    node: Node


@dataclass(slots=True)
class _Sight:
    """What is looked at of every node at every turn: columns only, since a fleet may have ten thousand."""

    row_id: str
    node_id: str
    wave: int
    state: RolloutNodeState
    note: str
    sent_at: datetime | None
    lost_at: datetime | None
    job_state: JobState | None
    name: str
    node_state: NodeState
    is_connected: bool
    is_cordoned: bool
    build: str

    @property
    def is_well(self) -> bool:
        """Connected, or not supposed to be any more."""
        return self.is_connected or self.node_state is not NodeState.ACTIVE


_SIGHT: Final = (
    select(
        RolloutNode.id,
        RolloutNode.node_id,
        RolloutNode.wave,
        RolloutNode.state,
        RolloutNode.note,
        RolloutNode.sent_at,
        RolloutNode.lost_at,
        Job.state,
        Node.name,
        Node.state,
        Node.is_connected,
        Node.is_cordoned,
        Node.agent_build,
    )
    .join(Node, Node.id == RolloutNode.node_id)
    .outerjoin(Job, Job.id == RolloutNode.job_id)
    .order_by(RolloutNode.wave, RolloutNode.id)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutLoop:
    """See the module."""

    database: Database
    change: RunChange
    nodes: Nodes
    record: Recorder
    publisher: Publisher

    async def turn(self) -> str | None:
        """Move every running rollout by one step; how many there are, for the schedule.

        One that was paused, halted or aborted moves no more, but what it had begun on nodes ends: that is collected.
        """
        is_awaited = Rollout.id.in_(select(RolloutNode.rollout_id).where(RolloutNode.state == RolloutNodeState.SENT))
        moving = select(Rollout.id).where(or_(Rollout.state == RolloutState.RUNNING, is_awaited)).order_by(Rollout.id)
        async with self.database.read() as session:
            ids = list((await session.execute(moving)).scalars())
        for rollout_id in ids:
            seen: list[tuple[Any, ...]] = []
            await self.change(partial(self._advance, rollout_id=rollout_id, seen=seen))
            if len(seen) == 2 and seen[0] != seen[1]:
                self.publisher.publish("rollouts", "rollout.changed", {"id": rollout_id, "state": seen[1][0]})
        return f"{len(ids)} under way" if ids else None

    async def _advance(self, op: RolloutOp, *, rollout_id: str, seen: list[tuple[Any, ...]]) -> None:
        rollout = await get_rollout(op.session, rollout_id, is_locked=True)
        found = await op.session.execute(_SIGHT.where(RolloutNode.rollout_id == rollout_id))
        rows: list[tuple[Any, ...]] = [tuple(row) for row in found]
        turn = _Turn(self, op, rollout, [_Sight(*row) for row in rows])
        seen[:] = [turn.summary()]
        await turn.collect()
        if rollout.state is RolloutState.RUNNING:
            await turn.judge()
        if rollout.state is RolloutState.RUNNING:
            await turn.send()
        seen.append(turn.summary())


class _Turn:
    """One step of one rollout, in one transaction."""

    def __init__(self, loop: RolloutLoop, op: RolloutOp, rollout: Rollout, sights: list[_Sight]) -> None:
        self._loop = loop
        self._op = op
        self._rollout = rollout
        self._sights = sights
        self._timeout = timedelta(seconds=rollout.node_timeout_seconds)
        self._release: Release | None = None

    @property
    def _now(self) -> datetime:
        return self._op.now

    def summary(self) -> tuple[Any, ...]:
        """What changes when there is something to tell."""
        rollout = self._rollout
        states = tuple(sight.state for sight in self._sights)
        return (rollout.state.value, rollout.wave, rollout.blocked_by, states)

    async def _load(self, sights: list[_Sight]) -> AsyncIterator[tuple[_Sight, _Pair]]:
        """The rows of those that something is done about; what becomes of them is seen afterwards."""
        for start in range(0, len(sights), _ROWS_PER_QUERY):
            some = {sight.row_id: sight for sight in sights[start : start + _ROWS_PER_QUERY]}
            wanted = select(RolloutNode, Node).join(Node, Node.id == RolloutNode.node_id)
            wanted = wanted.where(RolloutNode.id.in_(some)).order_by(RolloutNode.wave, RolloutNode.id)
            found = await self._op.session.execute(wanted.execution_options(populate_existing=True))
            for row, node in found.all():
                sight = some[row.id]
                yield sight, _Pair(row, node)
                sight.state, sight.note, sight.sent_at, sight.lost_at = row.state, row.note, row.sent_at, row.lost_at

    # --- what became of it --------------------------------------------------------------------------------------------

    async def collect(self) -> None:
        """Bring the rows up to what is known now."""
        if self._rollout.release_id is not None:
            self._release = await self._op.session.get(Release, self._rollout.release_id)
        sent = [sight for sight in self._sights if sight.state is RolloutNodeState.SENT and self._has_ended(sight)]
        async for sight, pair in self._load(sent):
            await self._collect_sent(sight, pair)
        if self._rollout.state is not RolloutState.RUNNING:
            return
        done = [sight for sight in self._sights if sight.state is RolloutNodeState.SUCCEEDED]
        changed = [sight for sight in done if not sight.is_well or sight.lost_at is not None]
        async for _, pair in self._load(changed):
            is_well = pair.node.is_connected or pair.node.state is not NodeState.ACTIVE
            watch(pair.row, is_well=is_well, patience=self._timeout, now=self._now)

    def _has_ended(self, sight: _Sight) -> bool:
        has_build = self._release is not None and sight.build == self._release.build
        is_late = sight.sent_at is not None and self._now - sight.sent_at > self._timeout
        return has_build or sight.job_state in FINAL or is_late

    async def _collect_sent(self, sight: _Sight, pair: _Pair) -> None:
        if self._release is not None and sight.build == self._release.build:
            end(pair.row, RolloutNodeState.SUCCEEDED, "", now=self._now)
        elif sight.job_state in FINAL:
            await self._end_with_job(pair, await self._op.session.get_one(Job, pair.row.job_id, populate_existing=True))
        else:
            end(pair.row, RolloutNodeState.FAILED, "no answer in time", code="timeout", now=self._now)

    async def _end_with_job(self, pair: _Pair, job: Job) -> None:
        if job.state is not JobState.SUCCEEDED:
            note = job.error_message or f"its job ended as {job.state.value}"
            end(pair.row, RolloutNodeState.FAILED, note, code=job.error_code or job.state.value, now=self._now)
            return
        name = self._rollout.change.get("module")
        wanted = select(NodeModule).where(NodeModule.node_id == pair.node.id, NodeModule.name == name)
        module = (await self._op.session.execute(wanted)).scalar_one_or_none()
        if module is not None and module.observed_status == "parked":
            end(pair.row, RolloutNodeState.FAILED, module.observed_note, code="parked", now=self._now)
        else:
            end(pair.row, RolloutNodeState.SUCCEEDED, "", now=self._now)

    # --- whether it goes on -------------------------------------------------------------------------------------------

    async def judge(self) -> None:
        """Halt, finish, or go to the next wave."""
        rollout = self._rollout
        await self._skip_hopeless()
        standings = [
            Standing(name=sight.name, wave=sight.wave, state=sight.state, is_connected=sight.is_well, note=sight.note)
            for sight in self._sights
        ]
        verdict = judge(rollout, standings, noun="node", now=self._now)
        if verdict.halt_reason:
            await recall_unoffered(self._op.session, rollout.id)
            self._end("rollout.halt", RolloutState.HALTED, verdict.halt_reason)
        elif verdict.is_finished:
            self._end("rollout.finish", RolloutState.FINISHED, "")

    async def _skip_hopeless(self) -> None:
        is_late = self._now > self._rollout.deadline_at
        waiting = [sight for sight in self._sights if sight.state is RolloutNodeState.WAITING]
        hopeless = [sight for sight in waiting if is_late or sight.node_state is not NodeState.ACTIVE]
        async for sight, pair in self._load(hopeless):
            if sight.node_state is not NodeState.ACTIVE:
                end(pair.row, RolloutNodeState.SKIPPED, f"the node is {sight.node_state.value}", now=self._now)
            else:
                note = f"not until the deadline: {sight.note or 'its wave did not come'}"
                end(pair.row, RolloutNodeState.SKIPPED, note, now=self._now)

    def _end(self, action: str, state: RolloutState, reason: str) -> None:
        rollout = self._rollout
        before, rollout.state = {"state": rollout.state.value}, state
        after = {"state": state.value, "reason": reason} if reason else {"state": state.value}
        note = ChangeNote(
            action=action, target=f"rollout/{rollout.id}", target_name=name_of(rollout), before=before, after=after
        )
        self._loop.record(self._op, note)

    # --- who is next --------------------------------------------------------------------------------------------------

    async def send(self) -> None:
        """Ask nodes of the waves so far that can take it now; the others say why they wait."""
        held = await held_node_ids(self._op.session)
        reached = [
            (sight, _why_not_now(sight, held))
            for sight in self._sights
            if sight.state is RolloutNodeState.WAITING and sight.wave <= self._rollout.wave
        ]
        reasons = {sight.row_id: reason for sight, reason in reached if reason}
        async for sight, pair in self._load([sight for sight, reason in reached if reason and reason != sight.note]):
            pair.row.note = reasons[sight.row_id]
        async for _, pair in self._load([sight for sight, reason in reached if not reason][:SENDS_PER_TURN]):
            await self._send_one(pair)

    async def _send_one(self, pair: _Pair) -> None:
        row = pair.row
        row.sent_at, row.note, row.error_code = self._now, "", None
        if self._release is not None:
            self._ask_for_update(pair, self._release)
            return
        change = self._rollout.change
        try:
            row.before = await _describe_module(self._op.session, pair.node.id, change["module"])
            presence, settings = Presence(change["presence"]), change["settings"]
            await self._loop.nodes.set_module(self._op, pair.node.id, change["module"], presence, settings)
        except FleetError as error:
            end(row, RolloutNodeState.FAILED, error.message, code=error.code, now=self._now)
            return
        row.state, row.job_id = RolloutNodeState.SENT, self._op.job_ids[-1]

    def _ask_for_update(self, pair: _Pair, release: Release) -> None:
        row, node = pair.row, pair.node
        row.before = node.agent_build
        reason = _why_never(node, release)
        if reason:
            end(row, RolloutNodeState.SKIPPED, reason, now=self._now)
        elif node.agent_build == release.build:
            end(row, RolloutNodeState.SUCCEEDED, "it has this release already", now=self._now)
        else:
            row.state, row.attempt_id, row.offered_epoch = RolloutNodeState.SENT, new_id(), None


def _why_not_now(sight: _Sight, held: frozenset[str]) -> str:
    return why_not_now(is_connected=sight.is_connected, is_held=sight.node_id in held, is_cordoned=sight.is_cordoned)


def _why_never(node: Node, release: Release) -> str:
    if node.capability < UPDATES_FROM_CAPABILITY or not node.agent_build:
        return "its agent cannot update itself yet: run the installer there once"
    architecture = node.facts.get("architecture", release.architecture)
    if architecture != release.architecture:
        return f"the release is for {release.architecture}, the node is {architecture}"
    return ""


async def _describe_module(session: AsyncSession, node_id: str, name: str) -> str:
    wanted = select(NodeModule).where(NodeModule.node_id == node_id, NodeModule.name == name)
    row = (await session.execute(wanted)).scalar_one_or_none()
    if row is None:
        return "absent"
    settings = " ".join(f"{key}={value}" for key, value in sorted(row.settings.items()))
    return f"{row.presence.value} {settings}".strip()


async def record_update_report(
    session: AsyncSession, node_id: str, report: UpdateReport, *, clock: Callable[[], datetime]
) -> None:
    """What a node says became of an update; late or twice, it changes nothing that has ended otherwise."""
    now = clock()
    node = await session.get(Node, node_id, populate_existing=True)
    if node is not None and report.state is UpdateState.UPDATED:
        node.agent_build = report.build[:64]
    wanted = select(RolloutNode).where(RolloutNode.attempt_id == report.attempt_id, RolloutNode.node_id == node_id)
    row = (await session.execute(wanted.execution_options(populate_existing=True))).scalar_one_or_none()
    if row is None or row.state not in (RolloutNodeState.SENT, RolloutNodeState.FAILED):
        return
    if report.state is UpdateState.UPDATED:
        end(row, RolloutNodeState.SUCCEEDED, "", now=now)
        return
    code = report.error.code if report.error else report.state.value
    message = report.error.message if report.error else report.state.value
    is_over = (await session.get_one(Rollout, row.rollout_id, populate_existing=True)).state.is_final
    if code in TRIED_AGAIN and row.state is RolloutNodeState.SENT and not is_over:
        row.state, row.note, row.attempt_id = RolloutNodeState.WAITING, message[:2000], None
        return
    prefix = "went back to the version before: " if report.state is UpdateState.ROLLED_BACK else "refused: "
    end(row, RolloutNodeState.FAILED, prefix + message, code=code, now=now)
