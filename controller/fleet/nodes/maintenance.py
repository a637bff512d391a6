"""Use cases that keep work away from a node for a while: maintenance, and drain (before a reboot, for example)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from controller.fleet.models import Node
from controller.fleet.nodes.nodes import get_active_node, get_node
from controller.fleet.ports import ChangeNote, FleetOp, Recorder
from controller.jobs.commands import retry_job
from controller.jobs.holds import HoldKind, NodeHold, count_active, find_hold, free_waiting, list_holds
from shared.errors import ConflictError, InvalidInputError, StaleGenerationError

MAX_AHEAD: Final = timedelta(days=90)


class Maintenance:
    """Use cases; each runs in the transaction of its context. What a node serves is never touched by them."""

    def __init__(self, record: Recorder) -> None:
        self._record = record

    async def start(self, op: FleetOp, node_id: str, *, reason: str, until: datetime | None) -> NodeHold:
        """Send the node nothing that changes it until then (None: until somebody ends it). Again: new reason and end.

        Raises:
            ForbiddenError, NotFoundError, InvalidInputError
            ConflictError: The node is not active.
        """
        return await self._hold(op, node_id, HoldKind.MAINTENANCE, reason=reason, until=until, is_cancelling=False)

    async def end(self, op: FleetOp, node_id: str) -> list[str]:
        """Let the waiting work flow. Returns jobs that were asked for anew, because their signatures had run out.

        Raises:
            ForbiddenError, NotFoundError
            ConflictError: The node is not in maintenance.
        """
        return await self._release(op, node_id, HoldKind.MAINTENANCE)

    async def drain(
        self, op: FleetOp, node_id: str, *, reason: str, deadline: datetime | None, is_cancelling: bool
    ) -> NodeHold:
        """Cordon the node, send it nothing that changes it, and let what runs come to its end.

        Args:
            op: Who asks.
            node_id: The node.
            reason: For people.
            deadline: When somebody is told of what still runs; None: never.
            is_cancelling: Also ask the node at that time to cancel it.

        Raises:
            ForbiddenError, NotFoundError, InvalidInputError
            ConflictError: The node is not active.
        """
        if is_cancelling and deadline is None:
            raise InvalidInputError("work can be cancelled at a deadline only", field="deadline")
        kind = HoldKind.DRAIN
        hold = await self._hold(op, node_id, kind, reason=reason, until=deadline, is_cancelling=is_cancelling)
        node = await get_node(op.session, node_id)
        node.is_cordoned, node.updated_at = True, op.now
        hold.is_overdue = False
        await op.session.flush()
        if hold.settled_at is None and not await count_active(op.session, node_id):
            hold.settled_at = op.now
        await op.session.flush()
        return hold

    async def undrain(self, op: FleetOp, node_id: str) -> list[str]:
        """End the drain and uncordon, unless the node was cordoned before. Returns as `end`.

        Raises:
            ForbiddenError, NotFoundError
            ConflictError: The node is not being drained.
        """
        return await self._release(op, node_id, HoldKind.DRAIN)

    async def _hold(
        self,
        op: FleetOp,
        node_id: str,
        kind: HoldKind,
        *,
        reason: str,
        until: datetime | None,
        is_cancelling: bool,
    ) -> NodeHold:
        op.actor.require("nodes", "write")
        node = await get_active_node(op.session, node_id)
        _require_end(until, kind, now=op.now)
        hold = await find_hold(op.session, node_id, kind)
        before = state_of_hold(hold) if hold is not None else None
        if hold is None:
            hold = NodeHold(node_id=node_id, kind=kind, since=op.now, was_cordoned=node.is_cordoned)
            op.session.add(hold)
        hold.reason, hold.until, hold.is_cancelling = _require_reason(reason), until, is_cancelling
        hold.actor, hold.actor_name = op.actor.reference, getattr(op.actor, "name", op.actor.reference)
        hold.updated_at = op.now
        await op.session.flush()
        self._note(op, node, f"node.{_VERBS[kind][0]}", before, state_of_hold(hold))
        return hold

    async def _release(self, op: FleetOp, node_id: str, kind: HoldKind) -> list[str]:
        op.actor.require("nodes", "write")
        node = await get_node(op.session, node_id)
        hold = await find_hold(op.session, node_id, kind)
        if hold is None:
            what = "in maintenance" if kind is HoldKind.MAINTENANCE else "being drained"
            raise ConflictError(f"the node {node.name} is not {what}")
        if kind is HoldKind.DRAIN and not hold.was_cordoned:
            node.is_cordoned, node.updated_at = False, op.now
        before = state_of_hold(hold)
        await op.session.delete(hold)
        await op.session.flush()
        self._note(op, node, f"node.{_VERBS[kind][1]}", before, None)
        if await list_holds(op.session, node_id):
            return []
        return await _ask_again(op, await free_waiting(op.session, node_id, now=op.now))

    def _note(
        self, op: FleetOp, node: Node, action: str, before: dict[str, Any] | None, after: dict[str, Any] | None
    ) -> None:
        target = f"node/{node.id}"
        self._record(op, ChangeNote(action=action, target=target, target_name=node.name, before=before, after=after))


_VERBS: Final = {
    HoldKind.MAINTENANCE: ("start_maintenance", "end_maintenance"),
    HoldKind.DRAIN: ("drain", "undrain"),
}


async def _ask_again(op: FleetOp, job_ids: list[str]) -> list[str]:
    """The same jobs, to be signed anew; what a newer change replaced meanwhile is not wanted any more."""
    again = []
    for job_id in job_ids:
        actor, request_id = op.actor.reference, op.request_id[:64]
        try:
            again.append(await retry_job(op.session, job_id, actor=actor, request_id=request_id, now=op.now))
        except StaleGenerationError:
            continue
    return again


async def list_nodes_held(session: AsyncSession) -> dict[str, list[NodeHold]]:
    """Node id to its holds, of all nodes that have any."""
    found: dict[str, list[NodeHold]] = {}
    for hold in await list_holds(session):
        found.setdefault(hold.node_id, []).append(hold)
    return found


def state_of_hold(hold: NodeHold) -> dict[str, Any]:
    """For the audit log."""
    return {
        "reason": hold.reason,
        "since": msgspec.to_builtins(hold.since),
        "until": msgspec.to_builtins(hold.until),
        "is_cancelling": hold.is_cancelling,
    }


def _require_end(until: datetime | None, kind: HoldKind, *, now: datetime) -> None:
    if until is not None and not now < until <= now + MAX_AHEAD:
        field = "until" if kind is HoldKind.MAINTENANCE else "deadline"
        raise InvalidInputError(f"it must be in the future, {MAX_AHEAD.days} days at most", field=field)


def _require_reason(reason: str) -> str:
    words = " ".join(reason.split())
    if not 1 <= len(words) <= 500 or not words.isprintable():
        raise InvalidInputError("1 to 500 printable characters", field="reason")
    return words
