"""Where the next account goes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from controller.fleet.models import Node, NodeState
from controller.fleet.ports import Committed, CommittedProvider
from controller.jobs.holds import held_node_ids, list_holds
from controller.jobs.waiting import render_hold
from shared.errors import (
    AgentOfflineError,
    BugError,
    ConflictError,
    FleetError,
    InvalidInputError,
    NotFoundError,
    QuotaExceededError,
)
from shared.specs.account import MAX_TENANT_UID, ResourceLimits

_NOTHING: Final = Committed()


class Placement:
    """Chooses nodes and gives out unix ids."""

    def __init__(self, committed: CommittedProvider) -> None:
        self._committed = committed

    async def choose_node(self, session: AsyncSession, *, roles: frozenset[str], limits: ResourceLimits) -> str:
        """Id of the node with the most room that has the roles, is connected and not cordoned.

        Raises:
            ConflictError: `no_node`: there is no such node at all.
            AgentOfflineError: There are some, and none is connected.
            QuotaExceededError: `nodes_full`: none has room for these limits.
        """
        active = select(Node).where(Node.state == NodeState.ACTIVE).order_by(Node.id)
        held = await held_node_ids(session)
        nodes = [node for node in (await session.execute(active)).scalars() if roles <= set(node.roles)]
        nodes = [node for node in nodes if node.id not in held]
        return choose(nodes, await self._committed(session), limits).id

    async def require_placeable(self, session: AsyncSession, node_id: str) -> None:
        """Pass when the node exists and takes new accounts.

        Raises:
            NotFoundError: There is no such node.
            ConflictError: It is not active, or cordoned.
        """
        node = (await session.execute(select(Node).where(Node.id == node_id))).scalar_one_or_none()
        if node is None:
            raise NotFoundError(f"there is no node {node_id[:80]!r}")
        if node.state is not NodeState.ACTIVE or node.is_cordoned:
            reason = "cordoned" if node.state is NodeState.ACTIVE else node.state.value
            raise ConflictError(f"the node {node.name} takes no new accounts: it is {reason}")
        for hold in await list_holds(session, node_id):
            raise ConflictError(f"the node {node.name} takes no new accounts: {render_hold(hold)}", code="node_held")

    async def allocate_uid(self, session: AsyncSession, node_id: str) -> int:
        """A unix id that was never used on this node.

        Raises:
            NotFoundError: There is no such node.
            QuotaExceededError: The node has used up all its ids.
        """
        take = update(Node).where(Node.id == node_id, Node.next_uid <= MAX_TENANT_UID)
        take = take.values(next_uid=Node.next_uid + 1).returning(Node.next_uid)
        taken = (await session.execute(take.execution_options(synchronize_session=False))).scalar_one_or_none()
        if taken is not None:
            return taken - 1
        if (await session.execute(select(Node.id).where(Node.id == node_id))).first() is None:
            raise NotFoundError(f"there is no node {node_id[:80]!r}")
        raise QuotaExceededError("the node has used up all its unix ids", hint="Place the account on another node.")


def choose(nodes: Iterable[Node], committed: Mapping[str, Committed], limits: ResourceLimits) -> Node:
    """The best of nodes that have the right roles; pure.

    Raises:
        ConflictError, AgentOfflineError, QuotaExceededError: As `Placement.choose_node`.
    """
    open_nodes = [node for node in nodes if not node.is_cordoned]
    if not open_nodes:
        raise ConflictError(
            "no node takes new accounts",
            code="no_node",
            hint="Enrol a node with the role web, uncordon one, or end its maintenance.",
        )
    connected = [node for node in open_nodes if node.is_connected]
    if not connected:
        raise AgentOfflineError("no node that takes new accounts is connected", hint="See wcp360 nodes list.")
    fitting = [node for node in connected if _fits(node, committed.get(node.id, _NOTHING), limits)]
    if not fitting:
        raise _full(connected, committed, limits)
    return max(fitting, key=lambda node: _rank(node, committed.get(node.id, _NOTHING)))


def _fits(node: Node, taken: Committed, limits: ResourceLimits) -> bool:
    memory, disk = capacity_of(node, "memory_bytes"), capacity_of(node, "disk_bytes")
    has_memory = memory is None or taken.memory_bytes + (limits.memory_bytes or 0) <= memory
    has_disk = disk is None or taken.disk_bytes + (limits.disk_bytes or 0) <= disk
    return has_memory and has_disk


def _rank(node: Node, taken: Committed) -> tuple[float, int, str]:
    """The smaller of the two free shares counts; then the fewer accounts; then any fixed order."""
    shares = [
        1.0 - used / total
        for total, used in (
            (capacity_of(node, "memory_bytes"), taken.memory_bytes),
            (capacity_of(node, "disk_bytes"), taken.disk_bytes),
        )
        if total
    ]
    return round(min(shares, default=1.0), 2), -taken.accounts, node.id


def _full(nodes: Iterable[Node], committed: Mapping[str, Committed], limits: ResourceLimits) -> FleetError:
    free = {
        node.name: {
            "memory_bytes": (capacity_of(node, "memory_bytes") or 0) - committed.get(node.id, _NOTHING).memory_bytes,
            "disk_bytes": (capacity_of(node, "disk_bytes") or 0) - committed.get(node.id, _NOTHING).disk_bytes,
        }
        for node in nodes
    }
    wanted = {"memory_bytes": limits.memory_bytes, "disk_bytes": limits.disk_bytes}
    return QuotaExceededError(
        "no connected node has room for an account of this package",
        code="nodes_full",
        hint="Enrol another node, or choose a smaller package.",
        context={"wanted": wanted, "free": free},
    )


def capacity_of(node: Node, fact: str) -> int | None:
    """A size that the node reported at enrolment; None when it did not.

    Raises:
        BugError: The row holds what enrolment would have refused.
    """
    raw = node.facts.get(fact)
    if raw is None:
        return None
    try:
        return parse_size_fact(raw)
    except InvalidInputError as error:
        raise BugError(f"node {node.id} has the fact {fact} = {raw!r}") from error


def parse_size_fact(raw: str) -> int:
    """Bytes as a decimal number.

    Raises:
        InvalidInputError: It is none.
    """
    if not raw.isascii() or not raw.isdigit() or len(raw) > 18:
        raise InvalidInputError("a size is a whole number of bytes", field="facts")
    return int(raw)
