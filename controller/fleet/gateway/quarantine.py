"""Two machines with one identity (a cloned disk): noticed by how they take the session from each other, then stopped.

Nobody can tell from here which of them is the real one, so neither gets a job until somebody has looked. What they
serve goes on.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from sqlalchemy import update

from controller.fleet.models import Node, NodeState
from controller.fleet.ports import ChangeNote, FleetOp, Recorder
from shared.errors import ConflictError, NotFoundError
from shared.protocol.frames import Hello

WINDOW: Final = timedelta(minutes=5)
TAKEOVERS_MAX: Final = 3
"""Takeovers within the window by another boot or machine than the one before; see `note_machine`."""


class _Seen(msgspec.Struct, frozen=True):
    """Who took the session over, and when (seconds since the epoch)."""

    at: float
    machine: str
    boot: str


def note_machine(node: Node, hello: Hello, *, now: datetime) -> str:
    """Remember who says hello; returns why the node has to be stopped, empty when it has not.

    A machine that reboots again and again shows a new boot each time, and never an old one: that is no clone. Two
    machines come back with what they had shown before, or show two machine ids.
    """
    here = _Seen(now.timestamp(), hello.machine_id_hash[:64], hello.boot_id[:64])
    seen = [item for item in _read(node.recent_machines) if item.at > (now - WINDOW).timestamp()]
    if seen and (seen[-1].machine, seen[-1].boot) == (here.machine, here.boot):
        # The same one again: it counts as one, and stays in sight for as long as it goes on coming.
        seen[-1] = here
    else:
        seen.append(here)
    node.recent_machines = msgspec.to_builtins(seen[-2 * TAKEOVERS_MAX :])
    distinct = {(item.machine, item.boot) for item in seen}
    machines = {item.machine for item in seen}
    takeovers = len(seen) - 1
    if takeovers < TAKEOVERS_MAX or (len(distinct) == len(seen) and len(machines) == 1):
        return ""
    minutes = WINDOW.total_seconds() / 60
    return (
        f"{len(distinct)} machines use this identity: "
        f"they took the session from each other {takeovers} times in {minutes:g} minutes"
    )


def forget_machines(node: Node) -> None:
    """Begin to count anew."""
    node.recent_machines = []


def _read(raw: list[Any]) -> list[_Seen]:
    return msgspec.convert(raw, list[_Seen])


class Quarantine:
    """Use cases; each runs in the transaction of its context."""

    def __init__(self, record: Recorder) -> None:
        self._record = record

    async def impose(self, op: FleetOp, node_id: str, reason: str) -> None:
        """Stop the node: no sessions, no jobs; those that wait go on waiting. Again: nothing happens."""
        stopped = (
            update(Node)
            .where(Node.id == node_id, Node.state == NodeState.ACTIVE)
            .values(
                state=NodeState.QUARANTINED,
                quarantined_at=op.now,
                quarantine_reason=reason[:500],
                is_connected=False,
                gateway_id=None,
            )
            .returning(Node.name)
            .execution_options(synchronize_session=False)
        )
        name = (await op.session.execute(stopped)).scalar_one_or_none()
        if name is not None:
            self._note(op, node_id, name, "node.quarantine", reason)

    async def release(self, op: FleetOp, node_id: str) -> Node:
        """Let the node work again, after somebody stopped the other machine (or enrolled it as one of its own).

        Raises:
            ForbiddenError, NotFoundError
            ConflictError: It is not in quarantine.
        """
        op.actor.require("nodes", "write")
        node = await op.session.get(Node, node_id, populate_existing=True)
        if node is None:
            raise NotFoundError(f"there is no node {node_id[:80]!r}")
        if node.state is not NodeState.QUARANTINED:
            raise ConflictError(f"the node {node.name} is {node.state.value}")
        reason = node.quarantine_reason
        node.state, node.quarantined_at, node.quarantine_reason = NodeState.ACTIVE, None, ""
        node.updated_at = op.now
        forget_machines(node)
        await op.session.flush()
        self._note(op, node.id, node.name, "node.release", reason)
        return node

    def _note(self, op: FleetOp, node_id: str, name: str, action: str, reason: str) -> None:
        after = {"name": name, "reason": reason}
        self._record(op, ChangeNote(action=action, target=f"node/{node_id}", target_name=name, after=after))
