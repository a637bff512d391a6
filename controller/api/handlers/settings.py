"""What the controller runs with, over HTTP."""

from __future__ import annotations

from litestar import get
from litestar.di import NamedDependency

from controller.core.context import Actor
from controller.core.operations import FleetContext, Operations
from controller.setting_sources import SettingList


@get("/settings", operation_id="list-settings", tags=["settings"], summary="List the controller's settings")
async def list_settings(
    settings_in_force: NamedDependency[SettingList],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> SettingList:
    """Show what this process was started with and where each value came from; it reads them once, when it starts."""

    async def use_case(ctx: FleetContext) -> SettingList:
        ctx.actor.require_platform("settings", "read")
        return settings_in_force

    return await operations.read(actor, request_id, use_case)


ROUTES = (list_settings,)
