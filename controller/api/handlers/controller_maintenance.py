"""Maintenance of the controller, over HTTP."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from litestar import Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import Meta

from controller.api.guards import DURING_MAINTENANCE
from controller.core.context import Actor
from controller.core.http import DRY_RUN_RESPONSES, DryRun, answer_done
from controller.core.maintenance import service
from controller.core.maintenance.service import MaintenanceView
from controller.core.operations import Operations

_TAGS = ["maintenance"]


class MaintenanceStart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why, and for how long."""

    reason: Annotated[
        str, Meta(min_length=1, max_length=500, description="Everybody reads it.", examples=["database upgrade"])
    ]
    ends_at: Annotated[
        Annotated[datetime, Meta(tz=True)] | None,
        Meta(description="When it ends by itself, at most 90 days ahead; null: when somebody ends it."),
    ] = None


@get("/maintenance", operation_id="show-maintenance", tags=_TAGS, summary="Show the controller's maintenance")
async def show(
    *, operations: NamedDependency[Operations], actor: NamedDependency[Actor], request_id: NamedDependency[str]
) -> MaintenanceView:
    """Say whether the controller takes changes now, and if not, why and until when."""
    return await operations.read(actor, request_id, service.show)


@post(
    "/maintenance",
    operation_id="start-maintenance",
    tags=_TAGS,
    status_code=200,
    opt={DURING_MAINTENANCE: True},
    responses=DRY_RUN_RESPONSES,
    summary="Put the controller into maintenance",
)
async def start(
    *,
    data: JSONBody[MaintenanceStart],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[MaintenanceView]:
    """Refuse changes with 503 from now on; reading, agents and jobs under way go on. Again: new reason and end."""
    outcome = await operations.change(
        actor,
        request_id,
        lambda ctx: service.start(ctx, reason=data.reason, ends_at=data.ends_at),
        is_dry_run=dry_run,
        is_for_maintenance=True,
    )
    return answer_done(outcome, status=200)


@delete(
    "/maintenance",
    operation_id="end-maintenance",
    tags=_TAGS,
    status_code=200,
    opt={DURING_MAINTENANCE: True},
    responses=DRY_RUN_RESPONSES,
    summary="End the controller's maintenance",
)
async def end(
    *,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[MaintenanceView]:
    """Take changes again."""
    outcome = await operations.change(actor, request_id, service.end, is_dry_run=dry_run, is_for_maintenance=True)
    return answer_done(outcome, status=200)


ROUTES = (show, start, end)
