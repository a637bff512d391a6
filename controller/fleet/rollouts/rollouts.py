"""Use cases of rollouts: one change that goes over the fleet in waves, and stops by itself when it does harm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from controller.fleet.models import Node, NodeState
from controller.fleet.nodes.manifest import MODULES
from controller.fleet.nodes.nodes import require_settings
from controller.fleet.ports import ChangeNote, FleetOp, Recorder
from controller.fleet.rollouts.models import (
    Release,
    Rollout,
    RolloutKind,
    RolloutNode,
    RolloutNodeState,
    RolloutState,
)
from controller.fleet.rollouts.plan import assign_waves, parse_waves
from controller.fleet.rollouts.releases import find_newest, get_release
from controller.fleet.rollouts.steps import require_state, try_again
from controller.fleet.rollouts.views import RolloutCreate
from controller.jobs.holds import held_node_ids
from shared.errors import ConflictError, InvalidInputError, NotFoundError

MAX_NODES: Final = 20_000


@dataclass(frozen=True, slots=True)
class Rollouts:
    """Each runs in the transaction of its context."""

    record: Recorder

    async def create(self, op: FleetOp, params: RolloutCreate) -> Rollout:
        """Plan the waves; the first one begins at the next turn of the controller's schedule.

        Raises:
            ForbiddenError
            InvalidInputError: The change, the waves or the choice of nodes make no sense.
            NotFoundError: There is no such release, module or node.
            ConflictError: Another rollout of the same thing is under way, or there is nothing to roll out.
        """
        op.actor.require("rollouts", "write")
        waves = parse_waves(params.waves)
        release = await _require_change(op.session, params)
        await _require_alone(op.session, params)
        nodes = await _choose_nodes(op.session, params)
        row = Rollout(
            kind=params.kind,
            name=params.name,
            state=RolloutState.RUNNING,
            release_id=release.id if release else None,
            change=_change_of(params),
            waves=list(waves),
            wave=0,
            soak_seconds=params.soak_seconds,
            max_failures=params.max_failures,
            failures_forgiven=0,
            node_timeout_seconds=params.node_timeout_seconds,
            deadline_at=op.now + timedelta(hours=params.deadline_hours),
            actor=op.actor.reference[:80],
            request_id=op.request_id[:64],
        )
        op.session.add(row)
        await op.session.flush()
        places = assign_waves(waves, len(nodes))
        op.session.add_all(
            RolloutNode(rollout_id=row.id, node_id=node.id, wave=place, state=RolloutNodeState.WAITING)
            for node, place in zip(nodes, places, strict=True)
        )
        await op.session.flush()
        counts = [places.count(index) for index in range(len(waves))]
        what = {"release": release.build} if release else dict(row.change)
        after = {"kind": row.kind.value, **what, "waves": list(waves), "nodes_per_wave": counts}
        self._note(op, row, "rollout.create", None, after)
        return row

    async def pause(self, op: FleetOp, rollout_id: str) -> Rollout:
        """Begin no more nodes; what was begun on a node ends there.

        Raises:
            ForbiddenError, NotFoundError
            ConflictError: It does not run.
        """
        row = await self._get(op, rollout_id)
        require_state(row, RolloutState.RUNNING)
        await recall_unoffered(op.session, row.id)
        return self._move(op, row, "rollout.pause", RolloutState.PAUSED, "paused")

    async def resume(self, op: FleetOp, rollout_id: str, *, is_retrying: bool) -> Rollout:
        """Go on, also after it stopped itself: failures so far no longer count. `is_retrying`: they are tried again.

        Raises:
            ForbiddenError, NotFoundError
            ConflictError: It runs, or has ended.
        """
        row = await self._get(op, rollout_id)
        require_state(row, RolloutState.PAUSED, RolloutState.HALTED)
        failed = [node for node in await list_rollout_nodes(op.session, row.id) if node.state.value == "failed"]
        if is_retrying:
            for node in failed:
                try_again(node)
                node.attempt_id = None
        row.failures_forgiven = 0 if is_retrying else len(failed)
        return self._move(op, row, "rollout.resume", RolloutState.RUNNING, "")

    async def abort(self, op: FleetOp, rollout_id: str) -> Rollout:
        """End it; nodes that have the change keep it.

        Raises:
            ForbiddenError, NotFoundError
            ConflictError: It has ended.
        """
        row = await self._get(op, rollout_id)
        require_state(row, RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.HALTED)
        await recall_unoffered(op.session, row.id)
        waiting = update(RolloutNode).where(
            RolloutNode.rollout_id == row.id, RolloutNode.state == RolloutNodeState.WAITING
        )
        ended = waiting.values(state=RolloutNodeState.SKIPPED, note="the rollout was aborted", finished_at=op.now)
        await op.session.execute(ended.execution_options(synchronize_session=False))
        row.finished_at = op.now
        return self._move(op, row, "rollout.abort", RolloutState.ABORTED, "")

    async def _get(self, op: FleetOp, rollout_id: str) -> Rollout:
        op.actor.require("rollouts", "write")
        return await get_rollout(op.session, rollout_id, is_locked=True)

    def _move(self, op: FleetOp, row: Rollout, action: str, state: RolloutState, blocked_by: str) -> Rollout:
        before = {"state": row.state.value}
        row.state, row.blocked_by, row.healthy_since, row.updated_at = state, blocked_by, None, op.now
        self._note(op, row, action, before, {"state": state.value})
        return row

    def _note(
        self, op: FleetOp, row: Rollout, action: str, before: dict[str, Any] | None, after: dict[str, Any]
    ) -> None:
        note = ChangeNote(
            action=action, target=f"rollout/{row.id}", target_name=name_of(row), before=before, after=after
        )
        self.record(op, note)


def name_of(row: Rollout) -> str:
    """What people call it."""
    return row.name or f"{row.kind.value} {row.change.get('module', '')}".strip()


async def get_rollout(session: AsyncSession, rollout_id: str, *, is_locked: bool = False) -> Rollout:
    """The rollout.

    Raises:
        NotFoundError: There is none.
    """
    statement = select(Rollout).where(Rollout.id == rollout_id).execution_options(populate_existing=True)
    row = (await session.execute(statement.with_for_update() if is_locked else statement)).scalar_one_or_none()
    if row is None:
        raise NotFoundError(f"there is no rollout {rollout_id[:80]!r}")
    return row


async def list_rollout_nodes(session: AsyncSession, rollout_id: str) -> list[RolloutNode]:
    """Its nodes, in the order of their waves."""
    statement = select(RolloutNode).where(RolloutNode.rollout_id == rollout_id)
    ordered = statement.order_by(RolloutNode.wave, RolloutNode.id).execution_options(populate_existing=True)
    return list((await session.execute(ordered)).scalars())


async def recall_unoffered(session: AsyncSession, rollout_id: str) -> None:
    """Updates that no node has heard of yet wait again."""
    unheard = update(RolloutNode).where(
        RolloutNode.rollout_id == rollout_id,
        RolloutNode.state == RolloutNodeState.SENT,
        RolloutNode.job_id.is_(None),
        RolloutNode.offered_epoch.is_(None),
    )
    waiting = unheard.values(state=RolloutNodeState.WAITING, attempt_id=None, sent_at=None, note="")
    await session.execute(waiting.execution_options(synchronize_session=False))


async def _require_change(session: AsyncSession, params: RolloutCreate) -> Release | None:
    """The release of an update; None for settings of a module, which are checked."""
    if params.kind is RolloutKind.AGENT_UPDATE:
        if params.module is not None or params.presence is not None or params.settings is not None:
            raise InvalidInputError("an update of the agent has no module", field="module")
        return await _require_release(session, params.release_id)
    if params.release_id is not None:
        raise InvalidInputError("settings of a module have no release", field="release_id")
    if params.module is None:
        raise InvalidInputError("which module?", field="module")
    if params.presence is None:
        raise InvalidInputError("how much of the module: absent, disabled or enabled?", field="presence")
    if params.module not in MODULES:
        raise NotFoundError(f"there is no module {params.module[:40]!r}")
    if params.settings is not None:
        require_settings(params.settings)
    return None


async def _require_release(session: AsyncSession, release_id: str | None) -> Release:
    if release_id is not None:
        return await get_release(session, release_id)
    newest = await find_newest(session)
    if newest is None:
        raise NotFoundError("there is no release", hint="Register one: wcp360 releases create.")
    return newest


def _change_of(params: RolloutCreate) -> dict[str, Any]:
    if params.presence is None:
        return {}
    return {"module": params.module, "presence": params.presence.value, "settings": params.settings}


async def _require_alone(session: AsyncSession, params: RolloutCreate) -> None:
    """Two of the same kind would undo each other."""
    open_ones = select(Rollout).where(
        Rollout.kind == params.kind, Rollout.state.not_in((RolloutState.FINISHED, RolloutState.ABORTED))
    )
    for other in (await session.execute(open_ones)).scalars():
        if params.module is None or other.change.get("module") == params.module:
            raise ConflictError(
                f"the rollout {name_of(other)} is {other.state.value}", hint=f"Abort it first: {other.id}."
            )


async def _choose_nodes(session: AsyncSession, params: RolloutCreate) -> Sequence[Node]:
    """Active nodes that were meant; those that can take it now come first, so that the first wave is one of them."""
    statement = select(Node).where(Node.state == NodeState.ACTIVE).order_by(Node.id)
    if params.node_ids:
        statement = statement.where(Node.id.in_(params.node_ids))
    found = list((await session.execute(statement)).scalars())
    unknown = sorted(set(params.node_ids) - {node.id for node in found})
    if unknown:
        raise NotFoundError(f"there is no active node {unknown[0][:80]!r}")
    meant = [
        node for node in found if set(params.roles) <= set(node.roles) and params.labels.items() <= node.labels.items()
    ]
    if not meant:
        raise ConflictError("no active node is meant by this choice")
    if len(meant) > MAX_NODES:
        raise InvalidInputError(f"at most {MAX_NODES} nodes", field="node_ids")
    held = await held_node_ids(session)
    return sorted(meant, key=lambda node: (not node.is_connected, node.is_cordoned or node.id in held, node.id))
