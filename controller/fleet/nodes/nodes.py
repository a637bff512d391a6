"""Use cases that change nodes."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from controller.fleet.enrolment.enrolment import revoke_certificates
from controller.fleet.models import Node, NodeModule, NodeState
from controller.fleet.nodes.drift_decisions import require_nothing_ignored
from controller.fleet.nodes.manifest import MODULES, ensure_role_modules, next_node_request, require_roles
from controller.fleet.nodes.names import require_labels
from controller.fleet.nodes.views import NodeUpdate, render_node
from controller.fleet.ports import ChangeNote, FleetOp, Recorder
from controller.jobs.commands import release_node_jobs
from controller.jobs.queue import JobRequest
from shared.errors import ConflictError, InvalidInputError, NotFoundError
from shared.protocol.job import ACTION_DRIFT, ACTION_NOOP, DriftRequest, JobMode, Semantics
from shared.specs.base import Presence
from shared.specs.manifest import DriftPolicy

VERBS: Final[dict[str, Presence]] = {
    "install": Presence.DISABLED,
    "enable": Presence.ENABLED,
    "disable": Presence.DISABLED,
    "remove": Presence.ABSENT,
}
"""Each verb of a module's life picks a presence; the fifth, status, only looks."""


class Nodes:
    """Use cases; each runs in the transaction of its context."""

    def __init__(self, record: Recorder) -> None:
        self._record = record

    async def update(self, op: FleetOp, node_id: str, params: NodeUpdate) -> Node:
        """Change what is given. New roles bring their modules at once, a new drift policy goes to the node.

        Raises:
            ForbiddenError, NotFoundError, InvalidInputError
            ConflictError: It shall repair drift by itself, and some of it is ignored.
        """
        op.actor.require("nodes", "write")
        node = await get_node(op.session, node_id)
        before = _state_of(node)
        if params.roles is not msgspec.UNSET:
            node.roles = require_roles(params.roles)
        if params.labels is not msgspec.UNSET:
            node.labels = require_labels(params.labels)
        if params.is_cordoned is not msgspec.UNSET:
            node.is_cordoned = params.is_cordoned
        if params.drift_policy is not msgspec.UNSET:
            if params.drift_policy is DriftPolicy.REPAIR:
                await require_nothing_ignored(op.session, node, now=op.now)
            node.drift_policy = params.drift_policy
        after = _state_of(node)
        if after == before:
            return node
        node.updated_at = op.now
        has_more = await ensure_role_modules(op.session, node)
        if node.state is NodeState.ACTIVE and (has_more or after["drift_policy"] != before["drift_policy"]):
            await self._send_manifest(op, node, "settings of the node")
        self._note(op, node, "node.update", before, after)
        return node

    async def cordon(self, op: FleetOp, node_id: str, *, is_cordoned: bool) -> Node:
        """Let placement pass the node by, or not any more; the same again changes nothing.

        Raises:
            ForbiddenError, NotFoundError
        """
        op.actor.require("nodes", "write")
        node = await get_node(op.session, node_id)
        if node.is_cordoned is not is_cordoned:
            before = _state_of(node)
            node.is_cordoned, node.updated_at = is_cordoned, op.now
            self._note(op, node, "node.cordon" if is_cordoned else "node.uncordon", before, _state_of(node))
        return node

    async def revoke(self, op: FleetOp, node_id: str) -> Node:
        """Cut the node off for good: its certificates are worthless. What it serves goes on.

        Raises:
            ForbiddenError, NotFoundError
            ConflictError: It is revoked already.
        """
        op.actor.require("nodes", "write")
        node = await get_node(op.session, node_id)
        if node.state is NodeState.REVOKED:
            raise ConflictError(f"the node {node.name} is revoked already")
        before = _state_of(node)
        node.state, node.revoked_at, node.updated_at = NodeState.REVOKED, op.now, op.now
        await revoke_certificates(op.session, node.id, now=op.now)
        await release_node_jobs(op.session, node.id, note="the node was revoked", now=op.now)
        self._note(op, node, "node.revoke", before, _state_of(node))
        return node

    async def delete(self, op: FleetOp, node_id: str) -> None:
        """Forget the node with everything that only it had; its jobs stay as history.

        Raises:
            ForbiddenError, NotFoundError
            ConflictError: It is still active, or has accounts.
        """
        op.actor.require("nodes", "write")
        node = await get_node(op.session, node_id)
        if node.state is NodeState.ACTIVE:
            raise ConflictError(f"the node {node.name} is active", hint="Revoke it first.")
        await release_node_jobs(op.session, node.id, note="the node was deleted", now=op.now)
        await op.session.flush()
        try:
            async with op.session.begin_nested():
                await op.session.execute(
                    delete(Node).where(Node.id == node.id), execution_options={"synchronize_session": False}
                )
        except IntegrityError as error:
            raise ConflictError(
                f"accounts of the node {node.name} are still kept", hint="Delete its accounts first."
            ) from error
        self._note(op, node, "node.delete", _state_of(node), None)

    async def set_module(
        self, op: FleetOp, node_id: str, name: str, presence: Presence, settings: dict[str, str] | None = None
    ) -> NodeModule:
        """Decide how much of a module the node shall have; the same again repairs it. `settings` None keeps them.

        Raises:
            ForbiddenError
            NotFoundError: There is no such node or module.
            InvalidInputError: The settings are not.
            ConflictError: The node is not active, or other modules need this one.
        """
        op.actor.require("nodes", "write")
        node = await get_active_node(op.session, node_id)
        if name not in MODULES:
            raise NotFoundError(f"there is no module {name[:40]!r}")
        row = await find_module(op.session, node_id, name)
        before = _module_state(row) if row is not None else None
        if row is None:
            row = NodeModule(node_id=node_id, name=name, presence=presence, settings={})
            op.session.add(row)
        row.presence, row.updated_at = presence, op.now
        if settings is not None:
            row.settings = require_settings(settings)
        await self._send_manifest(op, node, f"module {name} {presence.value}")
        row.desired_generation = node.desired_generation
        note = ChangeNote(
            action="node.set_module",
            target=f"node/{node.id}",
            target_name=f"{node.name}: {name}",
            before=before,
            after=_module_state(row),
        )
        self._record(op, note)
        return row

    async def ping(self, op: FleetOp, node_id: str) -> Node:
        """Prove the whole way to the node's executor and back.

        Raises:
            ForbiddenError, NotFoundError
            ConflictError: The node is not active.
        """
        op.actor.require("nodes", "write")
        node = await get_active_node(op.session, node_id)
        await op.ask(_request(op, node, action=ACTION_NOOP, label=f"{node.name}: ping"))
        return node

    async def check_drift(self, op: FleetOp, node_id: str) -> Node:
        """Compare everything on the node with what was applied; findings come a moment later.

        Raises:
            ForbiddenError, NotFoundError
            ConflictError: The node is not active.
        """
        op.actor.require("drift", "write")
        node = await get_active_node(op.session, node_id)
        args = msgspec.msgpack.encode(DriftRequest())
        label = f"{node.name}: look for drift"
        await op.ask(_request(op, node, action=ACTION_DRIFT, label=label, args=args))
        return node

    async def repair(self, op: FleetOp, node_id: str) -> Node:
        """Send the node's own manifest again.

        Raises:
            ForbiddenError, NotFoundError
            ConflictError: The node is not active.
        """
        op.actor.require("nodes", "write")
        node = await get_active_node(op.session, node_id)
        await self._send_manifest(op, node, "repair")
        note = ChangeNote(action="node.repair", target=f"node/{node.id}", target_name=node.name, after=_state_of(node))
        self._record(op, note)
        return node

    async def _send_manifest(self, op: FleetOp, node: Node, reason: str) -> None:
        await op.session.flush()
        await op.ask(
            await next_node_request(op.session, node, actor=op.actor.reference, request_id=op.request_id, reason=reason)
        )

    def _note(
        self, op: FleetOp, node: Node, action: str, before: dict[str, Any] | None, after: dict[str, Any] | None
    ) -> None:
        target = f"node/{node.id}"
        self._record(op, ChangeNote(action=action, target=target, target_name=node.name, before=before, after=after))


async def get_node(session: AsyncSession, node_id: str) -> Node:
    """The node.

    Raises:
        NotFoundError: There is none.
    """
    statement = select(Node).where(Node.id == node_id).execution_options(populate_existing=True)
    node = (await session.execute(statement)).scalar_one_or_none()
    if node is None:
        raise NotFoundError(f"there is no node {node_id[:80]!r}")
    return node


async def get_active_node(session: AsyncSession, node_id: str) -> Node:
    """The node, if it can be asked for something.

    Raises:
        NotFoundError: There is none.
        ConflictError: It is not active.
    """
    node = await get_node(session, node_id)
    if node.state is not NodeState.ACTIVE:
        raise ConflictError(f"the node {node.name} is {node.state.value}")
    return node


async def find_module(session: AsyncSession, node_id: str, name: str) -> NodeModule | None:
    """The row of a node's module."""
    statement = select(NodeModule).where(NodeModule.node_id == node_id, NodeModule.name == name)
    return (await session.execute(statement)).scalar_one_or_none()


def _request(op: FleetOp, node: Node, *, action: str, label: str, args: bytes = b"") -> JobRequest:
    return JobRequest(
        node_id=node.id,
        action=action,
        args=args,
        resource_key=f"fleet/{action.partition('@')[0]}",
        mode=JobMode.PLAN if action == ACTION_DRIFT else JobMode.APPLY,
        semantics=Semantics.CONVERGE,
        actor=op.actor.reference,
        request_id=op.request_id[:64],
        label=label,
        max_runtime_seconds=300,
        ttl_seconds=3600,
    )


def require_settings(settings: dict[str, str]) -> dict[str, str]:
    for name, value in settings.items():
        if not name.isidentifier() or not name.isascii() or len(name) > 40:
            raise InvalidInputError(f"{name[:40]!r} is not the name of a setting", field="settings")
        if len(value) > 500 or not value.isprintable():
            raise InvalidInputError("at most 500 printable characters", field=f"settings.{name}")
    return dict(sorted(settings.items()))


def _state_of(node: Node) -> dict[str, Any]:
    view = render_node(node)
    kept = ("name", "state", "roles", "labels", "is_cordoned", "drift_policy", "desired_generation")
    return {name: msgspec.to_builtins(getattr(view, name)) for name in kept}


def _module_state(row: NodeModule) -> dict[str, Any]:
    return {"presence": row.presence.value, "settings": dict(row.settings)}
