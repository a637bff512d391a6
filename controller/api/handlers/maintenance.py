"""Maintenance and drain of nodes over HTTP, and a look at a node's health."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import msgspec
from litestar import Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import Meta
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.api.handlers.nodes import view_node
from controller.core.accounts.models import Account
from controller.core.context import Actor
from controller.core.http import DRY_RUN_RESPONSES, DryRun, PathId, answer_accepted, answer_done
from controller.core.operations import FleetContext, Operations
from controller.fleet.fleet import Fleet
from controller.fleet.models import Node
from controller.fleet.nodes.hold_views import HoldView, render_hold_view
from controller.fleet.nodes.nodes import get_active_node, get_node
from controller.fleet.nodes.views import NodeView
from controller.jobs.holds import HoldKind, NodeHold, find_hold, is_held
from controller.jobs.models import Job
from controller.jobs.states import ON_NODE, WAITING, JobState
from controller.jobs.views import JobView, render_job
from shared.errors import ConflictError
from shared.protocol.job import JobMode

_TAGS = ["nodes"]

NOT_MOVED = (
    "Accounts stay on this node: this release cannot move an account's data to another node. Their sites go on being "
    "served while the node runs, and are away while it does not."
)

Reason = Annotated[str, Meta(min_length=1, max_length=500, description="For people.", examples=["RAID controller"])]


class MaintenanceStart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why and how long a node is in maintenance."""

    reason: Reason
    until: Annotated[
        datetime | None, Meta(description="When it ends by itself, 90 days from now at most. Null: when you end it.")
    ] = None


class DrainStart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a node is drained."""

    reason: Reason
    deadline: Annotated[
        datetime | None, Meta(description="When an event says what still runs, 90 days from now at most.")
    ] = None
    cancel_at_deadline: Annotated[bool, Meta(description="Also ask the node then to cancel what still runs.")] = False


class HoldChange(msgspec.Struct, frozen=True, kw_only=True):
    """A node after its hold has ended, and jobs that were asked for anew."""

    resource: NodeView
    jobs: tuple[JobView, ...]


class DrainAccount(msgspec.Struct, frozen=True, kw_only=True):
    """An account on the node."""

    id: str
    name: str
    state: str
    needs: str


class DrainView(msgspec.Struct, frozen=True, kw_only=True):
    """How far a drain is."""

    node_id: str
    node_name: str
    state: Annotated[
        str,
        Meta(
            description="none; draining: something still runs; overdue: so, and the deadline is over; drained: nothing "
            "runs and nothing is sent, so the machine may be rebooted. It stays so until `undrain`."
        ),
    ]
    hold: HoldView | None
    settled_at: Annotated[datetime | None, Meta(description="Since when nothing runs any more.")]
    running: Annotated[tuple[JobView, ...], Meta(description="What still runs, or is on its way to the node.")]
    waiting_jobs: Annotated[int, Meta(description="Jobs that wait until the node is released.")]
    accounts: tuple[DrainAccount, ...]
    note: str


@post(
    "/nodes/{node_id:str}/maintenance",
    operation_id="start-node-maintenance",
    tags=_TAGS,
    status_code=200,
    summary="Start a node's maintenance",
)
async def start_maintenance(
    *,
    node_id: PathId,
    data: JSONBody[MaintenanceStart],
    fleet: NamedDependency[Fleet],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[NodeView]:
    """Send a node nothing that changes it; it goes on serving. Changes are accepted and wait until the end."""

    async def use_case(ctx: FleetContext) -> Node:
        await fleet.maintenance.start(ctx, node_id, reason=data.reason, until=_aware(data.until))
        return await get_node(ctx.session, node_id)

    outcome = await operations.change(actor, request_id, view_node(use_case), is_dry_run=dry_run)
    await fleet.hold_book.refresh()
    return answer_done(outcome, status=200)


@delete(
    "/nodes/{node_id:str}/maintenance",
    operation_id="end-node-maintenance",
    tags=_TAGS,
    status_code=202,
    responses=DRY_RUN_RESPONSES,
    summary="End a node's maintenance",
)
async def end_maintenance(
    *,
    node_id: PathId,
    fleet: NamedDependency[Fleet],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[HoldChange]:
    """Let everything flow that waited."""

    async def use_case(ctx: FleetContext) -> Node:
        ctx.job_ids.extend(await fleet.maintenance.end(ctx, node_id))
        return await get_node(ctx.session, node_id)

    outcome = await operations.change(actor, request_id, view_node(use_case), is_dry_run=dry_run)
    if not dry_run:
        await fleet.resume(node_id)
        await fleet.hold_book.refresh()
    return answer_accepted(outcome, lambda view, jobs: HoldChange(resource=view, jobs=jobs))


@post(
    "/nodes/{node_id:str}/drain",
    operation_id="drain-node",
    tags=_TAGS,
    status_code=200,
    summary="Drain a node",
)
async def drain_node(
    *,
    node_id: PathId,
    data: JSONBody[DrainStart],
    fleet: NamedDependency[Fleet],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[DrainView]:
    """Cordon a node, send it nothing new that changes it, and let what runs end: then it is safe to reboot."""

    async def use_case(ctx: FleetContext) -> DrainView:
        await fleet.maintenance.drain(
            ctx, node_id, reason=data.reason, deadline=_aware(data.deadline), is_cancelling=data.cancel_at_deadline
        )
        return await _view_drain(ctx.session, node_id)

    outcome = await operations.change(actor, request_id, use_case, is_dry_run=dry_run)
    await fleet.hold_book.refresh()
    return answer_done(outcome, status=200)


@get("/nodes/{node_id:str}/drain", operation_id="show-node-drain", tags=_TAGS, summary="Show a node's drain")
async def show_drain(
    *,
    node_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> DrainView:
    """Show what still runs, what waits, and which accounts the node has."""

    async def query(ctx: FleetContext) -> DrainView:
        ctx.actor.require("nodes", "read")
        return await _view_drain(ctx.session, node_id)

    return await operations.read(actor, request_id, query)


@post(
    "/nodes/{node_id:str}/undrain",
    operation_id="undrain-node",
    tags=_TAGS,
    status_code=202,
    responses=DRY_RUN_RESPONSES,
    summary="End a node's drain",
)
async def undrain_node(
    *,
    node_id: PathId,
    fleet: NamedDependency[Fleet],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[HoldChange]:
    """Release a drained node: uncordon it, unless it was cordoned before, and let flow what waited."""

    async def use_case(ctx: FleetContext) -> Node:
        ctx.job_ids.extend(await fleet.maintenance.undrain(ctx, node_id))
        return await get_node(ctx.session, node_id)

    outcome = await operations.change(actor, request_id, view_node(use_case), is_dry_run=dry_run)
    if not dry_run:
        await fleet.resume(node_id)
        await fleet.hold_book.refresh()
    return answer_accepted(outcome, lambda view, jobs: HoldChange(resource=view, jobs=jobs))


def _cordon(verb: str, *, is_cordoned: bool, sentence: str) -> object:
    @post(
        f"/nodes/{{node_id:str}}/{verb}",
        operation_id=f"{verb}-node",
        tags=_TAGS,
        status_code=200,
        summary=f"{verb.capitalize()} a node",
        description=sentence,
        name=f"{verb}-node",
    )
    async def handler(
        *,
        node_id: PathId,
        fleet: NamedDependency[Fleet],
        operations: NamedDependency[Operations],
        actor: NamedDependency[Actor],
        request_id: NamedDependency[str],
        dry_run: DryRun = False,
    ) -> Response[NodeView]:
        async def use_case(ctx: FleetContext) -> Node:
            hold = await find_hold(ctx.session, node_id, HoldKind.DRAIN)
            if hold is not None and not is_cordoned:
                raise ConflictError("the node is being drained", hint="End that: wcp360 nodes undrain NODE")
            return await fleet.nodes.cordon(ctx, node_id, is_cordoned=is_cordoned)

        return answer_done(
            await operations.change(actor, request_id, view_node(use_case), is_dry_run=dry_run), status=200
        )

    return handler


@post(
    "/nodes/{node_id:str}/health-check",
    operation_id="check-node-health",
    tags=_TAGS,
    status_code=200,
    summary="Check a node's health",
)
async def check_health(
    *,
    node_id: PathId,
    fleet: NamedDependency[Fleet],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[NodeView]:
    """Have a node look at its modules now: services, ports, and whether their configuration would be accepted."""

    async def use_case(ctx: FleetContext) -> Node:
        ctx.actor.require("nodes", "write")
        return await get_active_node(ctx.session, node_id)

    outcome = await operations.change(actor, request_id, view_node(use_case), is_dry_run=dry_run)
    if not dry_run:
        fleet.look_at_health(node_id)
    return answer_done(outcome, status=200)


async def _view_drain(session: AsyncSession, node_id: str) -> DrainView:
    node = await get_node(session, node_id)
    hold = await find_hold(session, node_id, HoldKind.DRAIN)
    active = select(Job).where(
        Job.node_id == node_id, Job.mode == JobMode.APPLY, Job.state.in_(ON_NODE | {JobState.OFFERED})
    )
    running = (await session.scalars(active.order_by(Job.id).limit(200))).all()
    waiting = select(func.count()).select_from(Job).where(Job.node_id == node_id, Job.state.in_(WAITING), is_held())
    accounts = select(Account).where(Account.node_id == node_id, Account.deleted_at.is_(None)).order_by(Account.name)
    return DrainView(
        node_id=node_id,
        node_name=node.name,
        state=_state_of(hold, is_busy=bool(running)),
        hold=render_hold_view(hold) if hold is not None else None,
        settled_at=hold.settled_at if hold is not None else None,
        running=tuple(render_job(job) for job in running),
        waiting_jobs=(await session.execute(waiting)).scalar_one(),
        accounts=tuple(
            DrainAccount(id=row.id, name=row.name, state=row.state.value, needs="stays here; nothing to do")
            for row in (await session.scalars(accounts.limit(1000))).all()
        ),
        note=NOT_MOVED,
    )


def _state_of(hold: NodeHold | None, *, is_busy: bool) -> str:
    if hold is None:
        return "none"
    if is_busy:
        return "overdue" if hold.is_overdue else "draining"
    return "drained"


def _aware(at: datetime | None) -> datetime | None:
    """A time without a zone is UTC, as everywhere in this API."""
    if at is None or at.tzinfo is not None:
        return at
    return at.replace(tzinfo=UTC)


ROUTES = (
    start_maintenance,
    end_maintenance,
    drain_node,
    show_drain,
    undrain_node,
    _cordon("cordon", is_cordoned=True, sentence="Place no new accounts on a node; everything else goes on."),
    _cordon("uncordon", is_cordoned=False, sentence="Place new accounts on a node again."),
    check_health,
)
