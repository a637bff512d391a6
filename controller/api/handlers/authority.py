"""Whom nodes believe, over HTTP: the change of the certificate authority, and the keys that sign jobs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

import msgspec
from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import Meta

from controller.core.context import Actor
from controller.core.http import DRY_RUN_RESPONSES, DryRun, PathId, answer_done
from controller.core.operations import FleetContext, Operations
from controller.fleet.fleet import Fleet
from controller.fleet.identity.ca_models import CaRotation
from controller.fleet.identity.ca_rotation import CaRotationView
from controller.fleet.identity.job_key_drill import JobKeysView

_TAGS = ["authority"]


class CaRotationStart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why the authority is replaced."""

    reason: Annotated[str, Meta(max_length=500, examples=["The yearly change."])] = ""


@get("/ca-rotation", operation_id="show-ca-rotation", tags=_TAGS, summary="Show the change of the authority")
async def show_ca_rotation(
    *,
    fleet: NamedDependency[Fleet],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> CaRotationView:
    """Show how far the change is, which nodes hold it up and why."""

    async def query(ctx: FleetContext) -> CaRotationView:
        ctx.actor.require("authority", "read")
        return await fleet.keys.rotations.show(ctx.session, now=ctx.now)

    return await operations.read(actor, request_id, query)


async def _step(
    fleet: Fleet,
    operations: Operations,
    who: tuple[Actor, str],
    use_case: Callable[[FleetContext], Awaitable[CaRotation]],
    *,
    dry_run: bool,
) -> Response[CaRotationView]:
    async def run(ctx: FleetContext) -> CaRotationView:
        await use_case(ctx)
        return await fleet.keys.rotations.show(ctx.session, now=ctx.now)

    actor, request_id = who
    outcome = await operations.change(actor, request_id, run, is_dry_run=dry_run)
    if outcome.plan is None:
        await fleet.keys.follow_rotation()
    return answer_done(outcome, status=200)


@post(
    "/ca-rotation",
    operation_id="start-ca-rotation",
    tags=_TAGS,
    status_code=200,
    responses=DRY_RUN_RESPONSES,
    summary="Begin to replace the authority",
)
async def start_ca_rotation(
    *,
    data: JSONBody[CaRotationStart],
    fleet: NamedDependency[Fleet],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[CaRotationView]:
    """Make a new authority and let the nodes learn of it; nothing is issued by it yet."""

    def use_case(ctx: FleetContext) -> Awaitable[CaRotation]:
        return fleet.keys.rotations.start(ctx, data.reason)

    return await _step(fleet, operations, (actor, request_id), use_case, dry_run=dry_run)


@post(
    "/ca-rotation/advance",
    operation_id="advance-ca-rotation",
    tags=_TAGS,
    status_code=200,
    responses=DRY_RUN_RESPONSES,
    summary="Go on to the next phase",
)
async def advance_ca_rotation(
    *,
    fleet: NamedDependency[Fleet],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[CaRotationView]:
    """Go on, once every node is ready; the last step drops the old authority, and there is no way back from it."""
    return await _step(fleet, operations, (actor, request_id), fleet.keys.rotations.advance, dry_run=dry_run)


@post(
    "/ca-rotation/rollback",
    operation_id="rollback-ca-rotation",
    tags=_TAGS,
    status_code=200,
    responses=DRY_RUN_RESPONSES,
    summary="Return to the old authority",
)
async def rollback_ca_rotation(
    *,
    fleet: NamedDependency[Fleet],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[CaRotationView]:
    """Let the old authority issue everything again; `advance` ends it once all nodes are back with it."""
    return await _step(fleet, operations, (actor, request_id), fleet.keys.rotations.roll_back, dry_run=dry_run)


@get("/job-keys", operation_id="list-job-keys", tags=_TAGS, summary="List the keys that sign jobs")
async def list_job_keys(
    *,
    fleet: NamedDependency[Fleet],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> JobKeysView:
    """Show the keys that sign now, and those that nodes are told not to believe."""

    async def query(ctx: FleetContext) -> JobKeysView:
        ctx.actor.require("authority", "read")
        return await fleet.job_keys.show(ctx.session)

    return await operations.read(actor, request_id, query)


@post(
    "/job-keys/rotate",
    operation_id="rotate-job-key",
    tags=_TAGS,
    status_code=200,
    responses=DRY_RUN_RESPONSES,
    summary="Begin a new job key",
)
async def rotate_job_key(
    *,
    fleet: NamedDependency[Fleet],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[JobKeysView]:
    """Sign with a new key from now on, and with the present ones beside it until every node has the new bundle."""

    async def use_case(ctx: FleetContext) -> JobKeysView:
        return await fleet.job_keys.rotate(ctx, is_dry_run=ctx.is_dry_run)

    outcome = await operations.change(actor, request_id, use_case, is_dry_run=dry_run)
    fleet.offer_trust_soon()
    return answer_done(outcome, status=200)


@post(
    "/job-keys/{kid:str}/revoke",
    operation_id="revoke-job-key",
    tags=_TAGS,
    status_code=200,
    responses=DRY_RUN_RESPONSES,
    summary="Revoke a job key",
)
async def revoke_job_key(
    *,
    kid: PathId,
    fleet: NamedDependency[Fleet],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[JobKeysView]:
    """Let no node believe this key any more; jobs that wait are signed anew, and no node enrols again."""
    waiting: list[str] = []

    async def use_case(ctx: FleetContext) -> JobKeysView:
        view, node_ids = await fleet.job_keys.revoke(ctx, kid, is_dry_run=ctx.is_dry_run)
        waiting[:] = node_ids
        return view

    outcome = await operations.change(actor, request_id, use_case, is_dry_run=dry_run)
    fleet.offer_trust_soon()
    for node_id in waiting:
        fleet.gateway.offer_soon(node_id)
    return answer_done(outcome, status=200)


ROUTES = (
    show_ca_rotation,
    start_ca_rotation,
    advance_ca_rotation,
    rollback_ca_rotation,
    list_job_keys,
    rotate_job_key,
    revoke_job_key,
)
