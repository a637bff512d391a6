"""What packages can limit and allow in this release, for people."""

from __future__ import annotations

from controller.core.operations import FleetContext
from controller.core.packages.views import FlagKindList, FlagKindView, LimitKindList, LimitKindView


async def list_limits(ctx: FleetContext) -> LimitKindList:
    """Every limit, those included that nothing counts yet.

    Raises:
        ForbiddenError
    """
    ctx.actor.require("packages", "read")
    items = tuple(
        LimitKindView(
            key=kind.key,
            title=kind.title,
            unit=kind.unit,
            enforced_by=kind.enforcement.value,
            is_counted=kind.count is not None,
            maximum=kind.maximum,
        )
        for kind in ctx.registry.limits.limits
    )
    return LimitKindList(items=items)


async def list_features(ctx: FleetContext) -> FlagKindList:
    """Every feature, those included that do not exist yet.

    Raises:
        ForbiddenError
    """
    ctx.actor.require("packages", "read")
    items = tuple(
        FlagKindView(key=kind.key, title=kind.title, is_on_by_default=kind.is_on_by_default, is_obeyed=kind.is_obeyed)
        for kind in ctx.registry.limits.flags
    )
    return FlagKindList(items=items)
