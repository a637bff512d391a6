"""Nodes as the API shows them, with what other tables know of them: a few queries for a whole page."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.fleet.models import Enrolment, Node, NodeCertificate, NodeModule
from controller.fleet.nodes.health_models import ModuleHealthRow, NodeSignals
from controller.fleet.nodes.manifest import list_node_modules
from controller.fleet.nodes.views import NodeModuleView, NodeView, render_module, render_node
from controller.jobs.holds import NodeHold, list_holds
from shared.protocol.enrolment import EnrolmentState


async def view_nodes(session: AsyncSession, nodes: Sequence[Node]) -> tuple[NodeView, ...]:
    """Views of these nodes, in this order."""
    ids = [node.id for node in nodes]
    newest = select(NodeCertificate.node_id, func.max(NodeCertificate.not_after)).where(
        NodeCertificate.node_id.in_(ids), NodeCertificate.revoked_at.is_(None)
    )
    ends = {row[0]: row[1] for row in (await session.execute(newest.group_by(NodeCertificate.node_id))).all()}
    signals = {row.id: row for row in await session.scalars(select(NodeSignals).where(NodeSignals.id.in_(ids)))}
    holds: dict[str, list[NodeHold]] = {}
    for hold in await list_holds(session):
        holds.setdefault(hold.node_id, []).append(hold)
    # Of active nodes too: a machine that came back with another key, or after a very long time.
    asked = select(Enrolment.node_id, Enrolment.fingerprint_words).where(
        Enrolment.node_id.in_(ids), Enrolment.state == EnrolmentState.PENDING
    )
    words = {row[0]: row[1] for row in (await session.execute(asked.order_by(Enrolment.id))).all()}
    return tuple(
        render_node(
            node,
            not_after=ends.get(node.id),
            words=words.get(node.id),
            holds=holds.get(node.id, ()),
            signals=signals.get(node.id),
        )
        for node in nodes
    )


async def view_node_modules(session: AsyncSession, node_id: str) -> tuple[NodeModuleView, ...]:
    """Modules of a node, by name, with the last look at each."""
    health = await _find_health(session, node_id)
    return tuple(render_module(row, health.get(row.name)) for row in await list_node_modules(session, node_id))


async def view_node_module(session: AsyncSession, row: NodeModule) -> NodeModuleView:
    """One of them."""
    return render_module(row, (await _find_health(session, row.node_id)).get(row.name))


async def _find_health(session: AsyncSession, node_id: str) -> dict[str, ModuleHealthRow]:
    rows = await session.scalars(select(ModuleHealthRow).where(ModuleHealthRow.node_id == node_id))
    return {row.name: row for row in rows}
